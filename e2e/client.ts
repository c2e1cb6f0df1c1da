// What a frontend has to write: the types come from /openapi.json.
import createClient from "openapi-fetch";
import type { components, paths } from "./build/openapi.js";

// login returns the user whom the password lets in, or the error's code.
export async function login(baseUrl: string, username: string, password: string): Promise<components["schemas"]["User"] | string> {
  const client = createClient<paths>({ baseUrl });
  const token = await client.POST("/token", {
    body: { username, password, scope: "" },
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
  });
  if (token.error) return token.error.error;
  const me = await client.GET("/users/me", { headers: { Authorization: `Bearer ${token.data.access_token}` } });
  return me.error ? me.error.detail : me.data;
}
