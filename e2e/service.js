// The built program, for the tests of JavaScript.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

// trouble is a line of the service's log that no test expects: an error, or the
// beginning of a stack trace, also within a line.
const trouble = /level=ERROR|"level":"ERROR"|^panic: |^fatal error: |goroutine \d+ \[/;
const listening = /msg=listening addr=(\S+)|"msg":"listening","addr":"([^"]+)"/;

// run runs the program until t.after calls its functions, and returns its origin
// and the lines of its log, which grow. In the end the log must tell of no trouble.
export async function run(t, ...args) {
  const service = spawn("build/simple-oauth2", ["-addr", "127.0.0.1:0", ...args]);
  const log = [];
  const reader = createInterface(service.stderr);
  const ended = once(reader, "close");
  t.after(async () => {
    service.kill();
    await ended;
    assert.deepEqual(log.filter((line) => trouble.test(line)), [], "the service's log");
  });
  return new Promise((listens, fails) => {
    reader.on("line", (line) => {
      log.push(line);
      const found = line.match(listening);
      if (found) listens({ origin: `http://${found[1] ?? found[2]}`, log });
    });
    ended.then(() => fails(new Error(`the program does not listen:\n${log.join("\n")}`)));
  });
}
