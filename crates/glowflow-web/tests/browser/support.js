// Shared test support: servers, a browser, and user actions on the page.
//
// GLOWFLOW is the program, RUN a run of 64×64 portraits with directions, PHOTO and OTHER are pictures, and
// SCREENSHOTS is a folder for screenshots. CHROMIUM is the browser.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { after, before } from "node:test";
import { isDeepStrictEqual } from "node:util";

import { chromium } from "playwright-core";

export const { GLOWFLOW, RUN, PHOTO, OTHER, SCREENSHOTS, CHROMIUM = "/usr/bin/chromium" } = process.env;

export const EYES = "0.4,0.5,0.6,0.5";

/** The current test's page, with its errors. */
export let page;
export let browser;
let address;
let complaints;

/** Starts a server with a model; resolves to its process and the URL that it prints. */
export async function serve(model, ...options) {
  const server = spawn(GLOWFLOW, ["serve", "--model", model, "--port", "0", ...options],
    { stdio: ["ignore", "pipe", "inherit"] });
  const printed = await new Promise((resolve, reject) => {
    server.stdout.on("data", (text) => resolve(/http:\/\/\S+/.exec(String(text))?.[0]));
    server.on("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
  return [server, printed];
}

/** Stops a server and expects a graceful shutdown. */
export async function stop(server) {
  const status = new Promise((resolve) => server.on("exit", resolve));
  server.kill("SIGTERM");
  assert.equal(await status, 0);
}

/** Runs the tests of a file with a browser and a server; `model` returns its model when the tests start. */
export function withServer({ model = async () => RUN, options = ["--eyes", EYES] } = {}) {
  let server;
  before(async () => {
    const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream"];
    browser = await chromium.launch({ executablePath: CHROMIUM, args });
    [server, address] = await serve(await model(browser), ...options);
  });
  after(async () => {
    await browser?.close();
    if (server) await stop(server);
  });
}

/** Opens a page in a browser with empty storage. `prepare` runs before it loads. */
export async function open({ at = address, prepare = async () => {}, ...options } = {}) {
  await page?.context().close();
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  page = await context.newPage();
  complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== new URL(at).origin && protocol !== "blob:") complaints.push(`loads ${request.url()}`);
  });
  await prepare();
  await page.goto(at);
  await ready();
}

/** Waits until the page shows its first image. */
export const ready = () => page.locator("#changed[src]").waitFor();

/** Waits until all examples are shown; after that only actions send requests. */
export const settled = () => page.waitForFunction(() =>
  document.querySelectorAll(".examples button:disabled").length === 0);

/** Ends a test: the browser must not have reported errors. */
export async function done() {
  assert.deepEqual(complaints, []);
  await page.context().close();
  page = undefined;
}

/** Takes a screenshot, if requested. */
export async function screenshot(name, options = { fullPage: true }) {
  if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, ...options });
}

/** A promise and the function that resolves it. */
export function deferred() {
  let resolve;
  return [new Promise((given) => { resolve = given; }), resolve];
}

/** Replaces parts of the JSON answers for a path. */
export const amend = (path, change) => page.route(path, async (route) => {
  const response = await route.fetch();
  const json = await response.json();
  await route.fulfill({ response, json: { ...json, ...change(json) } });
});

/** The pixels that an image element shows. */
export const pixels = (selector) => page.locator(selector).evaluate(async (image) => {
  // Decoding fails if another picture arrives in the meantime, which then counts.
  for (let src; src !== image.src;) {
    ({ src } = image);
    await image.decode().catch((error) => {
      if (src === image.src) throw error;
    });
  }
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
});

/** Waits until an image element shows these pixels: an earlier requested picture may arrive first. */
export async function shows(selector, wanted) {
  const until = performance.now() + 10_000;
  while (!isDeepStrictEqual(await pixels(selector), wanted) && performance.now() < until)
    await page.waitForTimeout(50);
  assert.deepEqual(await pixels(selector), wanted);
}

export const difference = (a, b) => a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0) / a.length;

/** Drags a slider. Resolves to the time until the picture has followed. */
export const move = (slider, value, picture) => page.evaluate(([slider, value, picture]) => {
  const input = document.querySelector(slider);
  const image = document.querySelector(picture);
  input.value = value;
  const start = performance.now();
  const shown = new Promise((resolve) =>
    image.addEventListener("load", () => resolve(performance.now() - start), { once: true }));
  input.dispatchEvent(new Event("input", { bubbles: true }));
  input.dispatchEvent(new Event("change", { bubbles: true }));
  return shown;
}, [slider, value, picture]);

/** Performs an action that changes the picture of an image element, and waits for the new picture. */
export async function changing(selector, action) {
  const before = await page.locator(selector).evaluate((image) => image.src);
  await action();
  await page.waitForFunction(([selector, before]) => {
    const { src, complete } = document.querySelector(selector);
    return src !== before && src !== "" && complete;
  }, [selector, before]);
}

/** Confirms the dialog in which a photograph is aligned. */
export async function confirm(dialog = "align") {
  await page.locator(`#${dialog}`).waitFor();
  await page.click(`#${dialog}-use:not(:disabled)`);
  await page.locator(`#${dialog}`).waitFor({ state: "hidden" });
}

export async function upload(input, file) {
  await page.setInputFiles(input, file);
  await confirm();
}

export const uploadToManipulate = () => changing("#changed", () => upload("#manipulate-source-file", PHOTO));

/** Chooses an item of a download menu. Resolves to the file's name and bytes. */
export async function download(place, menu, item) {
  await page.locator(`${place} summary`, { hasText: menu }).click();
  const [file] = await Promise.all([
    page.waitForEvent("download"), page.locator(`${place} .menu[open] button`, { hasText: item }).click(),
  ]);
  return { name: file.suggestedFilename(), bytes: await readFile(await file.path()) };
}

/** Downloads all videos that a menu offers; there must be at least one. */
export async function videos(place, menu) {
  const names = await page.locator(`${place} details`, { hasText: menu })
    .locator("button", { hasText: "Video" }).evaluateAll((all) =>
      all.map(({ textContent }) => textContent));
  assert.ok(names.length > 0, "the browser records no video");
  const files = [];
  for (const name of names) files.push(await download(place, menu, name));
  return files;
}

/** Width and height of a PNG. */
export function pngSize(bytes) {
  assert.equal(bytes.subarray(1, 4).toString(), "PNG");
  return [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
}

/** The kind of animation or video of a file. */
export function kind(bytes) {
  if (bytes.subarray(0, 6).toString() === "GIF89a") return "gif";
  if (bytes.subarray(1, 4).toString() === "PNG" && bytes.includes("acTL")) return "apng";
  if (bytes.subarray(0, 4).toString("hex") === "1a45dfa3") return "webm";
  if (bytes.subarray(4, 8).toString() === "ftyp") return "mp4";
  return "unknown";
}

/** A picture drawn by the test: a coloured disc on a background. Resolves to the file's bytes. */
export async function drawn({ width = 300, height = 200, colour = "orange", type = "image/png" } = {}) {
  const numbers = await page.evaluate(async ([width, height, colour, type]) => {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    context.fillStyle = "slateblue";
    context.fillRect(0, 0, width, height);
    context.fillStyle = colour;
    context.beginPath();
    context.arc(width / 3, height / 2, Math.min(width, height) / 4, 0, 7);
    context.fill();
    return Array.from(new Uint8Array(await (await canvas.convertToBlob({ type })).arrayBuffer()));
  }, [width, height, colour, type]);
  return Buffer.from(numbers);
}

/** A file for `setInputFiles`. */
export const fileOf = (buffer, name = "drawn.png", mimeType = "image/png") => ({ name, mimeType, buffer });

/** Drops files on the page, or pastes them. */
export async function give(how, files) {
  const transfer = await page.evaluateHandle((files) => {
    const transfer = new DataTransfer();
    for (const { name, type, bytes } of files)
      transfer.items.add(new File([Uint8Array.from(bytes)], name, { type }));
    return transfer;
  }, files.map(({ name, mimeType, buffer }) => ({ name, type: mimeType, bytes: [...buffer] })));
  if (how === "paste") {
    await transfer.evaluate((clipboardData) =>
      document.body.dispatchEvent(
        new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true })));
    return;
  }
  await page.dispatchEvent("main", "dragenter", { dataTransfer: transfer });
  await page.dispatchEvent("main", "dragover", { dataTransfer: transfer });
  assert.ok(await page.locator("#drop").isVisible(), "the page shows where a file can be dropped");
  await page.dispatchEvent("main", "drop", { dataTransfer: transfer });
  assert.ok(await page.locator("#drop").isHidden());
}
