// Libraries that resource servers use to introspect, each used as its manual says
// against the built program: what it learns about a live token and a revoked one,
// and that it fails with a wrong secret.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { OAuth2Client } from "@badgateway/oauth2-client";
import * as oauth4webapi from "oauth4webapi";
import * as openid from "openid-client";
import tokenIntrospection from "token-introspection";
import { run } from "./service.js";

const name = "items-service"; // the README's, whose secret has a space
const right = "battery staple";

let origin, dir, end;
before(async () => {
  dir = mkdtempSync(`${tmpdir()}/users`);
  writeFileSync(`${dir}/users.json`, readFileSync("../README.md", "utf8").match(/```json\n(.*?)```/s)[1]);
  ({ origin } = await run({ after: (f) => (end = f) }, "-users", `${dir}/users.json`, "-max-failures", "0"));
});
after(async () => {
  await end();
  rmSync(dir, { recursive: true });
});

const post = (path, form) => fetch(origin + path, { method: "POST", body: new URLSearchParams(form) });

const server = () => ({ issuer: origin, introspection_endpoint: `${origin}/introspect`, revocation_endpoint: `${origin}/revoke` });

// Each library, by its ways to authenticate: a function of a secret and a token
// that returns the answer, and one that revokes the token if the library can.
const libraries = {};
for (const way of ["ClientSecretBasic", "ClientSecretPost"]) {
  const insecure = { [oauth4webapi.allowInsecureRequests]: true }; // http
  libraries[`oauth4webapi, ${way}`] = {
    async introspect(secret, token) {
      const response = await oauth4webapi.introspectionRequest(server(), { client_id: name }, oauth4webapi[way](secret), token, insecure);
      return oauth4webapi.processIntrospectionResponse(server(), { client_id: name }, response);
    },
    async revoke(secret, token) {
      await oauth4webapi.processRevocationResponse(
        await oauth4webapi.revocationRequest(server(), { client_id: name }, oauth4webapi[way](secret), token, insecure));
    },
  };
  const configured = (secret) => {
    const config = new openid.Configuration(server(), name, undefined, openid[way](secret));
    openid.allowInsecureRequests(config);
    return config;
  };
  libraries[`openid-client, ${way}`] = {
    introspect: (secret, token) => openid.tokenIntrospection(configured(secret), token),
    revoke: (secret, token) => openid.tokenRevocation(configured(secret), token),
  };
}
for (const authenticationMethod of ["client_secret_basic", "client_secret_post"]) {
  const client = (clientSecret) => new OAuth2Client({ server: origin, clientId: name, clientSecret, authenticationMethod,
    introspectionEndpoint: "/introspect", revocationEndpoint: "/revoke" });
  libraries[`@badgateway/oauth2-client, ${authenticationMethod}`] = {
    introspect: (secret, accessToken) => client(secret).introspect({ accessToken, expiresAt: null, refreshToken: null }),
    revoke: (secret, accessToken) => client(secret).revoke({ accessToken, expiresAt: null, refreshToken: null }),
  };
}
libraries["token-introspection"] = {
  introspect: (client_secret, token) => tokenIntrospection({ endpoint: `${origin}/introspect`, client_id: name, client_secret })(token),
};

for (const [library, { introspect, revoke }] of Object.entries(libraries)) {
  test(library, async () => {
    const login = await post("/token", { username: "jane", password: "correct horse", scope: "items:read" });
    const { access_token: token } = await login.json();
    const { active, username, scope } = await introspect(right, token);
    assert.deepEqual({ active, username, scope }, { active: true, username: "jane", scope: "items:read" });

    const { access_token: plain } = await (await post("/token", { username: "jane", password: "correct horse" })).json();
    const told = await introspect(right, plain);
    assert.equal(told.active, true);
    assert.equal(told.scope, undefined);

    await assert.rejects(introspect("wrong staple", token));

    await (revoke ? revoke(right, token) : post("/revoke", { token }));
    assert.equal((await fetch(`${origin}/users/me`, { headers: { Authorization: `Bearer ${token}` } })).status, 401);
    // token-introspection throws for a token that is not active.
    const revoked = await introspect(right, token).catch((error) => ({ active: false, error }));
    assert.equal(revoked.active, false);
    if (revoked.error) assert.match(String(revoked.error), /not active/i);
  });
}
