// The tab for sampling images.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import {
  changing, deferred, done, download, move, open, page, pixels, pngSize, screenshot, settled, withServer,
} from "./support.js";

const THIRD = "#samples button:nth-child(3) img";

withServer();
beforeEach(async () => {
  await open();
  await settled();
  await page.click("#tab-sample");
  await samples(16);
});

const samples = (count) => page.waitForFunction((count) => {
  const buttons = [...document.querySelectorAll("#samples button")];
  return buttons.length === count && buttons.every(({ firstChild }) => firstChild.src && firstChild.complete);
}, count);

test("samples follow the temperature, and one can be changed", async () => {
  const first = await pixels(THIRD);
  await move("#temperature", 0.3, THIRD);
  const cooler = await pixels(THIRD);
  assert.notDeepEqual(cooler, first);
  await screenshot("sample");
  await changing("#original", () => page.click("#samples button:nth-child(3)"));
  assert.deepEqual(await pixels("#original"), cooler);
  await done();
});

test("count and seed are chosen, and equal seeds draw equal pictures", async () => {
  await page.fill("#count", "5");
  await samples(5);
  await changing(THIRD, () => page.fill("#seed", "123"));
  const first = await pixels(THIRD);
  await changing(THIRD, () => page.click("#draw"));
  assert.notEqual(await page.inputValue("#seed"), "123");
  assert.notDeepEqual(await pixels(THIRD), first);
  await changing(THIRD, () => page.fill("#seed", "123"));
  assert.deepEqual(await pixels(THIRD), first);

  await page.fill("#count", "1000");
  await page.locator("#count").blur();
  assert.equal(await page.inputValue("#count"), await page.locator("#count").getAttribute("max"));
  await page.fill("#count", "1");
  await samples(1);
  await done();
});

test("all samples are downloaded as one picture", async () => {
  await page.fill("#count", "5");
  await samples(5);
  await changing(THIRD, () => page.fill("#seed", "7"));
  const { name, bytes } = await download("#sample-downloads", "Download all", "Original size");
  assert.equal(name, "glowflow-samples-seed-7.png");
  assert.deepEqual(pngSize(bytes), [3 * 64, 2 * 64]);
  await done();
});

test("a downloaded picture is named after its seed, not the one that is being drawn", async () => {
  await changing(THIRD, () => page.fill("#seed", "7"));
  const [held, answer] = deferred();
  await page.route("**/api/v1/sample", async (route) => {
    await held;
    await route.continue();
  });
  await page.fill("#seed", "8");
  assert.equal((await download("#sample-downloads", "Download all", "Original size")).name,
    "glowflow-samples-seed-7.png");
  await changing(THIRD, answer);
  assert.equal((await download("#sample-downloads", "Download all", "Original size")).name,
    "glowflow-samples-seed-8.png");
  await done();
});

test("the tab may be opened before the page knows its model", async () => {
  await open({ prepare: async () => {
    const [held, opened] = deferred();
    await page.route("**/api/v1/info", async (route) => {
      await held;
      await route.continue();
    });
    page.once("domcontentloaded", async () => {
      await page.click("#tab-sample");
      await page.click("#tab-manipulate");
      opened();
    });
  } });
  await samples(16);
  await done();
});
