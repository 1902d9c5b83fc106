// The tab for a walk through several pictures.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import {
  OTHER, PHOTO, amend, changing, confirm, difference, done, download, drawn, fileOf, give, kind, move, open,
  page, pixels, pngSize, ready, screenshot, settled, shows, upload, videos, withServer,
} from "./support.js";

withServer();
beforeEach(async () => {
  await open();
  await page.click("#tab-mix");
});

const card = (i) => `#mix-cards figure:nth-child(${i}) img`;
const cards = (count) => page.waitForFunction(
  (count) => document.querySelectorAll("#mix-cards img[src]").length === count, count);

/** Adds two photographs and, optionally, an example. */
async function add(example = true) {
  await upload("#mix-source-file", PHOTO);
  await cards(1);
  await changing("#strip", () => upload("#mix-source-file", OTHER));
  await page.getByText(/reconstructed exactly/).waitFor();
  if (!example) return;
  await settled();
  await changing("#strip", () => page.locator("#mix-examples button").first().click());
  await cards(3);
}

test("files beyond the free places are skipped, and one that is not a picture stops no other", async () => {
  const other = [];
  for (const colour of ["red", "lime", "blue", "black", "white", "cyan"])
    other.push(fileOf(await drawn({ colour }), `${colour}.png`));
  const files = [other[0], fileOf(Buffer.from("none"), "notes.png"), ...other.slice(1)];
  await page.setInputFiles("#mix-source-file", files);
  for (let i = 1; i <= 5; i++) {
    await confirm();
    await cards(i);
  }
  await page.getByText(
    "notes.png is not a picture that this browser can display. 1 of 7 pictures were skipped").waitFor();
  assert.equal(await page.locator("dialog[open]").count(), 0);
  await settled();
  await page.locator("#mix-examples button").first().click();
  await cards(6);
  await give("drop", [other[0]]);
  await page.getByText("There is no room for another picture").waitFor();
  await done();
});

test("a walk passes through all pictures, in an order that can be changed", async () => {
  await add();
  const [a, b, c] = [await pixels(card(1)), await pixels(card(2)), await pixels(card(3))];
  for (const [at, picture] of [[0, a], [1, b], [2, c]]) {
    await move("#walk", at, "#mixed");
    assert.deepEqual(await pixels("#mixed"), picture);
  }
  await move("#walk", 1.5, "#mixed");
  const between = await pixels("#mixed");
  assert.ok(difference(between, b) > 1 && difference(between, c) > 1);
  assert.equal(await page.locator("#walk-shown").innerText(), "50 % from 2 to 3");

  await changing("#strip", () => page.click("button[aria-label='Move picture 3 earlier']"));
  assert.deepEqual(await pixels(card(2)), c);
  assert.deepEqual(await pixels(card(3)), b);
  await changing("#strip", () => page.click("button[aria-label='Move picture 1 later']"));
  assert.deepEqual(await pixels(card(1)), c);

  await changing("#strip", () => page.check("#mix-closed"));
  await move("#walk", 3, "#mixed");
  assert.deepEqual(await pixels("#mixed"), c, "a closed walk returns to the first picture");
  await screenshot("mix");

  await changing("#strip", () => page.click("button[aria-label='Remove picture 1']"));
  assert.deepEqual(await pixels(card(1)), a);
  await page.click("button[aria-label='Remove picture 1']");
  assert.equal(await page.locator("#mix-result").isVisible(), false);
  await done();
});

test("up to six pictures are mixed", async () => {
  await settled();
  for (let i = 1; i <= 6; i++) {
    await page.locator("#mix-examples button").nth(i).click();
    await cards(i);
  }
  assert.equal(await page.locator("#mix-add").isVisible(), false);
  await page.waitForFunction(() => document.getElementById("strip").src !== "");
  await move("#walk", 5, "#mixed");
  await shows("#mixed", await pixels(card(6)));
  await page.click("button[aria-label='Remove picture 2']");
  assert.equal(await page.locator("#mix-add").isVisible(), true);
  await done();
});

test("picture, animations and video of the walk are downloaded", async () => {
  await add();
  const place = "#mix-downloads";
  const picture = await download(place, "Download picture", "sharp");
  assert.deepEqual(pngSize(picture.bytes), [512, 512]);
  assert.equal(picture.name, "glowflow-mix-512-sharp.png");
  for (const [item, extension] of [["GIF", "gif"], ["APNG", "apng"]]) {
    const { name, bytes } = await download(place, "Download walk", item);
    assert.deepEqual([name, kind(bytes)], [`glowflow-walk.${extension}`, extension]);
  }
  for (const { name, bytes } of await videos(place, "Download walk")) {
    assert.equal(name, `glowflow-walk.${kind(bytes)}`);
    assert.ok(["webm", "mp4"].includes(kind(bytes)));
  }
  await done();
});

test("several files are added at once", async () => {
  await page.setInputFiles("#mix-source-file", [PHOTO, OTHER]);
  await confirm();
  await cards(1);
  await confirm();
  await cards(2);
  await done();
});

test("the page requests at most the images that the model allows", async () => {
  await settled();
  await amend("**/api/v1/info", () => ({ images: 3 }));
  const counts = [];
  page.on("request", (request) => {
    if (request.url().endsWith("/sample")) counts.push(request.postDataJSON().count);
    if (request.url().endsWith("/manipulate")) counts.push(request.postDataJSON().frames ?? 1);
    if (request.url().endsWith("/walk")) {
      const { ids, frames, closed } = request.postDataJSON();
      counts.push(closed ? frames * ids.length : frames * (ids.length - 1) + 1);
    }
  });
  await page.reload();
  await ready();
  await settled();
  await move("[data-attribute=Smiling]", 0.5, "#changed");
  await download("#manipulate-downloads", "Animate", "GIF");
  await page.click("#tab-sample");
  await page.waitForFunction(() => document.querySelectorAll("#samples img[src]").length === 3);
  await page.click("#tab-mix");
  await add();
  await download("#mix-downloads", "Download walk", "GIF");
  assert.ok(counts.length > 5 && Math.max(...counts) === 3, `${counts}`);
  await done();
});
