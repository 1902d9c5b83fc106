// The page as a whole: access, keyboard, screen readers, phones.

import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { test } from "node:test";
import {
  PHOTO, RUN, amend, browser, changing, difference, done, move, open, page, pixels, ready, screenshot, serve,
  settled, upload, withServer,
} from "./support.js";

const TABS = ["manipulate", "mix", "sample", "score", "about"];
const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

withServer();

/** Fills all tabs, so that they look as they do in use. */
async function fillTabs() {
  await settled();
  await page.click("#tab-mix");
  for (let i = 1; i <= 3; i++) {
    await page.locator("#mix-examples button").nth(i).click();
    await page.waitForFunction((i) => document.querySelectorAll("#mix-cards img[src]").length === i, i);
  }
  await page.waitForFunction(() => document.getElementById("strip").src !== "");
  await page.click("#tab-sample");
  await page.waitForFunction(() => document.querySelectorAll("#samples img[src]").length === 16);
  await page.click("#tab-score");
  await changing("#score-original", () => upload("#score-source-file", PHOTO));
  await page.click("#tab-manipulate");
  // Its menus are enabled now.
  await move("[data-attribute=Smiling]", 1, "#changed");
}

test("the introduction is closed for good", async () => {
  await open();
  assert.match(await page.locator("#intro").innerText(), /the numbers back into the same pictures at its own size and bit depth/);
  await page.click("#intro-close");
  assert.equal(await page.locator("#intro").isVisible(), false);
  await page.reload();
  await ready();
  assert.equal(await page.locator("#intro").isVisible(), false);
  await done();
});

test("all of it works by keyboard", async () => {
  await open();
  await settled();
  await page.locator("#tab-manipulate").focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.evaluate(() => document.activeElement.id), "tab-sample");
  await page.waitForFunction(() => document.querySelectorAll("#samples img[src]").length === 16);
  await page.locator("#samples button").first().focus();
  await changing("#original", () => page.keyboard.press("Enter"));
  const original = await pixels("#original");
  await page.locator("[data-attribute=Blond_Hair]").focus();
  await changing("#changed", () => page.keyboard.press("End"));
  assert.ok(difference(await pixels("#changed"), original) > 1);

  const menu = page.locator("#manipulate-downloads summary").first();
  await menu.focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  assert.match(await page.evaluate(() => document.activeElement.textContent), /Original size/);
  await page.keyboard.press("Escape");
  assert.equal(await page.locator(".menu[open]").count(), 0);
  await done();
});

test("every control has a name, and pictures a description", async () => {
  await open();
  await fillTabs();
  for (const tab of TABS) {
    await page.click(`#tab-${tab}`);
    const nameless = await page.locator("button, input, select, a, summary, [role=tabpanel]")
      .evaluateAll((all) => all
        .filter((e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim()
          || e.getAttribute("aria-labelledby")))
        .map((e) => e.outerHTML));
    assert.deepEqual(nameless, []);
  }
  assert.equal(await page.locator("img:not([alt])").count(), 0);
  const facts = await page.locator("#facts").innerText();
  const expected = ["64 × 64", "additive", "Bits per dimension", "upper bound, uniform dequantisation",
    "Inverse error", "steps"];
  for (const fact of expected) assert.ok(facts.includes(fact), facts);
  assert.equal(await page.locator("#attributes tr:not(:has([colspan]))").count(), 6);
  await done();
});

for (const [name, options] of [
  ["wide", { viewport: { width: 1280, height: 800 } }],
  ["phone", PHONE],
  ["dark phone", { ...PHONE, viewport: { width: 360, height: 740 }, colorScheme: "dark" }],
]) {
  test(`nothing overflows: ${name}`, async () => {
    await open(options);
    await fillTabs();
    for (const tab of TABS) {
      await page.click(`#tab-${tab}`);
      const [width, wide] = await page.evaluate(() =>
        [document.documentElement.clientWidth, document.documentElement.scrollWidth]);
      assert.ok(wide <= width, `${tab} is ${wide} wide, the screen ${width}`);
      for (const menu of await page.locator(`#${tab} .menu summary:not([aria-disabled=true])`).all()) {
        await menu.click();
        const { left, right } = await page.locator(".menu[open] .menu-items")
          .evaluate((items) => items.getBoundingClientRect());
        assert.ok(left >= 0 && right <= width, `a menu of ${tab} reaches from ${left} to ${right}`);
        await page.keyboard.press("Escape");
      }
      await screenshot(`${name.replace(" ", "-")}-${tab}`);
    }
    const dark =
      await page.evaluate(() => getComputedStyle(document.body).backgroundColor) !== "rgb(251, 250, 247)";
    assert.equal(dark, options.colorScheme === "dark");
    await done();
  });
}

test("a phone keeps the pictures in view, has its tabs on one line and lets fingers hit", async () => {
  await open(PHONE);
  const tops = await page.locator("[role=tab]").evaluateAll((tabs) =>
    tabs.map((tab) => tab.getBoundingClientRect().top));
  assert.equal(new Set(tops).size, 1, `${tops}`);
  await move("[data-attribute=Smiling]", -1, "#changed");
  await page.locator("#sliders .slider").last().scrollIntoViewIfNeeded();
  await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
  const { top, bottom } = await page.locator("#changed").evaluate((image) => image.getBoundingClientRect());
  assert.ok(top >= 0 && bottom < 500, `the picture is at ${top} to ${bottom}`);
  await screenshot("phone-scrolled", {});
  const low = await page.locator("button:visible, summary.button:visible, input[type=range]:visible")
    .evaluateAll((all) => all
      .filter((e) => !e.closest(".examples") && e.getBoundingClientRect().height < 44)
      .map((e) => e.outerHTML));
  assert.deepEqual(low, []);
  await done();
});

test("a phone held sideways keeps the pictures in view", async () => {
  await open({ ...PHONE, viewport: { width: 844, height: 390 } });
  await page.locator("#sliders .slider").last().scrollIntoViewIfNeeded();
  await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
  const { top, bottom } = await page.locator("#changed").evaluate((image) => image.getBoundingClientRect());
  assert.ok(top >= -40 && bottom <= 390, `the picture is at ${top} to ${bottom}`);
  await screenshot("phone-sideways", {});
  await done();
});

test("a phone's message leaves an open menu free", async () => {
  await open(PHONE);
  await settled();
  await changing("#original", () => upload("#manipulate-source-file", PHOTO));
  await page.getByText(/reconstructed exactly/).waitFor();
  await page.locator("#manipulate-downloads summary").first().click();
  assert.equal(await page.locator("#message").isVisible(), false);
  // The page scrolls in the event that follows the opening.
  await page.waitForFunction(
    () => document.querySelector(".menu[open] .menu-items").getBoundingClientRect().bottom <= 844,
    undefined, { timeout: 8000 });
  await screenshot("phone-menu", {});
  await page.keyboard.press("Escape");
  await page.waitForFunction(
    () => document.getElementById("message").textContent === "", undefined, { timeout: 8000 });
  await done();
});

test("reasons for weak directions are readable on a phone", async () => {
  await open({ ...PHONE, prepare: () => amend("**/api/v1/info", ({ attributes }) => ({
    attributes: attributes.map((about) =>
      ({ ...about, weak: "it orders 52 % of 40 held-out pairs of images correctly" })),
  })) });
  await page.click("#tab-about");
  assert.equal(await page.locator("#attributes [colspan]").count(), 6);
  const { width, height } = await page.locator("#attributes [colspan]").first().boundingBox();
  assert.ok(width > 250 && height < 80, `${width} × ${height}`);
  await screenshot("phone-weak");
  await done();
});

test("a phone shows one note at a time", async () => {
  await open({ ...PHONE, prepare: () => amend("**/api/v1/info", () => ({ faces: null, eyes: null })) });
  assert.ok(await page.locator("#eyes-banner").isVisible());
  assert.equal(await page.locator("#intro").isVisible(), false);
  await screenshot("phone-start", {});
  await page.click("#eyes-postpone");
  assert.ok(await page.locator("#intro").isVisible());
  await done();
});

test("nothing is animated if reduced motion is preferred", async () => {
  await open({ reducedMotion: "reduce" });
  const moving = await page.locator("body *").evaluateAll((all) => all
    .filter((e) =>
      getComputedStyle(e).transitionDuration !== "0s" || getComputedStyle(e).animationName !== "none")
    .map((e) => e.outerHTML));
  assert.deepEqual(moving, []);
  await done();
});

test("a token is asked for once and does not stay in the address", async () => {
  const [guarded, printed] = await serve(RUN, "--token", "0123456789abcdef");
  const { origin } = new URL(printed);
  const shown = (tab) => tab.locator("#changed[src]").waitFor();
  try {
    let tab = await (await browser.newContext()).newPage();
    await tab.goto(printed);
    await shown(tab);
    assert.equal(tab.url(), `${origin}/`);
    await tab.reload();
    await shown(tab);
    await tab.context().close();

    tab = await (await browser.newContext()).newPage();
    await tab.goto(origin);
    await tab.fill("#token", "wrong");
    await tab.click("text=Open");
    await tab.getByText("That token is wrong.").waitFor();
    await tab.fill("#token", "0123456789abcdef");
    await tab.click("text=Open");
    await shown(tab);
    assert.equal(tab.url(), `${origin}/`);

    // A link on another site's page, for which browsers send no strict cookie.
    await tab.goto("about:blank");
    await tab.setContent(`<a href="${printed}">demo</a>`);
    await tab.click("a");
    await shown(tab);
    await tab.context().close();
  } finally {
    guarded.kill();
  }
});

/** The page below /glow of a proxy that strips this path. */
async function belowStripped(...options) {
  const [guarded, printed] = await serve(
    RUN, "--token", "0123456789abcdef", "--allow-host", "localhost", ...options);
  const { port } = new URL(printed);
  const proxy = createServer((incoming, outgoing) => {
    const path = incoming.url.replace(/^\/glow\//, "/");
    const forwarded = request(
      { port, path, method: incoming.method, headers: incoming.headers }, (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    });
    incoming.pipe(forwarded);
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const below = `http://localhost:${proxy.address().port}/glow/`;
  try {
    const tab = await (await browser.newContext()).newPage();
    await tab.goto(`${below}?token=0123456789abcdef`);
    await tab.locator("#changed[src]").waitFor();
    assert.equal(tab.url(), below);
    const [cookie] = await tab.context().cookies(below);
    assert.deepEqual([cookie.path, cookie.httpOnly, cookie.sameSite], ["/glow", true, "Strict"]);
    await tab.context().close();
  } finally {
    proxy.close();
    proxy.closeAllConnections();
    guarded.kill();
  }
}

test("it works below a path that a proxy strips", () => belowStripped());

test("it works below a path that a proxy strips and that the server has as well", () =>
  belowStripped("--base-path", "/glow"));
