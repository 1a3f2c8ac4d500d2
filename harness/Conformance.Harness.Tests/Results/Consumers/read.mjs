// SPDX-License-Identifier: MIT
// node read.mjs FORMAT FILE: what a reader that is not ours makes of a result file, as JSON; exit code 1 when it refuses the file.
import { readFileSync } from "node:fs";

const [format, file] = process.argv.slice(2);

const readers = {
  async ktap() {
    const { Parser } = await import("tap-parser");
    const leaves = { passed: 0, failed: 0, skipped: 0 };
    const complaints = [];
    const watch = (parser) => {
      let parent = false;
      parser.on("child", (child) => {
        parent = true;
        watch(child);
      });
      parser.on("assert", (result) => {
        if (!parent) leaves[result.skip ? "skipped" : result.ok ? "passed" : "failed"]++;
      });
      parser.on("complete", (end) => complaints.push(...end.failures.filter((f) => f.tapError).map((f) => f.tapError)));
    };
    const parser = new Parser();
    watch(parser);
    const whole = await new Promise((done) => {
      parser.on("complete", done);
      parser.end(readFileSync(file));
    });
    return { ok: whole.ok, ...leaves, complaints };
  },

  async ctrf() {
    const { validateStrict } = await import("ctrf");
    const report = JSON.parse(readFileSync(file, "utf8"));
    validateStrict(report);
    const { passed, failed, skipped, other, pending } = report.results.summary;
    return { ok: failed === 0, passed, failed, skipped, other, pending };
  },

  junit: () => parsed("junit"),
  trx: () => parsed("mstest"),
};

async function parsed(type) {
  const { parse } = (await import("test-results-parser")).default;
  const { status, total, passed, failed, errors, skipped } = parse({ type, files: [file] });
  return { ok: status === "PASS", total, passed, failed, errors, skipped };
}

try {
  console.log(JSON.stringify(await readers[format]()));
} catch (refusal) {
  console.log(JSON.stringify({ refused: String(refusal.message ?? refusal), why: refusal.errors ?? null }));
  process.exitCode = 1;
}
