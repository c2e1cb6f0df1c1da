// The tutorial, clicked through in Chromium against the built program, which
// .ci/run and `npm test` build into build/. Requests to the CDN are answered
// from the npm package of the same version, so that the browser checks the
// page's hashes against what the CDN would send.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { logins } from "./build/client.js";
import { run } from "./service.js";

const assets = "node_modules/swagger-ui-dist";
const { version } = JSON.parse(readFileSync(`${assets}/package.json`));
const cdn = `https://cdn.jsdelivr.net/npm/swagger-ui-dist@${version}/`;
const shots = process.env.SCREENSHOTS; // a folder, to look at the pages

let browser;
before(async () => {
  if (shots) mkdirSync(shots, { recursive: true });
  browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP *.lan 127.0.0.1"],
  });
});
after(() => browser?.close());

// start runs the program until the test ends, and returns its origin.
const start = async (t, ...args) => (await run(t, ...args)).origin;

// behind returns the origin of a real nginx with the text in its server block.
const behind = (t, text) => nginx(t, (address) => `server { listen ${address}; ${text} }`);

// nginx runs a real one, with the server block that server returns for an address,
// and returns its origin.
async function nginx(t, server) {
  const socket = createServer().listen(0, "127.0.0.1");
  await once(socket, "listening");
  const address = `127.0.0.1:${socket.address().port}`;
  socket.close();
  await once(socket, "close");
  const dir = mkdtempSync(`${tmpdir()}/nginx`);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${dir};`).join(" ");
  writeFileSync(`${dir}/nginx.conf`, `daemon off; master_process off; pid ${dir}/pid; error_log stderr; events {}
http { include /etc/nginx/mime.types; access_log off; ${temporary} ${server(address)} }`);
  const running = spawn("nginx", ["-p", dir, "-e", "stderr", "-c", `${dir}/nginx.conf`], {
    stdio: "inherit", env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  });
  t.after(async () => {
    running.kill();
    await once(running, "exit");
    rmSync(dir, { recursive: true });
  });
  for (let tries = 0; tries < 200; tries++) {
    if (await fetch(`http://${address}/`).catch(() => undefined)) return `http://${address}`;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error("nginx does not listen");
}

// open opens a page whose only network is the service, and what answer returns
// for other addresses; it collects what went wrong. Without answer nothing is
// intercepted, since playwright would otherwise answer preflights itself.
async function open(t, url, { width = 1200, height = 900, answer } = {}) {
  const context = await browser.newContext({ viewport: { width, height } });
  context.setDefaultTimeout(10_000);
  t.after(() => context.close());
  const page = await context.newPage();
  page.problems = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.problems.push(message.text());
  });
  page.on("pageerror", (error) => page.problems.push(String(error)));
  if (answer) await context.route(({ hostname }) => hostname !== "127.0.0.1", (route) => {
    const path = answer(route.request().url());
    return path ? route.fulfill({ path, headers: { "access-control-allow-origin": "*" } }) : route.abort("internetdisconnected");
  });
  await page.goto(url);
  return page;
}

const nothing = () => undefined;
const fromPackage = (url) => (url.startsWith(cdn) ? `${assets}/${url.slice(cdn.length)}` : undefined);

async function shoot(page, name) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png` });
}

// execute calls GET /users/me, as the tutorial does, and returns the answer.
async function execute(page) {
  const answered = page.waitForResponse((response) => response.url().endsWith("/users/me"));
  await page.locator("button.execute").click();
  const response = await answered;
  const shown = page.locator(".live-responses-table");
  await shown.locator(".response-col_status", { hasText: String(response.status()) }).waitFor();
  return { status: response.status(), shown: await shown.innerText() };
}

async function authorize(page, username, password) {
  await page.locator(".scheme-container .authorize").click();
  await page.locator("#oauth_username").fill(username);
  await page.locator("#oauth_password").fill(password);
  await page.locator(".modal-ux .modal-btn.authorize").click();
}

const logoutButton = (page) => page.locator(".modal-ux button", { hasText: "Logout" });
const close = (page) => page.locator(".modal-ux .close-modal").click();

async function logout(page) {
  await page.locator(".scheme-container .authorize").click();
  await logoutButton(page).click();
  await close(page);
}

// tutorial clicks what the tutorial tells its reader to click.
async function tutorial(page, name) {
  await page.locator("#operations-default-read_users_me_users_me_get .opblock-summary-control").click();
  await page.getByRole("button", { name: "Try it out" }).click();
  assert.equal((await execute(page)).status, 401);

  await authorize(page, "johndoe", "wrong");
  await page.locator(".modal-ux .errors", { hasText: "Incorrect username or password" }).waitFor();
  await shoot(page, `${name}-wrong`);
  await page.locator("#oauth_password").fill("secret");
  await page.locator(".modal-ux .modal-btn.authorize").click();
  await logoutButton(page).waitFor();
  await shoot(page, `${name}-authorized`);
  await close(page);
  const johndoe = await execute(page);
  assert.equal(johndoe.status, 200);
  assert.match(johndoe.shown, /"email": "johndoe@example.com"/);
  assert.doesNotMatch(johndoe.shown, /hash|\$2[aby]\$/);
  await page.locator(".live-responses-table").scrollIntoViewIfNeeded();
  await shoot(page, `${name}-johndoe`);

  await logout(page);
  assert.equal((await execute(page)).status, 401);

  await authorize(page, "alice", "secret2");
  await logoutButton(page).waitFor();
  await close(page);
  const alice = await execute(page);
  assert.equal(alice.status, 400);
  assert.match(alice.shown, /Inactive user/);
}

// The refusals that the tutorial provokes may be in the console, and nothing else.
const refusals = /Failed to load resource: the server responded with a status of 40[01]/;

for (const width of [1200, 390, 320]) {
  test(`the tutorial at ${width} pixels, Swagger UI from the CDN`, async (t) => {
    const origin = await start(t);
    const page = await open(t, `${origin}/`, { width, answer: fromPackage });
    await page.locator(".scheme-container .authorize").waitFor();
    assert.equal(page.url(), `${origin}/docs`);
    assert.equal(await page.locator("#without").isVisible(), false);
    assert.deepEqual(page.problems, []);
    assert.ok(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen");
    await shoot(page, `docs-${width}`);
    await tutorial(page, `tutorial-${width}`);
    assert.deepEqual(page.problems.filter((text) => !refusals.test(text)), []);
    for (const closed = page.locator(".opblock:not(.is-open) .opblock-summary-control"); await closed.count();) {
      await closed.first().click();
      assert.ok(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "an operation is wider than the screen");
    }
    for (const tries = page.getByRole("button", { name: "Try it out" }); await tries.count();) await tries.first().click();
    for (const field of await page.locator(".opblock.is-open input[type=text]").all()) await field.fill("any"); // and "Reset" appears
    assert.ok(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a form is wider than the screen");
    await page.locator("tr.parameters").first().scrollIntoViewIfNeeded();
    await shoot(page, `form-${width}`);
  });

  test(`the help at ${width} pixels when the CDN cannot be reached`, async (t) => {
    const origin = await start(t);
    const page = await open(t, `${origin}/docs`, { width, answer: nothing });
    await page.getByText("-docs-assets DIR").waitFor();
    await page.getByText(`${origin}/token -d username=johndoe`).waitFor();
    await shoot(page, `without-${width}`);
    assert.ok(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen");
    await page.getByRole("link", { name: "/openapi.json" }).click();
    await page.getByText('"openapi": "3.1.0"').waitFor();
  });
}

// Whoever opens the dialog types where the cursor is, and presses Enter.
for (const [width, height] of [[1280, 800], [390, 844], [844, 390]]) {
  test(`the Authorize dialog at ${width}×${height}, by keyboard`, async (t) => {
    const page = await open(t, `${await start(t)}/docs`, { width, height, answer: fromPackage });
    const logins = [];
    page.on("request", (request) => request.method() === "POST" && logins.push(request.url()));
    const inView = (selector) => page.locator(selector).evaluate((element) => {
      const box = element.getBoundingClientRect();
      const at = (y) => document.elementFromPoint(box.left + box.width / 2, y);
      return element.contains(at(box.top + 2)) && element.contains(at(box.bottom - 2));
    });
    await page.locator(".scheme-container .authorize").press("Enter");
    await page.locator("#oauth_username:focus").waitFor();
    assert.ok(await inView("#oauth_username"), "the username is out of view");
    assert.ok(await inView("#oauth_password"), "the password is out of view");
    assert.ok(await inView(".modal-ux .modal-btn.authorize"), "the button is out of view");
    assert.ok(await inView(".modal-ux .close-modal"), "the way out is out of view");
    assert.ok(await page.locator(".modal-ux .scopes").getByText("ask what a token stands for").isVisible(), "the scopes have no names");
    assert.deepEqual(await page.locator(".modal-ux h4").allTextContents(), ["OAuth2PasswordBearer (OAuth2, password) "]);
    await shoot(page, `dialog-${width}`);

    await page.keyboard.press("Enter");
    assert.equal(await page.locator("#oauth_username:focus").count(), 1, "Enter leaves a username that is empty");
    await page.keyboard.type("johndoe");
    await page.keyboard.press("Enter");
    await page.locator("#oauth_password:focus").waitFor();
    await page.keyboard.press("Enter");
    await page.keyboard.type("wrong");
    assert.deepEqual(logins, []);
    await page.keyboard.press("Enter");
    await page.locator(".modal-ux .errors", { hasText: "Incorrect username or password" }).waitFor();
    assert.ok(await inView(".modal-ux .errors"), "the error is out of view");
    assert.ok(await inView("#oauth_password"), "the error covers the password");
    assert.ok(await inView(".modal-ux .modal-btn.authorize"), "the error covers the button");
    assert.equal(await page.locator("#oauth_password:focus").count(), 1);
    await shoot(page, `dialog-${width}-wrong`);
    await page.keyboard.press("Control+A");
    await page.keyboard.type("secret");
    await page.keyboard.press("Enter");
    await logoutButton(page).waitFor();
    assert.equal(logins.length, 2);

    await logoutButton(page).click();
    await page.locator("#oauth_username").waitFor(); // made anew
    const told = (id) => page.locator(id).evaluate((input) =>
      ["autocomplete", "autocapitalize", "autocorrect", "spellcheck"].map((name) => input.getAttribute(name)));
    assert.deepEqual(await told("#oauth_username"), ["username", "none", "off", "false"]);
    assert.deepEqual(await told("#oauth_password"), ["current-password", null, null, null]);
    assert.deepEqual(await told("#client_secret_password"), ["off", null, null, null]);
    await page.keyboard.press("Escape");
    await page.locator(".modal-ux").waitFor({ state: "detached" });

    await page.locator("#operations-default-introspect_introspect_post .authorization__btn").click();
    await page.locator("#oauth_username:focus").waitFor();
    assert.equal(await page.locator(".modal-ux h4").count(), 1);
  });
}

test("a token can ask about itself in the page", async (t) => {
  const page = await open(t, `${await start(t)}/docs`, { answer: fromPackage });
  const granted = page.waitForResponse((response) => response.url().endsWith("/token"));
  await authorize(page, "johndoe", "secret");
  const { access_token: token } = await (await granted).json();
  await close(page);
  const operation = page.locator("#operations-default-introspect_introspect_post");
  await operation.locator(".opblock-summary-control").click();
  await operation.getByRole("button", { name: "Try it out" }).click();
  await operation.getByRole("textbox", { name: "token" }).first().fill(token);
  const answered = page.waitForResponse((response) => response.url().endsWith("/introspect"));
  await operation.locator("button.execute").click();
  assert.equal((await (await answered).json()).username, "johndoe");
});

test("the tutorial without any network, -docs-assets", async (t) => {
  const page = await open(t, `${await start(t, "-docs-assets", assets)}/docs`, { answer: nothing });
  await page.locator(".scheme-container .authorize").waitFor();
  assert.deepEqual(page.problems, []);
  await tutorial(page, "assets");
});

// A proxy that strips its path from the request: the service does not know of it.
for (const [path, args] of [["/auth/", []], ["/a/b/", ["-docs-assets", assets]]]) {
  test(`the tutorial under ${path} of nginx ${args}`, async (t) => {
    const service = await start(t, ...args);
    const origin = await behind(t, `location ${path} { proxy_pass ${service}/; }`);
    const page = await open(t, origin + path, { answer: args.length ? nothing : fromPackage });
    await page.locator(".scheme-container .authorize").waitFor();
    assert.equal(page.url(), `${origin}${path}docs`);
    assert.deepEqual(page.problems, []);
    await tutorial(page, "below");
    await page.goto(`${origin}${path}docs/`);
    await page.locator(".scheme-container .authorize").waitFor();
    assert.equal(page.url(), `${origin}${path}docs`);
    for (const login of Object.values(logins)) assert.equal(await login(origin + path.slice(0, -1), "johndoe", "wrong"), "invalid_grant");
    const redirected = await fetch(`${origin}${path}users/me/?a=b`);
    assert.equal(redirected.url, `${origin}${path}users/me?a=b`);
    assert.equal(redirected.status, 401);
  });
}

test("the help under a path of nginx", async (t) => {
  const origin = await behind(t, `location /auth/ { proxy_pass ${await start(t)}/; }`);
  const page = await open(t, `${origin}/auth/`, { answer: nothing });
  await page.getByText(`${origin}/auth/token -d username=johndoe`).waitFor();
  await page.getByRole("link", { name: "/openapi.json" }).click();
  await page.getByText('"openapi": "3.1.0"').waitFor();
  assert.equal(page.url(), `${origin}/auth/openapi.json`);
});

// readmeUsers is the README's users.json.
function readmeUsers(t) {
  const dir = mkdtempSync(`${tmpdir()}/users`);
  process.on("exit", () => rmSync(dir, { recursive: true })); // the service is gone by then
  writeFileSync(`${dir}/users.json`, readFileSync("../README.md", "utf8").match(/```json\n(.*?)```/s)[1]);
  return `${dir}/users.json`;
}

test("the scopes of the users can be chosen", async (t) => {
  const origin = await start(t, "-users", readmeUsers(t));
  const page = await open(t, `${origin}/docs`, { answer: fromPackage });
  await page.locator(".scheme-container .authorize").click();
  const choice = page.locator(".modal-ux .scopes label .item");
  await choice.first().waitFor();
  await shoot(page, "scopes");
  await choice.nth(1).click(); // items:read, after introspect
  const granted = page.waitForResponse((response) => response.url() === `${origin}/token`);
  await page.locator("#oauth_username").fill("jane");
  await page.locator("#oauth_password").fill("correct horse");
  await page.locator(".modal-ux .modal-btn.authorize").click();
  assert.equal((await (await granted).json()).scope, "items:read");
});

test("a service with users of its own offers nobody the tutorial's", async (t) => {
  const origin = await start(t, "-users", readmeUsers(t));
  const page = await open(t, `${origin}/docs`, { answer: fromPackage });
  await page.getByText("Click Authorize and log in.").waitFor();
  const operation = page.locator("#operations-default-login_token_post");
  await operation.locator(".opblock-summary-control").click();
  await operation.getByRole("button", { name: "Try it out" }).click();
  const form = await operation.locator("input:not([type=checkbox])").evaluateAll((inputs) => inputs.map((input) => input.value));
  assert.deepEqual(form, ["password", "", "", "", "", ""]); // grant_type
  assert.doesNotMatch(await page.locator("#swagger-ui").innerText(), /johndoe|alice|secret2/);
  await shoot(page, "own");

  const help = await open(t, `${origin}/docs`, { width: 390, answer: nothing });
  await help.getByText(`${origin}/token --data-urlencode 'username=your username'`).waitFor();
  assert.doesNotMatch(await help.locator("body").innerText(), /johndoe|alice|=secret/);
  assert.ok(await help.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the help is wider than the screen");
  await shoot(help, "own-without");
});

test("the help when the CDN does not answer at all", async (t) => {
  const origin = await start(t);
  const context = await browser.newContext();
  t.after(() => context.close());
  await context.route(`${cdn}*`, () => {}); // kept waiting
  const page = await context.newPage();
  await page.goto(`${origin}/docs`, { waitUntil: "commit" });
  await page.getByText("-docs-assets DIR").waitFor();
});

for (const file of ["swagger-ui-bundle.js", "swagger-ui.css"]) {
  test(`the browser refuses another ${file}`, async (t) => {
    const page = await open(t, `${await start(t)}/docs`, {
      answer: (url) => (url === cdn + file ? `${assets}/package.json` : fromPackage(url)),
    });
    await page.getByText("-docs-assets DIR").waitFor();
    assert.match(page.problems.join("\n"), /integrity/);
  });
}

test("the policy allows nothing else", async (t) => {
  const page = await open(t, `${await start(t)}/docs`, { answer: () => `${assets}/swagger-ui-bundle.js` });
  await page.getByText("-docs-assets DIR").waitFor(); // the style sheet is the script as well
  const refused = await page.evaluate(async (cdn) => {
    const violations = [];
    document.addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
    for (const src of [cdn + "swagger-ui.js", "https://evil.example/swagger-ui-bundle.js", "data:text/javascript,0"]) {
      await new Promise((done) => {
        const script = Object.assign(document.createElement("script"), { src, onerror: done, onload: done });
        document.body.append(script);
      });
    }
    document.body.append(Object.assign(document.createElement("script"), { textContent: "globalThis.inline = true" }));
    await fetch("https://evil.example/").catch(() => {});
    await new Promise((done) => setTimeout(done));
    return { violations, inline: globalThis.inline };
  }, cdn);
  assert.deepEqual(refused, {
    violations: ["script-src-elem", "script-src-elem", "script-src-elem", "script-src-elem", "connect-src"],
    inline: undefined,
  });
});

// serve returns the origin of a server whose handler is answer.
async function serve(t, answer) {
  const server = createServer(answer);
  server.listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  return `http://127.0.0.1:${server.address().port}`;
}

// frontend is a page on another origin, whose fetch talks to the service.
const frontend = (t) => serve(t, (_, response) => response.setHeader("Content-Type", "text/html").end("<title>frontend</title>"));

const session = async (service) => {
  const read = async (path, init) => {
    try {
      const response = await fetch(service + path, init);
      return { status: response.status, challenge: response.headers.get("WWW-Authenticate"), body: await response.json() };
    } catch (error) {
      return String(error);
    }
  };
  const token = await read("/token", { method: "POST", body: new URLSearchParams({ username: "johndoe", password: "secret" }) });
  return {
    token: token.status ?? token,
    me: await read("/users/me", { headers: { Authorization: `Bearer ${token.body?.access_token}` } }),
    without: await read("/users/me"),
    empty: await read("/token", { method: "POST" }),
  };
};

for (const allow of ["its origin", "*"]) {
  test(`a frontend on another origin, allowed by ${allow}`, async (t) => {
    const origin = await frontend(t);
    const service = await start(t, "-cors-origins", allow === "*" ? "*" : `http://localhost:3000,${origin}`);
    const page = await open(t, origin);
    const answers = await page.evaluate(session, service);
    assert.equal(answers.token, 200);
    assert.deepEqual(answers.me.body.username, "johndoe");
    assert.deepEqual(answers.without, { status: 401, challenge: "Bearer", body: { detail: "Not authenticated" } });
    assert.equal(answers.empty.status, 422);
    assert.equal(answers.empty.body.error, "invalid_request");
  });
}

test("the guide's code in a page on another origin", async (t) => {
  const origin = await frontend(t);
  const service = await start(t, "-users", readmeUsers(t), "-cors-origins", origin);
  const [, code] = readFileSync("../guide/clients.md", "utf8").match(/\n## A browser page on another origin\n.*?```js\n(.*?)```/s);
  const page = await open(t, origin);
  const me = await page.evaluate(`(async (username, password) => {
    ${code.replaceAll("http://localhost:8000", service)}
    return me;
  })("jane", "correct horse")`);
  assert.equal(me.username, "jane");
  assert.deepEqual(page.problems, []);
});

test("a frontend on another origin, not allowed", async (t) => {
  const service = await start(t, "-cors-origins", "http://localhost:3000");
  const page = await open(t, await frontend(t));
  const failed = "TypeError: Failed to fetch";
  assert.deepEqual(await page.evaluate(session, service), { token: failed, me: failed, without: failed, empty: failed });
});

// The /docs of a FastAPI app: Swagger UI, and a description whose tokenUrl is the service's.
test("Swagger UI on another origin logs in", async (t) => {
  let service;
  const app = await serve(t, (request, response) => {
    const name = request.url.slice(1);
    if (name.startsWith("swagger-ui")) return response.end(readFileSync(`${assets}/${name}`));
    if (name === "openapi.json") {
      const scheme = { type: "oauth2", flows: { password: { scopes: {}, tokenUrl: `${service}/token` } } };
      return response.end(JSON.stringify({
        openapi: "3.1.0", info: { title: "app", version: "1" }, paths: {}, components: { securitySchemes: { scheme } },
      }));
    }
    response.setHeader("Content-Type", "text/html").end(`<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<link rel="stylesheet" href="swagger-ui.css"><div id="swagger-ui"></div><script src="swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui" })</script>`);
  });
  service = await start(t, "-cors-origins", app);
  const page = await open(t, app);
  const granted = page.waitForResponse((response) => response.url() === `${service}/token` && response.request().method() === "POST");
  await authorize(page, "johndoe", "secret");
  assert.equal((await granted).status(), 200);
  await logoutButton(page).waitFor();
  assert.deepEqual(page.problems, []);
});

test("the guide's Swagger UI on another origin logs in, and calls the service", async (t) => {
  const [, code] = readFileSync("../guide/clients.md", "utf8").match(/\n## A browser page on another origin\n.*?\n```js\n(const spec.*?)```/s);
  let service;
  const app = await serve(t, (request, response) => {
    const name = request.url.slice(1);
    if (name.startsWith("swagger-ui")) return response.end(readFileSync(`${assets}/${name}`));
    response.setHeader("Content-Type", "text/html").end(`<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<link rel="stylesheet" href="swagger-ui.css"><div id="swagger-ui"></div><script src="swagger-ui-bundle.js"></script>
<script type="module">${code.replaceAll("http://localhost:8000", service)}</script>`);
  });
  // Under a path, which the service does not know.
  service = `${await behind(t, `location /login/ { proxy_pass ${await start(t, "-cors-origins", app)}/; }`)}/login`;
  const page = await open(t, app);
  const login = page.waitForRequest((request) => request.method() === "POST");
  await page.locator(".scheme-container .authorize").click();
  await page.locator("#oauth_username").fill("johndoe");
  await page.locator("#oauth_password").fill("secret");
  await page.getByRole("button", { name: "Apply given OAuth2 credentials" }).click(); // another is for Basic
  assert.equal((await login).url(), `${service}/token`);
  await logoutButton(page).waitFor();
  await close(page);
  await page.locator("#operations-default-read_users_me_users_me_get .opblock-summary-control").click();
  await page.getByRole("button", { name: "Try it out" }).click();
  assert.equal((await execute(page)).status, 200);
  assert.deepEqual(page.problems, []);
});

test("a page on another origin sends headers of its own", async (t) => {
  const origin = await frontend(t);
  for (const allowed of [origin, "*"]) {
    const service = await start(t, "-cors-origins", allowed);
    const page = await open(t, origin);
    const status = await page.evaluate(async (service) => {
      const headers = {
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", tracestate: "a=b", baggage: "c=d",
        "sentry-trace": "0-0", "X-Request-ID": "1", "X-CSRF-Token": "2", "Cache-Control": "no-cache",
      };
      const body = new URLSearchParams({ username: "johndoe", password: "secret" });
      const login = await fetch(`${service}/token`, { method: "POST", headers, body });
      headers.Authorization = `Bearer ${(await login.json()).access_token}`;
      return (await fetch(`${service}/users/me`, { headers })).status;
    }, service);
    assert.equal(status, 200);
    assert.deepEqual(page.problems, []);
  }
});

// A browser does not send Sec-Fetch-Mode with a login at a plain-http host.
test("a page at a plain-http host is told apart from the service's own", async (t) => {
  const { origin, log } = await run(t);
  const service = origin.replace("127.0.0.1", "auth.lan");
  const warnings = () => log.filter((line) => line.includes("another origin")).map((line) => line.match(/origin=(\S+)/)[1]);
  const logsIn = (page) => page.evaluate((service) => {
    const body = new URLSearchParams({ username: "johndoe", password: "secret" });
    return fetch(`${service}/token`, { method: "POST", body }).then(({ status }) => status, String);
  }, service);
  assert.equal(await logsIn(await open(t, `${service}/openapi.json`)), 200);
  const app = (await frontend(t)).replace("127.0.0.1", "app.lan");
  const page = await open(t, app);
  assert.equal(await logsIn(page), "TypeError: Failed to fetch");
  while (log.filter((line) => line.includes("msg=login")).length < 2) await new Promise((done) => setTimeout(done, 20));
  assert.deepEqual(warnings(), [app]);
});

test("/openapi.json is what the clients are generated from", async (t) => {
  const served = await (await fetch(`${await start(t)}/openapi.json`)).text();
  assert.equal(served, readFileSync("../docs/openapi.json", "utf8"));
});

for (const [generator, login] of Object.entries(logins)) {
  test(`a client generated by ${generator}`, async (t) => {
    const origin = await start(t);
    assert.deepEqual(await login(origin, "johndoe", "secret"),
      { username: "johndoe", email: "johndoe@example.com", full_name: "John Doe", disabled: false });
    assert.equal(await login(origin, "johndoe", "wrong"), "invalid_grant");
    assert.equal(await login(origin, "alice", "secret2"), "Inactive user");
  });
}

// site is examples/site behind nginx, and the service that it logs in at.
async function site(t, ...args) {
  const service = await start(t, "-users", readmeUsers(t), "-trusted-proxies", "127.0.0.1", ...args);
  // A browser may keep an answer that is so old for years.
  const api = await serve(t, (request, response) => response.setHeader("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    .end(JSON.stringify({ item: request.url, owner: request.headers["remote-user"] })));
  const conf = readFileSync("../examples/site/site.conf", "utf8");
  const origin = await nginx(t, (address) => conf
    .replaceAll("127.0.0.1:8000", service.slice("http://".length)).replaceAll("127.0.0.1:9000", api.slice("http://".length))
    .replace("listen 127.0.0.1:8080", `listen ${address}`).replaceAll("/srv/site", resolve("../examples/site")));
  return { service, origin };
}

const message = (page, text) => page.getByRole("status").filter({ hasText: text }).waitFor();

async function enter(page, username, password) {
  await page.getByLabel("Username").fill(username);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

// focused waits, since the browser follows autofocus some time after the load.
const focused = (page, id) => page.locator(`#${id}:focus`).waitFor();

for (const width of [1200, 390]) {
  test(`the page of the site at ${width} pixels`, async (t) => {
    const { service, origin } = await site(t);
    const page = await open(t, origin, { width });
    page.setDefaultTimeout(60_000);
    const fits = async () => assert.ok(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen");
    assert.deepEqual(page.problems, []);
    await focused(page, "username");
    await fits();
    await shoot(page, `site-${width}`);

    await enter(page, "jane", "wrong");
    await message(page, "The username or the password is wrong.");
    await focused(page, "password");
    await fits();
    await shoot(page, `site-${width}-wrong`);

    const granted = page.waitForResponse((response) => response.url() === `${origin}/login/token`);
    await enter(page, "jane", "correct horse");
    const { access_token: token } = await (await granted).json();
    await page.getByText('{"item":"/items/1","owner":"jane"}').waitFor();
    await focused(page, "title");
    assert.equal(await page.getByLabel("Password").isVisible(), false);
    assert.equal(await page.locator("#password").inputValue(), "");
    await fits();
    await shoot(page, `site-${width}-item`);
    assert.deepEqual(await page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]"), ["", 0, 0]);

    const revoked = page.waitForResponse((response) => response.url() === `${origin}/login/revoke`);
    await page.getByRole("button", { name: "Log out" }).click();
    await message(page, "You are logged out.");
    assert.equal((await revoked).status(), 200);
    assert.equal((await fetch(`${service}/users/me`, { headers: { Authorization: `Bearer ${token}` } })).status, 401);
    assert.equal(await page.locator("#item").textContent(), "");
    assert.equal(await page.getByLabel("Username").inputValue(), "");
    await focused(page, "username");
    await shoot(page, `site-${width}-out`);
    assert.equal(page.url(), `${origin}/`);
    assert.deepEqual(page.problems.filter((text) => !refusals.test(text)), []);
  });
}

test("the page of the site says what went wrong", async (t) => {
  const { service, origin } = await site(t, "-max-failures", "1");
  const page = await open(t, origin, { width: 390 });
  page.setDefaultTimeout(60_000);

  // A token that has ended.
  const granted = page.waitForResponse((response) => response.url() === `${origin}/login/token`);
  await enter(page, "jane", "correct horse");
  await page.getByText('"owner":"jane"').waitFor();
  const { access_token: token } = await (await granted).json();
  await fetch(`${service}/revoke`, { method: "POST", body: new URLSearchParams({ token }) });
  await page.getByRole("button", { name: "Load again" }).click();
  await message(page, "Your login has ended. Log in again.");
  assert.equal(await page.locator("#item").textContent(), "");
  await focused(page, "password");
  await shoot(page, "site-ended");

  // A user who may not hold the scope.
  await enter(page, "items-service", "battery staple");
  await message(page, "You are logged in, but you may not see this.");
  await shoot(page, "site-forbidden");
  await page.getByRole("button", { name: "Log out" }).click();

  // Too many wrong passwords, an API that is busy, and no network.
  await enter(page, "bob", "wrong");
  await message(page, "The username or the password is wrong.");
  await enter(page, "bob", "wrong");
  await page.getByText(/There were too many tries\. Try again in \d+ seconds?\./).waitFor();
  await shoot(page, "site-guessed");
  let answer = (route) => route.fulfill({ status: 503, headers: { "Retry-After": "1" } });
  await page.route("**/login/token", (route) => answer(route));
  await page.getByRole("button", { name: "Log in" }).click();
  await message(page, "The server is busy. Try again in 1 second.");
  answer = (route) => route.abort("internetdisconnected");
  await page.getByRole("button", { name: "Log in" }).click();
  await message(page, "The server cannot be reached. Check your connection, and try again.");
});
