/** The service API, as a back end of ours calls it for its users. */

/** @typedef {import("../visitor.mjs").Visitor} Visitor */
/** @typedef {ReturnType<typeof openOffice>} Office */

/** @param {string} adminToken */
export function openOffice(adminToken) {
  const headers = { Authorization: `Bearer ${adminToken}`, "Content-Type": "application/json" };
  return {
    /** Begins a session of the user, which the visitor has the ticket of then. @param {Visitor} visitor @param {string} user @param {object} data */
    async login(visitor, user, data) {
      const body = JSON.stringify({ user: { id: user }, data });
      const answer = await visitor.send("POST", "/auth/admin/sessions", { headers, body });
      if (answer.status === 201) visitor.accept(answer.json.set_cookie);
      return answer;
    },
    /** Ends all sessions of the user. @param {Visitor} clerk @param {string} user */
    revoke: (clerk, user) => clerk.send("DELETE", `/auth/admin/users/${user}/sessions`, { headers }),
    /** Ends one session. @param {Visitor} clerk @param {string} handle */
    end: (clerk, handle) => clerk.send("DELETE", `/auth/admin/sessions/${handle}`, { headers }),
  };
}
