// The demo in a real browser, as a user meets it.
//
// GLOWFLOW is the program, RUN a run of 64×64 portraits with directions, PHOTO and OTHER are pictures, and SCREENSHOTS a
// folder to leave screenshots in; CHROMIUM is the browser.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { chromium } from "playwright-core";

const { GLOWFLOW, RUN, PHOTO, OTHER, SCREENSHOTS, CHROMIUM = "/usr/bin/chromium" } = process.env;

let server;
let address;
let browser;
let page;
let complaints;

/** Starts a server; resolves to its process and the address that it prints. */
async function serve(...options) {
  const process = spawn(GLOWFLOW, ["serve", "--model", RUN, "--port", "0", ...options], { stdio: ["ignore", "pipe", "inherit"] });
  const printed = await new Promise((resolve) =>
    process.stdout.on("data", (text) => resolve(/http:\/\/\S+/.exec(String(text))[0])));
  return [process, printed];
}

before(async () => {
  [server, address] = await serve();
  const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
  browser = await chromium.launch({ executablePath: CHROMIUM, args });
});

after(async () => {
  await browser?.close();
  // Ends by itself, in an orderly way.
  const status = new Promise((resolve) => server.on("exit", resolve));
  server.kill("SIGTERM");
  assert.equal(await status, 0);
});

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 800 }, ...options });
  page = await context.newPage();
  complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== address && protocol !== "blob:") complaints.push(`loads ${request.url()}`);
  });
  await page.goto(address);
  // It begins with an image of the model's own.
  await page.locator("#download[aria-disabled=false]").waitFor();
}

beforeEach(() => open());

/** The pixels that an image element shows. */
const pixels = (selector) => page.locator(selector).evaluate(async (image) => {
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
});

const difference = (a, b) => a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0) / a.length;

/** Moves a slider as a hand does, and waits until the picture has followed. */
const move = (slider, value, picture) => page.evaluate(([slider, value, picture]) => {
  const input = document.querySelector(slider);
  const image = document.querySelector(picture);
  input.value = value;
  const start = performance.now();
  const shown = new Promise((resolve) => image.addEventListener("load", () => resolve(performance.now() - start), { once: true }));
  input.dispatchEvent(new Event("input", { bubbles: true }));
  return shown;
}, [slider, value, picture]);

async function upload(input, file) {
  await page.setInputFiles(input, file);
  await page.locator("#align").waitFor();
  await page.click("#align-use");
  await page.locator("#align").waitFor({ state: "hidden" });
}

/** Does something that brings another picture to the first tab, and waits until it is there. */
async function toManipulate(action) {
  const before = await page.locator("#changed").evaluate((image) => image.src);
  await action();
  await page.waitForFunction((before) => document.getElementById("changed").src !== before, before);
}

const uploadToManipulate = () => toManipulate(() => upload("#manipulate-source-file", PHOTO));

const done = async (name) => {
  if (name && SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, fullPage: true });
  assert.deepEqual(complaints, []);
  await page.context().close();
};

test("a slider changes an uploaded picture, reset brings it back, and it can be downloaded", async () => {
  await uploadToManipulate();
  const original = await pixels("#original");
  assert.deepEqual(await pixels("#changed"), original);

  await move("[data-attribute=Blond_Hair]", 0.9, "#changed");
  const changed = await pixels("#changed");
  assert.ok(difference(changed, original) > 1, "the picture follows the slider");

  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  const file = await readFile(await download.path());
  assert.deepEqual([...file.subarray(1, 4)], [..."PNG"].map((c) => c.charCodeAt(0)));
  if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/manipulate.png`, fullPage: true });

  await page.click("#reset");
  await page.waitForFunction(() => document.querySelector("[data-attribute=Blond_Hair]").value === "0");
  await page.waitForTimeout(200);
  assert.deepEqual(await pixels("#changed"), original);
  await done();
});

test("the picture follows a slider within 100 ms", async () => {
  await uploadToManipulate();
  const times = [];
  for (let i = 0; i < 100; i++) times.push(await move("[data-attribute=Smiling]", Math.sin(i).toFixed(2), "#changed"));
  times.sort((a, b) => a - b);
  const [median, late] = [times[50], times[95]];
  console.log(`slider to picture: median ${median.toFixed(1)} ms, 95th percentile ${late.toFixed(1)} ms`);
  assert.ok(late < 100, `95th percentile ${late} ms`);
  await done();
});

test("dragging an eye turns the part that is used", async () => {
  await page.setInputFiles("#manipulate-source-file", PHOTO);
  await page.locator("#align").waitFor();
  const before = await page.locator("#aligned").evaluate((canvas) => canvas.toDataURL());
  const eye = await page.locator("#eye-left").boundingBox();
  await page.mouse.move(eye.x + eye.width / 2, eye.y + eye.height / 2);
  await page.mouse.down();
  await page.mouse.move(eye.x + eye.width / 2 + 15, eye.y + eye.height / 2 + 30, { steps: 5 });
  await page.mouse.up();
  const dragged = await page.locator("#aligned").evaluate((canvas) => canvas.toDataURL());
  assert.notEqual(dragged, before);
  await page.locator("#eye-right").press("ArrowUp");
  assert.notEqual(await page.locator("#aligned").evaluate((canvas) => canvas.toDataURL()), dragged);
  if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/align.png` });
  await toManipulate(() => page.click("#align-use"));
  await done();
});

test("two pictures are mixed, and the film is downloaded", async () => {
  await page.click("#tab-mix");
  await upload("#mix-a-source-file", PHOTO);
  await upload("#mix-b-source-file", OTHER);
  // Else the first picture, still on its way, would pass for the one that a slider asks for.
  await page.waitForFunction(() => ["mixed", "strip"].every((id) => document.getElementById(id).src !== ""));
  await page.getByText(/comes? back exactly/).waitFor();
  await move("#share", 0, "#mixed");
  assert.deepEqual(await pixels("#mixed"), await pixels("#mix-a"));
  await move("#share", 1, "#mixed");
  assert.deepEqual(await pixels("#mixed"), await pixels("#mix-b"));
  await move("#share", 0.5, "#mixed");
  const middle = await pixels("#mixed");
  assert.ok(difference(middle, await pixels("#mix-a")) > 1 && difference(middle, await pixels("#mix-b")) > 1);

  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#gif")]);
  const file = await readFile(await download.path());
  assert.equal(file.subarray(0, 6).toString(), "GIF89a");
  await done("mix");
});

test("a sample is drawn, chosen and changed", async () => {
  await page.click("#tab-sample");
  await page.waitForFunction(() => document.querySelectorAll("#samples img[src]").length === 16);
  const first = await pixels("#samples button:nth-child(3) img");
  await move("#temperature", 0.3, "#samples button:nth-child(3) img");
  const cooler = await pixels("#samples button:nth-child(3) img");
  assert.notDeepEqual(cooler, first);
  if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/sample.png`, fullPage: true });
  await toManipulate(() => page.click("#samples button:nth-child(3)"));
  assert.deepEqual(await pixels("#original"), cooler);
  await done();
});

test("the camera's picture can be used", async () => {
  await page.getByRole("button", { name: "Camera for changing" }).click();
  await page.click("#camera-take");
  await page.locator("#align").waitFor();
  await toManipulate(() => page.click("#align-use"));
  await done();
});

test("a file that is no picture is named and does no harm", async () => {
  await page.setInputFiles("#manipulate-source-file", { name: "notes.png", mimeType: "image/png", buffer: Buffer.from("none") });
  await page.getByText("notes.png is no picture").waitFor();
  await uploadToManipulate();
  await done();
});

test("all of it works by keyboard", async () => {
  await page.locator("#tab-manipulate").focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.evaluate(() => document.activeElement.id), "tab-sample");
  await page.waitForFunction(() => document.querySelectorAll("#samples img[src]").length === 16);
  await page.locator("#samples button").first().focus();
  await toManipulate(() => page.keyboard.press("Enter"));
  const original = await pixels("#original");
  await page.locator("[data-attribute=Blond_Hair]").focus();
  const followed = page.evaluate(() =>
    new Promise((resolve) => document.getElementById("changed").addEventListener("load", resolve, { once: true })).then(() => {}));
  await page.keyboard.press("End");
  await followed;
  await page.waitForTimeout(200);
  assert.ok(difference(await pixels("#changed"), original) > 1);
  await done();
});

test("the page asks for no more images than the model allows", async () => {
  await page.route("**/api/v1/info", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...(await response.json()), images: 2 } });
  });
  const counts = [];
  page.on("request", (request) => {
    if (request.url().endsWith("/sample")) counts.push(request.postDataJSON().count);
    if (request.url().endsWith("/mix")) counts.push(request.postDataJSON().at.length);
  });
  await page.reload();
  await page.locator("#download[aria-disabled=false]").waitFor();
  await page.click("#tab-sample");
  await page.waitForFunction(() => document.querySelectorAll("#samples img[src]").length === 2);
  await page.click("#tab-mix");
  await upload("#mix-a-source-file", PHOTO);
  await upload("#mix-b-source-file", OTHER);
  await page.waitForFunction(() => document.getElementById("strip").src !== "");
  await Promise.all([page.waitForEvent("download"), page.click("#gif")]);
  assert.ok(counts.length > 3 && Math.max(...counts) === 2, `${counts}`);
  await done();
});

test("every control has a name, and pictures a description", async () => {
  for (const tab of ["manipulate", "mix", "sample", "about"]) {
    await page.click(`#tab-${tab}`);
    const nameless = await page.locator("button, input, select, a, [role=tabpanel]").evaluateAll((all) => all
      .filter((e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim() || e.getAttribute("aria-labelledby")))
      .map((e) => e.outerHTML));
    assert.deepEqual(nameless, []);
  }
  assert.equal(await page.locator("img:not([alt])").count(), 0);
  const facts = await page.locator("#facts").innerText();
  for (const fact of ["64 × 64", "additive", "Bits per dimension", "Inverse error"]) assert.ok(facts.includes(fact), facts);
  assert.equal(await page.locator("#attributes tr").count(), 6);
  await done("about");
});

test("it opens on the same picture every time", async () => {
  const first = await pixels("#original");
  await page.reload();
  await page.locator("#download[aria-disabled=false]").waitFor();
  assert.deepEqual(await pixels("#original"), first);
  await done();
});

test("it says whether a picture comes back exactly", async () => {
  await uploadToManipulate();
  await page.getByText("The picture comes back exactly.").waitFor();
  await page.route("**/api/v1/encode", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...(await response.json()), exact: false, differing_pixels: 7 } });
  });
  await uploadToManipulate();
  await page.getByText("does not come back exactly: 7 of 4096 pixels differ").waitFor();
  await done();
});

test("it says when numbers are not finite", async () => {
  await page.route("**/api/v1/manipulate", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, headers: { ...response.headers(), "glowflow-finite": "false" } });
  });
  await move("[data-attribute=Smiling]", 0.9, "#changed");
  await page.getByText("not finite").waitFor();
  await done();
});

/** Marks all pictures of a path as not finite. */
const notFinite = (path) => page.route(`**/api/v1/${path}`, async (route) => {
  const response = await route.fetch();
  await route.fulfill({ response, headers: { ...response.headers(), "glowflow-finite": "false" } });
});

test("the warning of numbers that are not finite stays until the next action", async () => {
  await notFinite("decode/*");
  await toManipulate(() => page.getByRole("button", { name: "Sample for changing" }).click());
  await page.waitForTimeout(200);
  assert.match(await page.locator("#message").innerText(), /not finite/);
  await uploadToManipulate();
  await page.getByText(/The picture comes back exactly\. .* not finite/).waitFor();
  await page.unroute("**/api/v1/decode/*");
  await toManipulate(() => page.getByRole("button", { name: "Sample for changing" }).click());
  await page.waitForFunction(() => document.getElementById("message").textContent === "");

  await page.click("#tab-mix");
  await upload("#mix-a-source-file", PHOTO);
  await upload("#mix-b-source-file", OTHER);
  await page.waitForFunction(() => document.getElementById("strip").src !== "");
  await notFinite("mix");
  await Promise.all([page.waitForEvent("download"), page.click("#gif")]);
  await page.waitForTimeout(200);
  assert.match(await page.locator("#message").innerText(), /^Some .* not finite/);
  await done();
});

test("the first picture is the likeliest of those whose score is finite", async () => {
  let ids;
  await page.route("**/api/v1/sample", async (route) => {
    const response = await route.fetch();
    const samples = await response.json();
    if (!samples.bits_per_dim) return route.fulfill({ response });
    ids = samples.ids;
    const scores = ids.map((_, i) => (i === 0 || i > 3 ? null : 4 - (i === 2)));
    return route.fulfill({ response, json: { ...samples, bits_per_dim: scores } });
  });
  const decoded = [];
  page.on("request", (request) => /decode/.test(request.url()) && decoded.push(request.url().split("/").pop()));
  await page.reload();
  await page.locator("#download[aria-disabled=false]").waitFor();
  assert.deepEqual(decoded, [ids[2]]);
  await done();
});

test("sliders are filled from their zero", async () => {
  const filled = (slider) => page.locator(slider).evaluate((input) =>
    ["--from", "--to"].map((name) => Number(input.style.getPropertyValue(name))));
  const slider = "[data-attribute=Smiling]";
  assert.deepEqual(await filled(slider), [0.5, 0.5]);
  await move(slider, -0.5, "#changed");
  assert.deepEqual(await filled(slider), [0.25, 0.5]);
  await move(slider, 1, "#changed");
  assert.deepEqual(await filled(slider), [0.5, 1]);
  await page.click("#reset");
  assert.deepEqual(await filled(slider), [0.5, 0.5]);
  await page.click("#tab-sample");
  assert.deepEqual(await filled("#temperature"), [0, 0.7]);
  await done();
});

test("tabs are on one line of a phone", async () => {
  await page.context().close();
  await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  const tops = await page.locator("[role=tab]").evaluateAll((tabs) => tabs.map((tab) => tab.getBoundingClientRect().top));
  assert.equal(new Set(tops).size, 1, `${tops}`);
  await move("[data-attribute=Smiling]", -0.5, "#changed");
  await done("narrow");
});

test("a token is asked for once and does not stay in the address", async () => {
  await page.context().close();
  const [guarded, printed] = await serve("--token", "0123456789abcdef");
  const { origin } = new URL(printed);
  try {
    page = await (await browser.newContext()).newPage();
    await page.goto(printed);
    await page.locator("#download[aria-disabled=false]").waitFor();
    assert.equal(page.url(), `${origin}/`);
    await page.reload();
    await page.locator("#download[aria-disabled=false]").waitFor();
    await page.context().close();

    page = await (await browser.newContext()).newPage();
    await page.goto(origin);
    await page.fill("#token", "wrong");
    await page.click("text=Open");
    await page.getByText("That token is wrong.").waitFor();
    if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/token.png` });
    await page.fill("#token", "0123456789abcdef");
    await page.click("text=Open");
    await page.locator("#download[aria-disabled=false]").waitFor();
    assert.equal(page.url(), `${origin}/`);

    // A link on another site's page, to which browsers add no strict cookie.
    await page.goto("about:blank");
    await page.setContent(`<a href="${printed}">demo</a>`);
    await page.click("a");
    await page.locator("#download[aria-disabled=false]").waitFor();
    await page.context().close();
  } finally {
    guarded.kill();
  }
});

/** The page below /glow of a proxy that strips this path. */
async function belowStripped(...options) {
  await page.context().close();
  const [guarded, printed] = await serve("--token", "0123456789abcdef", "--allow-host", "localhost", ...options);
  const { port } = new URL(printed);
  const proxy = createServer((incoming, outgoing) => {
    const path = incoming.url.replace(/^\/glow\//, "/");
    const forwarded = request({ port, path, method: incoming.method, headers: incoming.headers }, (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    });
    incoming.pipe(forwarded);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const below = `http://localhost:${proxy.address().port}/glow/`;
  try {
    page = await (await browser.newContext()).newPage();
    await page.goto(`${below}?token=0123456789abcdef`);
    await page.locator("#download[aria-disabled=false]").waitFor();
    assert.equal(page.url(), below);
    const [cookie] = await page.context().cookies(below);
    assert.deepEqual([cookie.path, cookie.httpOnly, cookie.sameSite], ["/glow", true, "Strict"]);
    await page.context().close();
  } finally {
    proxy.close();
    proxy.closeAllConnections();
    guarded.kill();
  }
}

test("it works below a path that a proxy strips", () => belowStripped());

test("it works below a path that a proxy strips and that the server has as well", () => belowStripped("--base-path", "/glow"));

test("it fits a phone, also in the dark", async () => {
  await page.context().close();
  await open({ viewport: { width: 360, height: 740 }, colorScheme: "dark", hasTouch: true, isMobile: true });
  await uploadToManipulate();
  for (const tab of ["manipulate", "mix", "sample", "about"]) {
    await page.click(`#tab-${tab}`);
    const [width, wide] = await page.evaluate(() => [document.documentElement.clientWidth, document.documentElement.scrollWidth]);
    assert.ok(wide <= width, `${tab} is ${wide} wide, the screen ${width}`);
  }
  await page.click("#tab-manipulate");
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(251, 250, 247)");
  await done("phone");
});
