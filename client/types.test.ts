/** What the types promise, checked by tsc alone: nothing here runs. */
import { createClient, CloakroomError, type Client, type Session } from "cloakroom-client";

interface Data {
  views?: number;
  cart?: { name: string; count: number }[];
  address?: { street: string; city: string };
}
const client: Client<Data> = createClient<Data>({
  baseUrl: "https://session.example/auth",
  waitForLimits: true,
});

export async function typed(): Promise<void> {
  const session: Session<Data> | null = await client.session({ signal: AbortSignal.timeout(1) });
  const count: number | undefined = session?.data.cart?.[0]?.count;
  const roles: string[] | undefined = session?.user?.roles;
  await client.merge({ address: { city: "London" }, cart: null });
  // @ts-expect-error: no such member
  await client.merge({ adress: {} });
  // @ts-expect-error: another type
  await client.merge({ views: "1" });
  await client.update((data) => {
    data.views = (data.views ?? 0) + 1;
  });
  await client.update(async (data, before) => ({ ...data, views: before === null ? 0 : 1 }));
  // @ts-expect-error: another type
  await client.update(() => ({ views: "1" }));
  await client.patch([{ op: "increment", path: "/views", value: 1 }], { ifMatch: session?.etag ?? null });
  // @ts-expect-error: no such operation
  await client.patch([{ op: "push", path: "/cart" }]);
  await client.login({ username: "ada", password: "correct horse", remember: true });
  // @ts-expect-error: not a member of a login
  await client.login({ name: "ada", password: "correct horse" });
  const stop: () => void = client.onChange((session) => session?.data.views?.toFixed());
  stop();
  const motto: string = (await client.profile<{ motto: string }>()).motto;
  await client.updateProfile<{ motto: string }>({ motto: null });
  await client.endDevices({ keepCurrent: true });
  const [provider] = await client.providers();
  const address: string = client.loginUrl(provider?.id ?? "google", { returnTo: "/settings", fresh: true });
  const there: string = await client.link("google", { returnTo: "/settings", waitForLimits: true });
  await client.unlink("google");
  void [count, roles, motto, address, there, client.current?.expires_at];
}

export function failed(error: unknown): string {
  if (!(error instanceof CloakroomError)) throw error;
  if (error.code === "rate_limited") return `again in ${error.retryAfter ?? 1}`;
  // A code that is not known yet is a string, too.
  return error.code === "of_tomorrow" || error.maybeDone ? "look" : error.message;
}

createClient({ transport: "bearer", storage: { get: async () => null, set: async () => {}, remove() {} } });
// @ts-expect-error: no such transport
createClient({ transport: "header" });
