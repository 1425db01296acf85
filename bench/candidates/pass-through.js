/** The floor of whoever stands in front of an origin: the request is passed on as it is, and so is the answer. */
export default {
  /** @param {Request} request @param {{ ORIGIN: string }} env */
  fetch(request, env) {
    const { pathname, search } = new URL(request.url);
    return fetch(new Request(env.ORIGIN + pathname + search, request), { redirect: "manual" });
  },
};
