// The login page, clicked through in Chromium: by itself, and through each gateway
// that has an example for browsers, before a tool. The program is built into build/,
// see package.json.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const program = "build/simple-oauth2";
const axe = readFileSync("node_modules/axe-core/axe.min.js", "utf8");
const shots = process.env.SCREENSHOTS; // a folder, to look at the pages
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };

let browser;
before(async () => {
  if (shots) mkdirSync(shots, { recursive: true });
  browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
      "--host-resolver-rules=MAP *.lan 127.0.0.1,MAP *.duckdns.org 127.0.0.1,MAP *.example 127.0.0.1"],
  });
});
after(() => browser?.close());

async function freePort() {
  const socket = createServer().listen(0, "127.0.0.1");
  await once(socket, "listening");
  const { port } = socket.address();
  socket.close();
  await once(socket, "close");
  return port;
}

// until waits for ask to return something.
async function until(what, ask) {
  for (let tries = 0; tries < 500; tries++) {
    const found = await ask();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error(`no ${what}`);
}

function folder(t) {
  const dir = mkdtempSync(`${tmpdir()}/login`);
  process.on("exit", () => rmSync(dir, { recursive: true, force: true })); // the service is gone by then
  return dir;
}

// background runs a command until the test ends.
function background(t, command, args, options) {
  const running = spawn(command, args, { env, stdio: ["ignore", "ignore", "inherit"], ...options });
  t.after(async () => {
    running.kill("SIGTERM");
    if (running.exitCode === null) await once(running, "exit");
  });
  return running;
}

const hash = execFileSync("sh", ["-c", `printf secret | ${program} hash -cost 4`]).toString().trim();

// service runs the program with users jane, ann (who is disabled) and bob (who has no
// scope). Its disable function disables jane.
async function service(t, ...args) {
  const file = `${folder(t)}/users.json`;
  const write = (disabled) => writeFileSync(file, JSON.stringify({
    jane: { hashed_password: hash, full_name: "Jane Roe", scopes: ["items:read"], disabled },
    ann: { hashed_password: hash, scopes: ["items:read"], disabled: true },
    bob: { hashed_password: hash },
  }));
  write(false);
  const running = background(t, program, ["-addr", "127.0.0.1:0", "-users", file, "-login-page", "-docs=false",
    "-trusted-proxies", "127.0.0.1", ...args], { stdio: ["ignore", "ignore", "pipe"] });
  const log = [];
  createInterface(running.stderr).on("line", (line) => log.push(line));
  const listening = await until("service", () => log.map((line) => line.match(/msg=listening addr=(\S+)/)).find(Boolean));
  const loads = () => log.filter((line) => line.includes("users loaded")).length;
  const disable = async () => {
    const before = loads();
    write(true);
    running.kill("SIGHUP");
    await until("reload", () => loads() > before);
  };
  return { address: listening[1], origin: `http://${listening[1]}`, log, disable };
}

// tool is what a gateway guards. Its page shows the request, and has a form.
async function tool(t) {
  const reached = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      reached.push({ method: request.method, url: request.url, headers: request.headers, body });
      const text = `${request.method} ${request.url} ${request.headers["remote-user"]} ${body}`.replaceAll("<", "&lt;");
      response.setHeader("Content-Type", "text/html; charset=utf-8");
      response.end(`<!doctype html><title>tool</title><p id="said">${text}</p>
        <form method="post" action="/save"><input name="note"><button>Save</button></form>
        <form method="post" action="/logout"><button>Log out</button></form>`);
    });
  });
  server.on("upgrade", (request, socket) => { // a WebSocket that says who is there, once
    const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
    const said = Buffer.from(String(request.headers["remote-user"]));
    socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${accept.digest("base64")}\r\n\r\n`);
    socket.write(Buffer.concat([Buffer.from([0x81, said.length]), said]));
    socket.on("error", () => {});
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { address: `127.0.0.1:${server.address().port}`, reached };
}

// gateways run an example in a folder, and return the command.
const gateways = {
  nginx: (dir) => {
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${dir};`).join(" ");
    writeFileSync(`${dir}/nginx.conf`, `daemon off; master_process off; pid ${dir}/pid; error_log stderr; events {}
http { access_log off; ${temporary} include ${dir}/browser.conf; }`);
    return ["nginx", ["-p", dir, "-e", "stderr", "-c", `${dir}/nginx.conf`]];
  },
  caddy: (dir) => {
    const file = `${dir}/browser.Caddyfile`;
    writeFileSync(file, `{\nadmin off\n}\n${readFileSync(file)}`);
    return ["caddy", ["run", "--adapter", "caddyfile", "--config", file],
      { env: { ...env, XDG_CONFIG_HOME: dir, XDG_DATA_HOME: dir }, stdio: "ignore" }];
  },
  haproxy: (dir) => ["haproxy", ["-db", "-C", dir, "-f", "browser.cfg"]],
};

// gateway runs the example of one, and returns its port. Its text may be changed.
async function gateway(t, name, service, tool, change = (text) => text) {
  const [dir, port] = [folder(t), await freePort()];
  cpSync(`../examples/${name}`, dir, { recursive: true });
  for (const file of ["browser.conf", "browser.Caddyfile", "browser.cfg", "auth.lua"]) {
    let text;
    try { text = readFileSync(`${dir}/${file}`, "utf8"); } catch { continue; }
    writeFileSync(`${dir}/${file}`, change(text.replaceAll("127.0.0.1:8000", service.address)
      .replaceAll("127.0.0.1:9000", tool.address).replace(/\b809\d\b/g, port)));
  }
  background(t, ...gateways[name](dir));
  await until(name, () => fetch(`http://127.0.0.1:${port}/`).catch(() => undefined));
  return port;
}

// visit opens a browser of its own. It records what goes wrong, and to which hosts it
// sends requests.
async function visit(t, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(10_000);
  t.after(() => context.close());
  const page = await context.newPage();
  watch(page);
  return page;
}

function watch(page) {
  page.problems = [];
  page.hosts = new Set();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.problems.push(message.text());
  });
  page.on("request", (request) => page.hosts.add(new URL(request.url()).host));
}

// logIn fills in the form, and returns the answer to it.
async function logIn(page, username = "jane", password = "secret") {
  await page.getByLabel("Username").fill(username);
  await page.getByLabel("Password").fill(password);
  const answered = page.waitForResponse((response) => response.request().method() === "POST");
  await page.getByRole("button", { name: "Log in" }).click();
  return answered;
}

const said = (page) => page.locator("#said").innerText();
const deep = "/bericht/%C3%BC?from=1&to=2&name=%C3%BC%20%26%20a+b&q=100%25";

for (const name of Object.keys(gateways)) {
  for (const host of ["127.0.0.1", "tool.lan"]) { // to the latter, browsers send no Sec-Fetch-Site
    test(`${name} at ${host}: tool, login, tool`, async (t) => {
      const [s, backend] = [await service(t), await tool(t)];
      const origin = `http://${host}:${await gateway(t, name, s, backend)}`;
      const page = await visit(t);

      // in, with a deep link and a wrong password before
      await page.goto(origin + deep);
      assert.equal(new URL(page.url()).pathname, "/login");
      await logIn(page, "jane", "wrong");
      await page.getByRole("alert").filter({ hasText: "Incorrect username or password" }).waitFor();
      assert.equal(await page.getByLabel("Username").inputValue(), "jane");
      assert.equal(await page.locator("#password:focus").inputValue(), "");
      await page.keyboard.type("secret");
      await page.keyboard.press("Enter");
      await page.locator("#said").waitFor();
      assert.equal(page.url(), origin + deep);
      assert.equal(await said(page), `GET ${deep} jane`);

      // it stays: a reload, a second tab, a fetch call, a WebSocket, a form
      await page.reload();
      assert.equal(await said(page), `GET ${deep} jane`);
      const second = await page.context().newPage();
      await second.goto(`${origin}/second`);
      assert.equal(await said(second), "GET /second jane");
      assert.equal(await page.evaluate(() => fetch("/api").then((answer) => answer.status)), 200);
      assert.equal(await page.evaluate(() => new Promise((told) => {
        new WebSocket(`ws://${location.host}/live`).onmessage = (event) => told(event.data);
      })), "jane");
      await page.locator("input[name=note]").fill("a&b");
      await page.getByRole("button", { name: "Save" }).click();
      await page.waitForURL(`${origin}/save`);
      assert.equal(await said(page), "POST /save jane note=a%26b");
      assert.ok(backend.reached.every(({ headers }) => !/simple_oauth2/.test(headers.cookie ?? "")), "the tool sees the cookie");

      // the page itself says who is there
      await second.goto(`${origin}/login?to=/second`);
      await second.getByText("You are logged in as jane.").waitFor();
      await second.getByRole("link", { name: "Continue" }).click();
      assert.equal(await said(second), "GET /second jane");

      // out, in one tab; in the other a fetch call learns it, and a form leads to the page
      await second.getByRole("button", { name: "Log out" }).click();
      await second.getByText("You are logged out.").waitFor();
      assert.deepEqual(await page.context().cookies(), []);
      assert.equal(await page.evaluate(() => fetch("/api").then((answer) => answer.status)), 401);
      const count = backend.reached.length;
      await page.locator("input[name=note]").fill("lost");
      await page.getByRole("button", { name: "Save" }).click();
      await page.getByLabel("Password").waitFor();
      assert.equal(backend.reached.length, count, "it reached the tool");
      await logIn(page);
      await page.waitForURL(`${origin}/save`);
      assert.equal(await said(page), "GET /save jane"); // without what was typed, as the guide says

      // disabled meanwhile
      await s.disable();
      assert.equal((await second.goto(`${origin}/second`)).status(), 403);
      await second.goto(`${origin}/login`);
      await second.getByText("The account jane is disabled.").waitFor();
      await second.getByRole("button", { name: "Log out" }).click();
      await logIn(second);
      await second.getByRole("alert").filter({ hasText: "this account is disabled" }).waitFor();
      assert.deepEqual([...page.hosts].filter((host) => host !== new URL(origin).host), []);
    });
  }

  test(`${name}: an expired session`, async (t) => {
    const [s, backend] = [await service(t, "-token-ttl", "4s"), await tool(t)];
    const origin = `http://tool.lan:${await gateway(t, name, s, backend)}`;
    const page = await visit(t);
    await page.goto(`${origin}/a?b=c&d=e`);
    await logIn(page);
    await page.locator("#said").waitFor();
    await until("end of the session", async () => { await page.reload(); return page.url().includes("/login"); });
    await logIn(page);
    await page.waitForURL(`${origin}/a?b=c&d=e`);
  });
}

// guide returns the block of the guide that names this file and a name.
function guide(name) {
  const text = readFileSync("../guide/browsers.md", "utf8");
  const [, block] = text.match(new RegExp(`<!-- e2e: skip login\\.test\\.js ${name} -->\n\`\`\`nginx\n([^]*?)\`\`\``));
  return block;
}

test("nginx below a path, for a tool that has a /login of its own", async (t) => {
  const [s, backend] = [await service(t), await tool(t)];
  const origin = `http://tool.lan:${await gateway(t, "nginx", s, backend, (text) => text
    .replace(/ +location ~ \^\/\(login\|logout\)\$ \{[^}]*\}/, () => guide("below").replaceAll("127.0.0.1:8000", s.address))
    .replace("/login?to=", "/sso/login?to="))}`;
  const page = await visit(t);
  await page.goto(`${origin}/login?a=b&to=c`);
  assert.match(page.url(), /\/sso\/login\?to=\/login/);
  await logIn(page, "jane", "wrong");
  await page.getByRole("alert").waitFor();
  await logIn(page);
  await page.waitForURL(`${origin}/login?a=b&to=c`);
  await page.goto(`${origin}/sso/login`);
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByText("You are logged out.").waitFor();
  for (const path of ["/sso/token", "/sso/users/me", "/sso/login/x", "/sso/"]) {
    assert.equal((await fetch(origin.replace("tool.lan", "127.0.0.1") + path)).status, 404);
  }
});

test("nginx before a folder", async (t) => {
  const [s, files] = [await service(t), folder(t)];
  mkdirSync(`${files}/sub`);
  for (const name of ["index.html", "sub/index.html"]) writeFileSync(`${files}/${name}`, `<p id="said">${name}</p>`);
  const origin = `http://tool.lan:${await gateway(t, "nginx", s, { address: "127.0.0.1:1" }, (text) => {
    const [location] = text.match(/location \/ \{[^}]*\}/);
    return text.replace(location, location.replace(/ +proxy_.*\n/g, "").replace("}", guide("folder").replace("/srv/files", files) + "}"));
  })}`;
  const page = await visit(t);
  for (const path of ["/", "/sub", "/sub/", "/index.html"]) {
    assert.equal((await fetch(origin.replace("tool.lan", "127.0.0.1") + path)).status, 401);
  }
  await page.goto(`${origin}/sub`);
  await logIn(page);
  assert.equal(await said(page), "sub/index.html");
  assert.equal(page.url(), `${origin}/sub/`);
});

// certificate returns nginx's lines for TLS.
function certificate(t) {
  const dir = folder(t);
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
    "-subj", "/CN=lan", "-keyout", `${dir}/key.pem`, "-out", `${dir}/cert.pem`], { stdio: "ignore" });
  return `ssl_certificate ${dir}/cert.pem; ssl_certificate_key ${dir}/key.pem;`;
}

const byTLS = (t) => (text) => text.replace(/(listen 127.0.0.1:\d+);/, `$1 ssl; ${certificate(t)}`);

test("https: the cookie is bound to the host", async (t) => {
  const [s, backend] = [await service(t), await tool(t)];
  const port = await gateway(t, "nginx", s, backend, byTLS(t));
  const origin = `https://tool.lan:${port}`;
  const page = await visit(t);
  await page.goto(origin + deep);
  await logIn(page);
  await page.waitForURL(origin + deep);
  const [cookie, ...more] = await page.context().cookies();
  assert.deepEqual(more, []);
  assert.deepEqual([cookie.name, cookie.domain, cookie.path, cookie.secure, cookie.httpOnly, cookie.sameSite],
    ["__Host-simple_oauth2", "tool.lan", "/", true, true, "Lax"]);

  // A plain cookie, as a sibling or a page by http could have set it, is nobody's.
  await page.context().clearCookies();
  await page.context().addCookies([{ ...cookie, name: "simple_oauth2", secure: false }]);
  await page.goto(origin + deep);
  assert.equal(new URL(page.url()).pathname, "/login");
  // It does not hinder a login either.
  await logIn(page);
  await page.waitForURL(origin + deep);
  assert.deepEqual((await page.context().cookies()).map(({ name }) => name), ["__Host-simple_oauth2"]);
});

test("one login for a domain", async (t) => {
  const [s, backend] = [await service(t, "-login-domain", "example.lan"), await tool(t)];
  const tls = certificate(t);
  const port = await gateway(t, "nginx", s, backend, (text) => {
    const own = text.match(/listen 127.0.0.1:(\d+);/)[1];
    return text.replace(/(listen 127.0.0.1:\d+);/, `$1 ssl; ${tls}`)
      .replace(/return 303 .*;/, () => guide("domain").replace("auth.example.com", `auth.example.lan:${own}`));
  });
  const page = await visit(t);
  await page.goto(`https://wiki.example.lan:${port}${deep}`);
  assert.equal(new URL(page.url()).host, `auth.example.lan:${port}`);
  await page.getByText(`You go on to wiki.example.lan:${port}.`).waitFor();
  await logIn(page);
  await page.waitForURL(`https://wiki.example.lan:${port}${deep}`);
  assert.equal(await said(page), `GET ${deep} jane`);
  await page.goto(`https://grafana.example.lan:${port}/`); // the same login
  assert.equal(await said(page), "GET / jane");
  assert.deepEqual((await page.context().cookies()).map(({ name, domain }) => [name, domain]), [["__Secure-simple_oauth2", ".example.lan"]]);
  await page.goto(`https://auth.example.lan:${port}/login`);
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByText("You are logged out.").waitFor();
  await page.goto(`https://grafana.example.lan:${port}/`);
  await page.getByLabel("Password").waitFor();
  assert.deepEqual(page.problems, []);
});

// Each of these was an endless loop somewhere. Here the page says why.
for (const { name, args = [], host = "tool.lan", change = (text) => text, tls, says } of [
  { name: "a public suffix as the domain", args: ["-login-domain", "duckdns.org"], host: "jane.duckdns.org",
    says: /everybody can get a name below duckdns\.org/ },
  { name: "another domain", args: ["-login-domain", "example.com"], says: /it is for example\.com, but this page is at tool\.lan/ },
  { name: "a proxy that says https by http", change: (text) => text.replaceAll("X-Forwarded-Proto $scheme", "X-Forwarded-Proto https"),
    says: /the address above begins with http, while the proxy says https/ },
  { name: "a proxy that hides the host", change: (text) => text.replace("proxy_set_header Host $http_host;\n        proxy_set_header X-Forwarded-For", "proxy_set_header X-Forwarded-For"),
    says: /the form came from tool\.lan:\d+, but this page is at 127\.0\.0\.1:\d+\..*proxy_set_header Host/ },
  { name: "a gateway that does not pass the cookie on", change: (text) => text.replace("proxy_set_header Cookie $http_cookie;", ""),
    says: /You are logged in as jane\..*the gateway does not tell the service of your cookie/s },
  { name: "a gateway that does not say the scheme", change: (text) => text.replace("X-Forwarded-Proto $scheme;\n        proxy_pass_request_body", "X-Any 1;\n        proxy_pass_request_body"),
    says: /You are logged in as jane\..*the gateway does not tell the service of your cookie/s },
]) {
  test(`no loop: ${name}`, async (t) => {
    const [s, backend] = [await service(t, ...args), await tool(t)];
    const port = await gateway(t, "nginx", s, backend, (text) => {
      const changed = change(text);
      if (change.toString() !== "(text) => text") assert.notEqual(changed, text);
      return changed;
    });
    const page = await visit(t);
    await page.goto(`http://${host}:${port}/a?b=c`);
    await logIn(page);
    await page.getByRole("main").filter({ hasText: says }).waitFor();
    await page.reload(); // and not twice
    if (!/form came from/.test(says.source)) await page.getByRole("main").filter({ hasText: says }).waitFor();
  });
}

test("a TLS proxy before nginx, which says http", async (t) => {
  // The browser's own Origin says https, so the cookie is the bound one.
  const [s, backend] = [await service(t), await tool(t)];
  const origin = `https://tool.lan:${await gateway(t, "nginx", s, backend, (text) =>
    byTLS(t)(text).replaceAll("X-Forwarded-Proto $scheme", "X-Forwarded-Proto http"))}`;
  const page = await visit(t);
  await page.goto(`${origin}/a`);
  await logIn(page);
  await page.waitForURL(`${origin}/a`);
  assert.deepEqual((await page.context().cookies()).map(({ name }) => name), ["__Host-simple_oauth2"]);
});

test("a cookie of a sibling host", async (t) => {
  const [s, backend] = [await service(t), await tool(t)];
  const bob = await fetch(`${s.origin}/login`, { method: "POST", redirect: "manual", body: new URLSearchParams({ username: "jane", password: "secret" }) });
  const stranger = bob.headers.getSetCookie().find((line) => line.startsWith("simple_oauth2=")).match(/=([^;]+)/)[1];
  for (const [scheme, change] of [["http", (text) => text], ["https", byTLS(t)]]) {
    const origin = `${scheme}://tool.example.lan:${await gateway(t, "nginx", s, backend, change)}`;
    const page = await visit(t);
    const sibling = (name) => page.context().addCookies([{ name, value: stranger, domain: ".example.lan", path: "/", secure: scheme === "https" }]);
    await sibling("simple_oauth2");
    if (scheme === "https") await assert.rejects(sibling("__Host-simple_oauth2")); // no browser takes it
    await page.goto(`${origin}/a`);
    if (scheme === "https") await page.getByLabel("Password").waitFor(); // it is nobody's
    else await page.locator("#said").waitFor(); // by http it counts, until there are two
    await page.goto(`${origin}/login`);
    if (scheme === "http") {
      await page.context().clearCookies();
      await page.goto(`${origin}/login`);
    }
    await logIn(page);
    await page.waitForURL(`${origin}/`);
    await sibling("simple_oauth2");
    await page.goto(`${origin}/b`);
    if (scheme === "https") assert.equal(await said(page), "GET /b jane");
    else {
      await logIn(page);
      await page.getByRole("alert").filter({ hasText: "two cookies" }).waitFor();
    }
  }
});

// evil serves a page of another site.
async function evil(t, html) {
  const server = createServer((request, response) => {
    response.setHeader("Content-Type", "text/html");
    response.end(html);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => { server.closeAllConnections(); server.close(); });
  return server.address().port;
}

test("another site can neither log in, nor log out, nor frame the page", async (t) => {
  const s = await service(t);
  for (const [host, other] of [["127.0.0.1", "evil.example"], ["auth.lan", "evil.example"], ["auth.lan", "other.lan"],
    ["auth.example.lan", "wiki.example.lan"]]) {
    const origin = `http://${host}:${new URL(s.origin).port}`;
    const page = await visit(t);
    const form = (action, fields) => `<form method="post" action="${origin}${action}">${fields}<button>Go</button></form>`;
    for (const html of [
      form("/login", '<input name="username" value="bob"><input name="password" value="secret">'),
      form("/logout", ""),
      `<iframe sandbox="allow-forms" srcdoc='${form("/login", "<input name=username value=bob><input name=password value=secret>")}'></iframe>`,
    ]) {
      await page.goto(`${origin}/login`);
      if (await page.getByLabel("Username").isVisible()) {
        await logIn(page);
        await page.waitForURL(`${origin}/`);
        await page.goto(`${origin}/login`);
      }
      await page.getByText("You are logged in as jane.").waitFor();
      const port = await evil(t, html);
      await page.goto(`http://${other}:${port}/`);
      if (html.startsWith("<iframe")) {
        const answered = page.waitForResponse((response) => response.url().startsWith(origin));
        await page.frameLocator("iframe").getByRole("button").click();
        assert.equal((await answered).status(), 403);
      } else {
        await page.getByRole("button", { name: "Go" }).click();
        await page.getByRole("alert").filter({ hasText: "Nothing was done" }).waitFor();
      }
      await page.goto(`${origin}/login`);
      await page.getByText("You are logged in as jane.").waitFor();
    }
    const port = await evil(t, `<iframe src="${origin}/login"></iframe>`);
    await page.goto(`http://${other}:${port}/`);
    await until("refusal", () => page.problems.some((text) => /frame-ancestors|Framing/.test(text)));
  }
});

// A browser follows these, with a live session, from a login's last step.
test("no open redirect", async (t) => {
  for (const [scheme, args] of [["http", []], ["http", ["-login-domain", "example.lan"]]]) {
    const s = await service(t, ...args);
    const origin = `${scheme}://auth.example.lan:${new URL(s.origin).port}`;
    const page = await visit(t);
    await page.goto(`${origin}/login`);
    await logIn(page);
    await page.waitForURL((url) => url.pathname !== "/login");
    const [{ value }] = await page.context().cookies();
    const check = createHash("sha256").update(value).digest("hex").slice(0, 8);
    for (const to of [
      "//evil.example", "///evil.example", "////evil.example", "/\\evil.example", "\\\\evil.example", "\\/evil.example",
      "/%09/evil.example", "%09//evil.example", "%2F%09%2Fevil.example", "%2F%0A%2Fevil.example", "%2F%0D%2Fevil.example",
      "%2f%2fevil.example", "%2F/evil.example", "/%2Fevil.example", "/%5Cevil.example", "%2F%5Cevil.example", "%5C%5Cevil.example",
      "https:evil.example", "https:/evil.example", "https:///evil.example", "https:\\\\evil.example", "http:evil.example",
      "https://evil.example", "http://evil.example/", "HTTPS://EVIL.EXAMPLE", "https%3A%2F%2Fevil.example", "https%3Aevil.example",
      "javascript:alert(1)", "javascript%3Aalert(1)", "JaVaScRiPt:alert(1)", "data:text/html,evil", "vbscript:a", "blob:https://evil.example/a",
      "%20//evil.example", "%00//evil.example", "/..//evil.example", "/.//evil.example", "/./\\evil.example", "/a/../..//evil.example",
      "https://auth.example.lan@evil.example", "https://example.lan.evil.example", "https://evilexample.lan:1@evil.example/",
      "https://evil.example\\@auth.example.lan", "https://evil.example%23.example.lan", "https%3A%2F%2Fevil.example%23.example.lan",
      "https%3A%2F%2Fevil.example%5C.example.lan", "https://evil.example%00.example.lan", "//evil.example%2F..", "/%0D%0ALocation:%20//evil.example",
      "@evil.example", ".evil.example", ":80@evil.example", "%252F%252Fevil.example", "/?to=//evil.example", "?to=//evil.example", "//%65vil.example",
      "／／evil.example", "/／evil.example", "https://evil。example", "//evil%E3%80%82example", "/\u2028/evil.example", "%C2%A0//evil.example",
    ]) {
      page.hosts.clear();
      await page.goto(`${origin}/login?check=${check}&to=${to}`).catch(() => {});
      assert.deepEqual([...page.hosts].filter((host) => host !== new URL(origin).host), [], `${to} leads elsewhere`);
      assert.ok(page.url().startsWith(`${origin}/`), `${to} leads to ${page.url()}`);
    }
  }
});

// states are what the page may show: how to get there, and what it says.
const states = [
  { name: "form", target: "/login?to=/report", says: "Log in" },
  { name: "onward", target: "/login?to=https://wiki.example.com/", args: ["-login-domain", "example.com"], says: "You go on to wiki.example.com." },
  { name: "wrong", target: "/login", username: "jane", password: "wrong", says: "Incorrect username or password" },
  { name: "too-many", target: "/login", username: "jane", password: "wrong", times: 10, args: ["-max-failures", "1"], says: "Try again in" },
  { name: "disabled", target: "/login", username: "ann", password: "secret", says: "this account is disabled" },
  { name: "logged-in", target: "/login?to=/report", username: "jane", password: "secret", then: "/login?to=/report", says: "You are logged in as jane." },
  { name: "disabled-later", target: "/login", username: "jane", password: "secret", disable: true, then: "/login", says: "The account jane is disabled." },
  { name: "not-kept", target: "/login?check=1&to=/", says: "did not keep the login" },
  { name: "logged-out", target: "/login?out", says: "You are logged out." },
  { name: "refused-target", target: "/login?to=https://wiki.example/", says: "does not lead back" },
  { name: "long-name", target: "/login", username: "a-very-long-username-".repeat(12), password: "wrong", says: "Incorrect" },
];

for (const { name, target, username, password, times = 1, args = [], disable, then, says } of states) {
  test(`what it looks like: ${name}`, async (t) => {
    const s = await service(t, ...args);
    const page = await visit(t);
    await page.goto(s.origin + target);
    for (let i = 0; username && i < times; i++) {
      if ((await logIn(page, username, password)).status() === 429) break;
    }
    if (disable) await s.disable();
    if (then) {
      await page.waitForURL((url) => url.pathname !== "/login");
      await page.goto(s.origin + then);
    }
    await page.getByRole("main").filter({ hasText: says }).waitFor();
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      for (const width of [1280, 640, 390, 320]) { // 640 is 1280 at 200 %
        await page.setViewportSize({ width, height: width > 600 ? 800 : 844 });
        assert.ok(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), `it is wider than ${width} pixels`);
        if (shots && (width === 1280 || width === 390)) await page.screenshot({ path: `${shots}/${name}-${width}-${colorScheme}.png` });
      }
      await page.evaluate(axe);
      const { violations, incomplete } = await page.evaluate("axe.run({ resultTypes: ['violations', 'incomplete'] })");
      assert.deepEqual(violations.map(({ id, help, nodes }) => [id, help, nodes.map(({ html }) => html)]), []);
      assert.deepEqual(incomplete.map(({ id }) => id), []);
    }
    assert.deepEqual([...page.hosts], [new URL(s.origin).host]);
    assert.deepEqual(page.problems.filter((text) => !/status of 4\d\d|favicon/.test(text)), []); // of the 404 before
  });
}

test("by keyboard alone", async (t) => {
  const s = await service(t);
  const page = await visit(t);
  await page.goto(`${s.origin}/login?to=/healthz`);
  await page.locator("#username:focus").waitFor();
  await page.keyboard.type("jane");
  await page.keyboard.press("Tab");
  await page.keyboard.type("wrong");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate("document.activeElement.textContent"), "Log in");
  await page.keyboard.press("Enter");
  await page.locator("#password:focus").waitFor();
  assert.equal(await page.title(), "Error – Log in");
  assert.equal(await page.locator("#password").evaluate((field) => document.getElementById(field.getAttribute("aria-describedby")).textContent),
    "Incorrect username or password");
  await page.keyboard.type("secret");
  await page.keyboard.press("Enter");
  await page.getByText('{"status":"ok"}').waitFor();
  await page.goto(`${s.origin}/login`);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate("document.activeElement.textContent"), "Continue");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.getByText("You are logged out.").waitFor();
  // Nothing of it is left behind Back.
  await page.goBack();
  await page.goto(`${s.origin}/login`);
  await page.getByLabel("Password").waitFor();
});
