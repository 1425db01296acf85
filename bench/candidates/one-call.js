/** The floor of any Worker that asks a store once: one constant call, whose answer, a session's worth, is handed on. */
const body = JSON.stringify([["MGET", "bench:constant"]]);

export default {
  /** @param {Request} request @param {Record<string, string>} env */
  async fetch(request, env) {
    const answer = await fetch(`${env.UPSTASH_REDIS_REST_URL}/pipeline`, {
      method: "POST",
      headers: { Authorization: `Bearer ${env.UPSTASH_REDIS_REST_TOKEN}` },
      body,
    });
    return new Response(await answer.text(), { headers: { "Content-Type": "application/json" } });
  },
};
