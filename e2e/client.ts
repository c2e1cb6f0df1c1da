// What a frontend has to write, with each of the clients that are generated
// from /openapi.json.
import axios, { type AxiosError } from "axios";
import createClient from "openapi-fetch";
import { createClient as createHeyApi } from "./build/hey-api/client/index.js";
import * as heyApi from "./build/hey-api/index.js";
import type { components, paths } from "./build/openapi.js";
import * as orval from "./build/orval.js";

type User = components["schemas"]["User"];

// Each returns the user who logs in with the password, or the error.
export const logins: Record<string, (baseURL: string, username: string, password: string) => Promise<User | string>> = {
  "openapi-typescript": async (baseUrl, username, password) => {
    const client = createClient<paths>({ baseUrl });
    const token = await client.POST("/token", {
      body: { username, password, scope: "" },
      headers: { "Content-Type": "application/x-www-form-urlencoded" },
    });
    if (token.error) return token.error.error;
    const me = await client.GET("/users/me", { headers: { Authorization: `Bearer ${token.data.access_token}` } });
    return me.error ? me.error.detail : me.data;
  },

  "hey-api": async (baseUrl, username, password) => {
    const client = createHeyApi({ baseUrl });
    const token = await heyApi.loginTokenPost({ client, body: { username, password } });
    if (token.error) return token.error.error;
    const me = await heyApi.readUsersMeUsersMeGet({ client, auth: token.data.access_token });
    return me.error ? me.error.detail : me.data;
  },

  orval: async (baseURL, username, password) => {
    try {
      const token = await orval.loginTokenPost({ username, password }, { baseURL });
      const headers = { Authorization: `Bearer ${token.data.access_token}` };
      return (await orval.readUsersMeUsersMeGet({ baseURL, headers })).data;
    } catch (error) {
      const { response } = error as AxiosError<Partial<orval.OAuth2Error>>;
      return response?.data.error ?? response?.data.detail ?? String(error);
    }
  },
};
