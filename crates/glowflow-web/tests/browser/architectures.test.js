// Models of other architectures than Glow.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { GLOWFLOW, done, open, page, serve, settled, stop, withServer } from "./support.js";

withServer();

for (const [name, settings, words] of [
  ["realnvp", ["model.levels=2", "model.blocks=1", "model.hidden=8"], /^RealNVP, levels 2, blocks 1, hidden 8$/],
  ["nice", ["model.hidden=32"], /^NICE, couplings \d+, layers \d+, hidden 32, prior \w+$/],
]) {
  test(`the page describes a ${name} model`, async () => {
    const run = await mkdtemp(join(tmpdir(), "glowflow-"));
    let server, at;
    try {
      const all = [`model.architecture=${name}`, "model.image=[16,16,3]", ...settings, "train.batch=8"];
      await promisify(execFile)(GLOWFLOW, ["train", "--data", "portraits", ...all.flatMap((set) => ["--set", set]),
        "--steps", "5", "--out", join(run, "run")]);
      [server, at] = await serve(join(run, "run"));
      await open({ at });
      await settled();
      assert.equal(await page.locator("#class-choice").isVisible(), false);
      await page.click("#tab-about");
      const fact = (term) => page.locator(`#facts dt:text-is("${term}") + dd`).innerText();
      assert.match(await fact("Architecture"), words);
      assert.equal(await fact("Classes"), "none");
      await done();
    } finally {
      if (server) await stop(server);
      await rm(run, { recursive: true });
    }
  });
}
