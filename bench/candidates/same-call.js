/**
 * The floor of whoever makes this very call and gives this very answer: Cloakroom's request to the store, and its
 * response's headers, both constant.
 */
const call = JSON.stringify([
  ["MGET", "bench:constant", "limit:session:Z7-eK6Aho_De:29920996", "limit:session:Z7-eK6Aho_De:29920998"],
  ["INCR", "limit:session:Z7-eK6Aho_De:29920997"],
]);
/** What a read needs; whether a change comes from another site is told by more. */
const HEADERS = ["cookie", "origin"];
const HEADERS_OF_CHANGES = [...HEADERS, "sec-fetch-site", "content-type", "if-match"];

export default {
  /** @param {Request} request @param {any} env */
  async fetch(request, env) {
    const names = request.method === "GET" ? HEADERS : HEADERS_OF_CHANGES;
    const read = names.map((name) => request.headers.get(name) ?? "");
    const answer = await fetch(`${env.UPSTASH_REDIS_REST_URL}/multi-exec`, {
      method: "POST",
      headers: { Authorization: `Bearer ${env.UPSTASH_REDIS_REST_TOKEN}` },
      body: call,
      signal: AbortSignal.timeout(2000),
      redirect: "manual",
    });
    const headers = {
      "Content-Type": "application/json",
      ETag: '"kjLrwqerMfiIShiO"',
      "RateLimit-Policy": '"session";q=300;w=60',
      RateLimit: '"session";r=299;t=42',
      Vary: "Cookie",
      "Cache-Control": "no-store",
      "X-Content-Type-Options": "nosniff",
    };
    return new Response(await answer.text(), { status: read.length ? 200 : 500, headers });
  },
};
