// The tab for scoring a photograph.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import {
  PHOTO, amend, changing, confirm, done, drawn, fileOf, give, open, page, pixels, screenshot, settled, upload,
  withServer,
} from "./support.js";

withServer();
beforeEach(async () => {
  await open();
  await settled();
  await page.click("#tab-score");
});

test("a photograph is scored and compared with the test images", async () => {
  let answer;
  await amend("**/api/v1/encode*", (encoded) => {
    answer = encoded;
    return {};
  });
  await changing("#score-original", () => upload("#score-source-file", PHOTO));
  await page.locator("#score-result").waitFor();
  const facts = await page.locator("#score-facts").innerText();
  assert.ok(
    facts.includes(`${answer.bits_per_dim.toFixed(3)} ± ${answer.standard_error.toFixed(3)} bits/dim`),
    facts);
  assert.match(facts, /Test images\s+\d+\.\d{3} bits\/dim on average/);
  assert.match(facts, /is reconstructed exactly/);
  const how = await page.locator("#score-how").innerText();
  assert.match(how, /upper bound, with uniform dequantisation: the mean of 8 draws ± its standard error/);
  assert.match(how, /(more|less) than the test images/);
  assert.deepEqual(await pixels("#score-reconstruction"), await pixels("#score-original"));
  assert.equal(await page.locator("#score-gain").innerText(), "Difference: none");
  assert.ok(
    (await pixels("#score-difference")).every((x, i) => x === (i % 4 === 3 ? 255 : 0)),
    "no difference is black");
  await screenshot("score");
  await done();
});

test("pixels that differ are counted", async () => {
  await amend("**/api/v1/encode*", () => ({ exact: false, differing_pixels: 7 }));
  await changing("#score-original", () => upload("#score-source-file", PHOTO));
  await page.getByText("is not reconstructed exactly: 7 of 4096 pixels differ").first().waitFor();
  assert.match(await page.locator("#score-facts").innerText(), /7 of 4096 pixels differ/);
  await done();
});

test("a random picture and a dropped one are scored", async () => {
  await changing("#score-original", () =>
    page.getByRole("button", { name: "Random picture for scoring" }).click());
  const first = await page.locator("#score-facts").innerText();
  await changing("#score-original", async () => {
    await give("drop", [fileOf(await drawn())]);
    await confirm();
  });
  await page.waitForFunction((first) => document.getElementById("score-facts").innerText !== first, first);
  await done();
});
