// The first tab: sliders, undo, before and after, downloads.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import {
  PHOTO, amend, changing, deferred, difference, done, download, kind, move, open, page, pixels, pngSize,
  ready, screenshot, settled, shows, upload, uploadToManipulate, videos, withServer,
} from "./support.js";

const SMILING = "[data-attribute=Smiling]";
const BLOND = "[data-attribute=Blond_Hair]";

withServer();
beforeEach(() => open());

const value = (slider) => page.locator(slider).evaluate((input) => Number(input.value));

test("a slider changes an uploaded picture, and reset, undo and redo work", async () => {
  const first = await pixels("#original");
  await uploadToManipulate();
  const original = await pixels("#original");
  assert.deepEqual(await pixels("#changed"), original);
  await page.getByText("The picture is reconstructed exactly.").waitFor();

  await move(BLOND, 0.9, "#changed");
  const blond = await pixels("#changed");
  assert.ok(difference(blond, original) > 1, "the picture follows the slider");
  await move(SMILING, -0.8, "#changed");
  const both = await pixels("#changed");

  await page.click("#undo");
  await shows("#changed", blond);
  assert.deepEqual([await value(BLOND), await value(SMILING)], [0.9, 0]);
  await page.keyboard.press("Control+z");
  await shows("#changed", original);
  await page.keyboard.press("Control+Shift+Z");
  await shows("#changed", blond);
  await page.click("#redo");
  assert.equal(await page.locator("#redo").isDisabled(), true);
  await shows("#changed", both);

  await page.click("#reset");
  await shows("#changed", original);
  assert.equal(await page.locator("#reset").isDisabled(), true);
  await page.click("#undo");
  await shows("#changed", both);
  // Back to the state before the upload.
  for (let i = 0; i < 3; i++) await page.click("#undo");
  await shows("#original", first);
  assert.equal(await page.locator("#undo").isDisabled(), true);
  await done();
});

test("the picture follows a slider within 100 ms", async () => {
  await uploadToManipulate();
  await settled();
  const times = [];
  for (let i = 0; i < 40; i++) times.push(await move(SMILING, (2 * Math.sin(i)).toFixed(2), "#changed"));
  times.sort((a, b) => a - b);
  const [median, late] = [times[20], times[37]];
  console.log(`slider to picture: median ${median.toFixed(1)} ms, 95th percentile ${late.toFixed(1)} ms`);
  assert.ok(late < 100, `95th percentile ${late} ms`);
  await done();
});

test("sliders reach beyond 1, snap to 0 and return there", async () => {
  await settled();
  const sent = [];
  page.on("request", (request) =>
    request.url().endsWith("/manipulate") && sent.push(request.postDataJSON().amounts));
  const slider = page.locator(SMILING);
  await changing("#changed", () => slider.press("End"));
  assert.equal(await value(SMILING), 2);
  assert.equal(sent.at(-1).Smiling, 2);
  await changing("#changed", () => slider.press("0"));
  assert.equal(await value(SMILING), 0);
  await changing("#changed", () => slider.press("Home"));
  assert.equal(await value(SMILING), -2);
  await slider.dblclick({ position: { x: 5, y: 20 } });
  assert.equal(await value(SMILING), 0);

  // A pointer near the middle snaps to it; keys reach every value.
  const box = await slider.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.7, box.y + box.height / 2, { steps: 3 });
  assert.ok(await value(SMILING) > 0.5);
  await page.mouse.move(box.x + box.width * 0.505, box.y + box.height / 2, { steps: 3 });
  await page.mouse.up();
  assert.equal(await value(SMILING), 0);
  await slider.press("ArrowRight");
  assert.equal(await value(SMILING), 0.01);
  assert.ok(box.height >= 44, `a slider is ${box.height} high`);
  await done();
});

test("sliders are filled from their zero", async () => {
  const filled = (slider) => page.locator(slider).evaluate((input) =>
    ["--from", "--to"].map((name) => Number(input.style.getPropertyValue(name))));
  assert.deepEqual(await filled(SMILING), [0.5, 0.5]);
  await move(SMILING, -1, "#changed");
  assert.deepEqual(await filled(SMILING), [0.25, 0.5]);
  await move(SMILING, 2, "#changed");
  assert.deepEqual(await filled(SMILING), [0.5, 1]);
  await page.click("#reset");
  assert.deepEqual(await filled(SMILING), [0.5, 0.5]);
  await page.click("#tab-sample");
  assert.deepEqual(await filled("#temperature"), [0, 0.7]);
  await done();
});

test("the original can be seen while a button is held, and left of a divider", async () => {
  await move(BLOND, 1.5, "#changed");
  const caption = page.locator("#changed-caption");
  const shown = () => page.locator("#before").evaluate((image) => {
    const { visibility, clipPath } = getComputedStyle(image);
    return visibility === "visible" ? clipPath : "hidden";
  });
  assert.deepEqual(await pixels("#before"), await pixels("#original"));
  assert.equal(await shown(), "hidden");
  await page.locator("#compare").hover();
  await page.mouse.down();
  assert.equal(await shown(), "none");
  assert.equal(await caption.innerText(), "Original");
  await page.mouse.up();
  assert.equal(await shown(), "hidden");
  await page.locator("#compare").focus();
  await page.keyboard.down("Space");
  assert.equal(await shown(), "none");
  await page.keyboard.up("Space");
  assert.equal(await shown(), "hidden");

  await page.check("#split");
  assert.equal(await shown(), "inset(0px 50% 0px 0px)");
  await page.locator("#divider").press("Home");
  assert.equal(await shown(), "inset(0px 100% 0px 0px)");
  await page.locator("#divider").press("PageUp");
  await screenshot("split");
  await page.uncheck("#split");
  assert.equal(await shown(), "hidden");
  await done();
});

test("the picture is downloaded in its own size and enlarged, sharp or smooth", async () => {
  const get = (item) => download("#manipulate-downloads", "Download", item);
  const plain = await get("Original size");
  assert.equal(plain.name, "glowflow.png");
  assert.deepEqual(pngSize(plain.bytes), [64, 64]);
  await move(SMILING, 0.9, "#changed");
  await move(BLOND, -0.5, "#changed");
  const small = await get("Original size");
  assert.equal(small.name, "glowflow-smiling-less-blond-hair.png");
  assert.notDeepEqual(small.bytes, plain.bytes);
  const sharp = await get("sharp");
  assert.equal(sharp.name, "glowflow-smiling-less-blond-hair-512-sharp.png");
  assert.deepEqual(pngSize(sharp.bytes), [512, 512]);
  const smooth = await get("smooth");
  assert.deepEqual(pngSize(smooth.bytes), [512, 512]);

  // Sharp pixels are blocks of 8; smooth ones are not.
  const blocks = (bytes) => page.evaluate(async (bytes) => {
    const bitmap = await createImageBitmap(new Blob([Uint8Array.from(bytes)]));
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const at = (x, y) => data.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 3).join();
    let equal = true;
    for (let y = 0; y < 512; y++) for (let x = 0; x < 512; x++) equal &&= at(x, y) === at(x & ~7, y & ~7);
    return equal;
  }, [...bytes]);
  assert.equal(await blocks(sharp.bytes), true);
  assert.equal(await blocks(smooth.bytes), false);
  await done();
});

test("the sweep of an attribute is downloaded as GIF, APNG and video", async () => {
  const place = "#manipulate-downloads";
  assert.equal(
    await page.locator(`${place} summary`, { hasText: "Animate" }).getAttribute("aria-disabled"), "true");
  await move(SMILING, 0.5, "#changed");
  const gif = await download(place, "Animate", "GIF");
  assert.deepEqual([gif.name, kind(gif.bytes)], ["glowflow-smiling-sweep.gif", "gif"]);
  const apng = await download(place, "Animate", "APNG");
  assert.deepEqual([apng.name, kind(apng.bytes)], ["glowflow-smiling-sweep.apng", "apng"]);
  await done();
});

test("a video has the size and the pictures of the animation", async () => {
  await move(SMILING, 0.5, "#changed");
  const files = await videos("#manipulate-downloads", "Animate");
  for (const { name, bytes } of files) assert.equal(name, `glowflow-smiling-sweep.${kind(bytes)}`);
  const { bytes } = files.at(-1);
  const [width, height, distance] = await page.evaluate(async (bytes) => {
    const video = document.createElement("video");
    video.muted = true;
    video.src = URL.createObjectURL(new Blob([Uint8Array.from(bytes)]));
    const at = async (time) => {
      const sought = new Promise((resolve) => video.addEventListener("seeked", resolve, { once: true }));
      video.currentTime = time;
      await sought;
      const context = new OffscreenCanvas(32, 32).getContext("2d");
      context.drawImage(video, 0, 0, 32, 32);
      return context.getImageData(0, 0, 32, 32).data;
    };
    await new Promise((resolve) => video.addEventListener("loadeddata", resolve, { once: true }));
    const [a, b] = [await at(0.1), await at(1.7)];
    return [
      video.videoWidth, video.videoHeight, a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0) / a.length];
  }, [...bytes]);
  assert.deepEqual([width, height], [512, 512]);
  assert.ok(distance > 0.5, `the film stands still: ${distance}`);
  await done();
});

test("examples are the same at every visit and can be chosen", async () => {
  await settled();
  const examples = page.locator("#manipulate-examples button");
  assert.equal(await examples.count(), 8);
  const shown = async () => {
    const all = [];
    for (let i = 1; i <= 8; i++) all.push(await pixels(`#manipulate-examples button:nth-child(${i}) img`));
    return all;
  };
  const before = await shown();
  assert.equal(new Set(before.map(String)).size, 8);
  const opening = await pixels("#original");
  await changing("#original", () => examples.nth(5).click());
  assert.deepEqual(await pixels("#original"), before[5]);
  await screenshot("manipulate");
  await page.reload();
  await ready();
  await settled();
  assert.deepEqual(await shown(), before);
  assert.deepEqual(await pixels("#original"), opening);
  await done();
});

test("the first picture is the likeliest of those whose score is finite", async () => {
  let ids;
  await page.route("**/api/v1/sample", async (route) => {
    const response = await route.fetch();
    const samples = await response.json();
    if (!samples.bits_per_dim || ids) return route.fulfill({ response });
    ids = samples.ids;
    const scores = ids.map((_, i) => (i === 0 || i > 3 ? null : 4 - (i === 2)));
    return route.fulfill({ response, json: { ...samples, bits_per_dim: scores } });
  });
  const decoded = [];
  page.on("request", (request) =>
    /decode/.test(request.url()) && decoded.push(request.url().split("/").pop()));
  await page.reload();
  await ready();
  // The page before the reload may have requested others.
  assert.equal(decoded.find((id) => ids.includes(id)), ids[2]);
  await done();
});

test("weak directions come last, with the reason", async () => {
  const why = "computed from 12 images with it";
  await amend("**/api/v1/info", ({ attributes }) => ({
    attributes: attributes.map((attribute) =>
      ({ ...attribute, weak: attribute.name === "Smiling" ? why : null })),
  }));
  await page.reload();
  await ready();
  assert.equal(await page.locator("#sliders > .slider").count(), 5);
  const slider = page.locator(`details ${SMILING}`);
  assert.equal(await slider.isVisible(), false);
  await page.getByText("Less reliable attributes").click();
  assert.equal(await slider.isVisible(), true);
  const described = await slider.getAttribute("aria-describedby");
  assert.match(await page.locator(`#${described}`).innerText(), new RegExp(why));
  await page.click("#tab-about");
  assert.match(await page.locator("#attributes").innerText(), new RegExp(why));
  await done();
});

/** Marks all pictures of a URL path as not finite. */
const notFinite = (path) => page.route(`**/api/v1/${path}`, async (route) => {
  const response = await route.fetch();
  await route.fulfill({ response, headers: { ...response.headers(), "glowflow-finite": "false" } });
});

test("the warning of numbers that are not finite stays until the next action", async () => {
  await settled();
  await notFinite("manipulate");
  await move(SMILING, 0.9, "#changed");
  await page.getByText("not finite").waitFor();
  await page.unroute("**/api/v1/manipulate");

  await notFinite("decode/*");
  const random = page.getByRole("button", { name: "Random picture for changing" });
  await changing("#changed", () => random.click());
  await page.waitForTimeout(200);
  assert.match(await page.locator("#message").innerText(), /not finite/);
  await uploadToManipulate();
  await page.getByText(/The picture is reconstructed exactly\. .* not finite/).waitFor();
  await page.unroute("**/api/v1/decode/*");
  await changing("#changed", () => random.click());
  await page.waitForFunction(() => document.getElementById("message").textContent === "");
  await done();
});

test("an image that the server has forgotten is made again", async () => {
  await settled();
  let forgotten;
  const decoded = [];
  await page.route("**/api/v1/manipulate", (route) => {
    const { id } = route.request().postDataJSON();
    decoded.push(id);
    forgotten ??= id;
    if (id !== forgotten) return route.continue();
    return route.fulfill(
      { status: 404, contentType: "application/problem+json", body: JSON.stringify({ detail: "gone" }) });
  });
  const original = await pixels("#original");
  await move(SMILING, 1, "#changed");
  assert.ok(difference(await pixels("#changed"), original) > 0.5);
  assert.equal(new Set(decoded).size, 2);
  await page.context().close();
});

test("a late answer for the previous picture does not replace the new one", async () => {
  await open();
  await settled();
  // The answer for a slider of the first picture arrives after the second picture.
  const [late, arrived] = deferred();
  await page.route("**/api/v1/manipulate", async (route) => {
    const response = await route.fetch();
    await page.waitForTimeout(1500);
    await route.fulfill({ response });
    arrived();
  });
  // Both within the time in which the picture is requested.
  await page.route("**/api/v1/decode/*", async (route) => {
    const response = await route.fetch();
    await page.waitForTimeout(300);
    await route.fulfill({ response });
  });
  await page.evaluate(() => {
    document.querySelector("#manipulate-examples button:nth-child(2)").click();
    const slider = document.querySelector("#sliders input[type=range]");
    slider.value = 2;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  });
  await late;
  await page.waitForTimeout(500);
  assert.deepEqual(await pixels("#changed"), await pixels("#original"));
  await done();
});

test("the page's first picture does not replace the user's", async () => {
  await open({ prepare: async () => {
    const [held, requested] = deferred();
    // The picture with which the page begins is known while the user's is being decoded.
    await page.route("**/api/v1/sample", async (route) => {
      const response = await route.fetch();
      if (route.request().postDataJSON().count > 1) await held;
      await route.fulfill({ response });
    });
    let first = true;
    await page.route("**/api/v1/decode/*", async (route) => {
      const response = await route.fetch();
      if (first) {
        first = false;
        requested();
        await page.waitForTimeout(1000);
      }
      await route.fulfill({ response });
    });
    page.once("domcontentloaded", () => upload("#manipulate-source-file", PHOTO));
  } });
  await settled();
  await page.waitForTimeout(1000);
  assert.equal(await page.locator("#undo").isDisabled(), true);
  const shown = await pixels("#original");
  await uploadToManipulate();
  assert.deepEqual(await pixels("#original"), shown);
  await done();
});
