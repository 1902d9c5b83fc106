// A model of two classes, small and grey.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { promisify } from "node:util";
import {
  GLOWFLOW, changing, confirm, deferred, difference, done, fileOf, drawn, open, page, pixels, screenshot,
  settled, withServer,
} from "./support.js";

let folder;

/** Trains on dark discs and light squares. */
async function twoClasses(browser) {
  folder = await mkdtemp(join(tmpdir(), "glowflow-"));
  const tab = await browser.newPage();
  const pictures = await tab.evaluate(async () => {
    const draw = async (i, square) => {
      const canvas = new OffscreenCanvas(16, 16);
      const context = canvas.getContext("2d");
      context.fillStyle = square ? "#222" : "#ddd";
      context.fillRect(0, 0, 16, 16);
      context.fillStyle = square ? "#ddd" : "#222";
      const at = 4 + (i % 4);
      if (square) context.fillRect(at, 4, 7, 7);
      else context.arc(at + 3, 8, 4, 0, 7);
      context.fill();
      return Array.from(new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer()));
    };
    const all = [];
    for (let i = 0; i < 24; i++) all.push([await draw(i, false), await draw(i, true)]);
    return all;
  });
  await tab.close();
  for (const [k, name] of ["disc", "square"].entries()) {
    await mkdir(join(folder, "images", name), { recursive: true });
    for (const [i, pair] of pictures.entries()) {
      await writeFile(join(folder, "images", name, `${i}.png`), Buffer.from(pair[k]));
    }
  }
  const run = join(folder, "run");
  const settings = ["model.image=[16,16,1]", "model.classes=2", "model.levels=2", "model.steps=4",
    "model.hidden=16", "train.batch=8", "train.lr=1e-2"];
  await promisify(execFile)(GLOWFLOW, ["train", "--data", join(folder, "images"),
    ...settings.flatMap((set) => ["--set", set]),
    "--steps", "300", "--out", run]);
  return run;
}

withServer({ model: twoClasses, options: [] });
after(() => folder && rm(folder, { recursive: true }));
beforeEach(() => open());

test("classes have names", async () => {
  assert.deepEqual(await page.locator("#class option").allInnerTexts(), ["disc", "square"]);
  await page.click("#tab-about");
  assert.match(await page.locator("#facts").innerText(), /disc, square/);
  await done();
});

test("what is shown follows the class", async () => {
  await settled();
  const example = "#manipulate-examples button:nth-child(2) img";
  const third = "#samples button:nth-child(3) img";
  await page.click("#tab-sample");
  await page.waitForFunction(() => document.querySelectorAll("#samples img[src]").length === 16);
  const before = [await pixels(example), await pixels(third), await pixels("#original")];
  await changing(example, () =>
    changing(third, () => changing("#original", () => page.selectOption("#class", "1"))));
  assert.ok(difference(await pixels(example), before[0]) > 0.5);
  assert.ok(difference(await pixels(third), before[1]) > 0.5);
  assert.ok(difference(await pixels("#original"), before[2]) > 0.5);
  // Undo also restores the class.
  await page.click("#tab-manipulate");
  await changing("#original", () => page.click("#undo"));
  assert.deepEqual(await pixels("#original"), before[2]);
  await done();
});

test("only the newest of quick changes of the class is shown, and undo chooses the class again", async () => {
  await settled();
  const first = await pixels("#original");
  await changing("#original", () => page.selectOption("#class", "1"));
  const second = await pixels("#original");
  await page.click("#undo");
  await page.waitForFunction(() => document.getElementById("class").value === "0");
  await settled();
  assert.deepEqual(await pixels("#original"), first);

  // The answer for the previous class arrives last.
  let late;
  await page.route("**/api/v1/sample", async (route) => {
    const { class: label } = route.request().postDataJSON();
    if (label === 1 && !late) {
      const response = await route.fetch();
      late = new Promise((resolve) => setTimeout(resolve, 1500)).then(() => route.fulfill({ response }));
      return;
    }
    await route.continue();
  });
  await page.selectOption("#class", "1");
  await page.selectOption("#class", "0");
  await page.waitForTimeout(300);
  await late;
  await page.waitForTimeout(500);
  assert.deepEqual(await pixels("#original"), first);
  assert.notDeepEqual(first, second);
  assert.equal(await page.locator("#class").inputValue(), "0");
  await done();
});

test("a photograph is encoded and scored again in another class", async () => {
  await page.click("#eyes-postpone");
  await page.click("#tab-score");
  const sent = [];
  page.on("request", (request) => /encode/.test(request.url()) && sent.push(new URL(request.url()).search));
  await changing("#score-original", async () => {
    await page.setInputFiles("#score-source-file", fileOf(await drawn()));
    await confirm("crop");
  });
  await page.locator("#score-facts dd").first().waitFor();
  const facts = await page.locator("#score-facts").innerText();
  await page.selectOption("#class", { label: "square" });
  await page.waitForFunction((facts) => document.getElementById("score-facts").innerText !== facts, facts);
  assert.deepEqual(sent, ["?class=0", "?class=1"]);
  await done();
});

test("each picture of a walk has its own class", async () => {
  await settled();
  await page.click("#tab-mix");
  await page.locator("#mix-examples button").nth(0).click();
  await page.waitForFunction(() => document.querySelectorAll("#mix-cards img[src]").length === 1);
  await changing("#strip", () => page.locator("#mix-examples button").nth(1).click());
  const before = await pixels("#mix-cards figure:nth-child(2) img");
  await changing("#strip", () => page.getByLabel("Class of picture 2").selectOption({ label: "square" }));
  assert.ok(difference(await pixels("#mix-cards figure:nth-child(2) img"), before) > 0.5);
  await screenshot("classes");
  await done();
});

test("only the newest of quick changes of a picture's class in a walk is shown", async () => {
  await settled();
  await page.click("#tab-mix");
  await page.locator("#mix-examples button").nth(0).click();
  await page.waitForFunction(() => document.querySelectorAll("#mix-cards img[src]").length === 1);
  const first = await pixels("#mix-cards img");
  // The answer for the class chosen first arrives last: that of its image, then that of its picture.
  const choice = page.getByLabel("Class of picture 1");
  for (const path of ["sample", "decode/*"]) {
    const [late, arrived] = deferred();
    let answers = 0;
    await page.route(`**/api/v1/${path}`, async (route) => {
      const isFirst = answers++ === 0;
      const response = await route.fetch();
      if (isFirst) await page.waitForTimeout(1500);
      await route.fulfill({ response });
      if (isFirst) arrived();
    });
    await Promise.all([
      page.waitForRequest(`**/api/v1/${path}`), choice.selectOption({ label: "square" }),
    ]);
    await choice.selectOption({ label: "disc" });
    await late;
    await page.waitForTimeout(500);
    assert.deepEqual(await pixels("#mix-cards img"), first, path);
    await page.unroute(`**/api/v1/${path}`);
  }
  await done();
});

test("the eyes are looked for on the mean picture of each class", async () => {
  await page.click("#eyes-open");
  const mean = () => page.locator("#mean").evaluate((canvas) => canvas.toDataURL());
  await page.waitForFunction(() => {
    const canvas = document.getElementById("mean");
    return canvas.getContext("2d").getImageData(5, 5, 1, 1).data[3] === 255;
  });
  const first = await mean();
  await page.selectOption("#eyes-class", { label: "square" });
  await page.waitForFunction((first) => document.getElementById("mean").toDataURL() !== first, first);
  await page.click("#eyes-later");
  await done();
});
