// The manifest of examples/kubernetes: checked against Kubernetes' own schema,
// from the npm package kubernetes-models, and run as it says, without Kubernetes.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { parseAllDocuments } from "yaml";
import { run } from "./service.js";

const manifest = "../examples/kubernetes/simple-oauth2.yaml";
const objects = parseAllDocuments(readFileSync(manifest, "utf8")).map((document) => {
  assert.deepEqual(document.errors, []);
  return document.toJS();
});
const [secret, claim, deployment, service] = ["Secret", "PersistentVolumeClaim", "Deployment", "Service"].map((kind) =>
  objects.find((object) => object.kind === kind));

test("each object matches the schema", async () => {
  assert.equal(objects.length, 4);
  for (const object of objects) {
    const models = await import(`kubernetes-models/${object.apiVersion}`);
    new models[object.kind](object).validate();
  }
});

// The schema allows unknown fields; TypeScript does not.
test("no object has a field that the schema does not know", () => {
  const text = objects.map((object, i) =>
    `import type { I${object.kind} as Kind${i} } from "kubernetes-models/${object.apiVersion}";
export const object${i}: Kind${i} = ${JSON.stringify(object)};`).join("\n");
  mkdirSync("build", { recursive: true });
  writeFileSync("build/kubernetes.ts", text);
  execFileSync("node_modules/.bin/tsc", ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext",
    "build/kubernetes.ts"], { stdio: ["ignore", "inherit", "inherit"] });
});

test("the objects fit together", () => {
  const pod = deployment.spec.template;
  const [container] = pod.spec.containers;
  assert.deepEqual(pod.metadata.labels, deployment.spec.selector.matchLabels);
  assert.deepEqual(pod.metadata.labels, service.spec.selector);
  const volumes = Object.fromEntries(pod.spec.volumes.map((volume) => [volume.name, volume]));
  assert.equal(volumes.users.secret.secretName, secret.metadata.name);
  assert.equal(volumes.tokens.persistentVolumeClaim.claimName, claim.metadata.name);
  assert.deepEqual(container.volumeMounts.map((mount) => mount.name).sort(), Object.keys(volumes).sort());
  const ports = container.ports.map((port) => port.name);
  for (const port of [...service.spec.ports.map((port) => port.targetPort), container.livenessProbe.httpGet.port, container.readinessProbe.httpGet.port])
    assert.ok(ports.includes(port), port);
  assert.equal(container.securityContext.readOnlyRootFilesystem, true);
  assert.equal(pod.spec.securityContext.runAsNonRoot, true);
  const [, delay] = /^\| Kubernetes \| `(\d+)s` /m.exec(readFileSync("../guide/deployment.md", "utf8"));
  assert.ok(container.args.includes(`-shutdown-delay=${delay}s`), `guide/deployment.md says ${delay}s`);
});

test("the container runs as it says", async (t) => {
  const [container] = deployment.spec.template.spec.containers;
  const dir = mkdtempSync(`${tmpdir()}/kubernetes`);
  process.on("exit", () => rmSync(dir, { recursive: true })); // the service is gone by then
  for (const mount of container.volumeMounts) mkdirSync(dir + mount.mountPath);
  for (const [name, text] of Object.entries(secret.stringData)) writeFileSync(`${dir}/auth/${name}`, text);
  const args = container.args.map((arg) => arg.replace("=/", `=${dir}/`).replace(/=:\d+$/, "=127.0.0.1:0"));
  const { origin } = await run(t, ...args.filter((arg) => !arg.startsWith("-shutdown-delay")));
  for (const probe of [container.startupProbe, container.livenessProbe, container.readinessProbe])
    assert.equal((await fetch(origin + probe.httpGet.path)).status, 200);
  const login = await fetch(`${origin}/token`, { method: "POST", body: new URLSearchParams({ username: "jane", password: "correct horse" }) });
  assert.equal(login.status, 200);
});
