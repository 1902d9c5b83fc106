// Photographs: uploaded, dropped, pasted, taken; aligned by the eyes or cropped.

import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { beforeEach, test } from "node:test";
import {
  PHOTO, RUN, amend, changing, confirm, difference, done, drawn, fileOf, give, open, page, pixels, ready,
  screenshot, serve, settled, stop, uploadToManipulate, withServer,
} from "./support.js";

withServer();
beforeEach(() => open());

const image = (canvas) => page.locator(canvas).evaluate((canvas) => canvas.toDataURL());
const position = (marker) =>
  page.locator(marker).evaluate(({ style }) => [style.left, style.top].map(parseFloat));

/** Makes the server detect faces. */
async function finding(faces) {
  await amend("**/api/v1/info", () => ({ detector: true }));
  await page.route("**/api/v1/faces", (route) => route.fulfill({ json: { width: 300, height: 200, faces } }));
  await page.reload();
  await ready();
}

const face = (x, y, score = 0.9, apart = 0.1) => ({
  eyes: [[x - apart / 2, y], [x + apart / 2, y]], box: [x - 0.11, y - 0.15, x + 0.11, y + 0.2], score,
});

const portrait = async () =>
  fileOf(await readFile(new URL("portrait.jpg", import.meta.url)), "portrait.jpg", "image/jpeg");
const pasted = (files) => Promise.all(files.map((file) => give("paste", [file])));

test("a photograph is reflected beyond its edges", async () => {
  const { mimeType, buffer } = await portrait();
  const [response] = await Promise.all([
    page.waitForResponse("**/api/v1/faces"), page.setInputFiles("#manipulate-source-file", await portrait()),
  ]);
  const { faces: [{ eyes }] } = await response.json();
  await page.getByText("A face was found.").waitFor();
  const beyond = await page.evaluate(async ([bytes, type, eyes]) => {
    const bitmap = await createImageBitmap(new Blob([Uint8Array.from(bytes)], { type }));
    const pixelsOf = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const source = new OffscreenCanvas(bitmap.width, bitmap.height);
    source.getContext("2d").drawImage(bitmap, 0, 0);
    const aligned = document.getElementById("aligned");
    const [photo, shown] = [pixelsOf(source), pixelsOf(aligned)];
    const [l, r] = eyes.map(([x, y]) => [x * bitmap.width, y * bitmap.height]);
    const [tl, tr] = [[0.4, 0.5], [0.6, 0.5]].map(([x, y]) => [x * aligned.width, y * aligned.height]);
    const [px, py, length] = [r[0] - l[0], r[1] - l[1], tr[0] - tl[0]];
    let [count, reflected, stretched] = [0, 0, 0];
    for (let y = 2; y < aligned.height; y += 3) {
      for (let x = 2; x < aligned.width; x += 3) {
        const [dx, dy] = [(x + 0.5 - tl[0]) / length, (y + 0.5 - tl[1]) / length];
        const [u, v] = [l[0] + px * dx - py * dy, l[1] + py * dx + px * dy];
        if (v > -3 || u < 0 || u >= bitmap.width) continue;
        const at = (u, v) => 4 * (Math.floor(v) * bitmap.width + Math.floor(u));
        const difference = (from) => [0, 1, 2].reduce((sum, c) =>
          sum + Math.abs(photo[from + c] - shown[4 * (y * aligned.width + x) + c]), 0);
        count++;
        reflected += difference(at(u, -v));
        stretched += difference(at(x * bitmap.width / aligned.width, y * bitmap.height / aligned.height));
      }
    }
    return { count, reflected: reflected / count / 3, stretched: stretched / count / 3 };
  }, [[...buffer], mimeType, eyes]);
  assert.ok(beyond.count > 100, "the crop reaches beyond the top edge");
  assert.ok(beyond.reflected < 6 && beyond.stretched > 2 * beyond.reflected, JSON.stringify(beyond));
  await screenshot("align-reflected", {});
  await changing("#changed", () => confirm());
  await done();
});

test("transparent parts of a photograph are white, not what was shown before", async () => {
  const transparent = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(100, 100);
    canvas.getContext("2d").fillRect(0, 0, 40, 40);
    return Array.from(new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer()));
  });
  for (const file of [await portrait(), fileOf(Buffer.from(transparent))]) {
    await page.setInputFiles("#manipulate-source-file", file);
    await page.locator("#align-use:not(:disabled)").waitFor();
    if (file.name !== "portrait.jpg") break;
    await changing("#changed", () => confirm());
  }
  const corner = await page.locator("#aligned").evaluate((canvas) =>
    Array.from(canvas.getContext("2d").getImageData(canvas.width - 9, canvas.height - 9, 1, 1).data));
  assert.deepEqual(corner, [255, 255, 255, 255]);
  await page.click("#align-cancel");
  await done();
});

test("photographs given in quick succession are used one after another", async () => {
  await page.click("#tab-mix");
  // The file that is not a picture does not stop the others.
  await pasted([
    await portrait(), fileOf(Buffer.from("none"), "notes.png"), fileOf(await drawn({ colour: "lime" }))]);
  for (let i = 1; i <= 2; i++) {
    await confirm();
    await page.waitForFunction((i) => document.querySelectorAll("#mix-cards img[src]").length === i, i);
  }
  const [first, second] = [
    await pixels("#mix-cards figure:nth-child(1) img"), await pixels("#mix-cards figure:nth-child(2) img")];
  assert.ok(difference(first, second) > 10);
  assert.equal(await page.locator("dialog[open]").count(), 0);
  await done();
});

test("a small face is shown large enough to correct its markers", async () => {
  const small = { ...face(0.25, 0.25, 0.9, 0.02), box: [0.22, 0.2, 0.28, 0.3] };
  await finding([small]);
  await page.setInputFiles("#manipulate-source-file", fileOf(await drawn({ width: 1200, height: 900 })));
  await page.getByText("A face was found.").waitFor();
  const [left, right] = [await position("#eye-left"), await position("#eye-right")];
  const canvas = await page.locator("#photo").boundingBox();
  assert.ok((right[0] - left[0]) * canvas.width / 100 > 20, `${left} and ${right} on ${canvas.width}`);
  await screenshot("align-small", {});
  const before = await image("#aligned");
  const box = await page.locator("#eye-left").boundingBox();
  // The nearer marker moves, even if the other one is on top, and keeps its distance to the pointer.
  const [x, y] = [box.x + box.width / 2 + 5, box.y + box.height / 2];
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(x - 10, y, { steps: 3 });
  await page.mouse.up();
  assert.deepEqual(await position("#eye-right"), right);
  assert.ok(Math.abs((await position("#eye-left"))[0] - (left[0] - 1000 / canvas.width)) < 0.5);
  assert.notEqual(await image("#aligned"), before);
  const corrected = await image("#aligned");
  await page.click("#align-whole");
  assert.ok(Math.abs((await position("#eye-right"))[0] - 26) < 0.1);
  assert.equal(await image("#aligned"), corrected);
  await changing("#changed", () => confirm());
  await done();
});

test("a face that is seen from the side is reported", async () => {
  await finding([face(0.3, 0.4, 0.9, 0.03), face(0.7, 0.4)]);
  await page.setInputFiles("#manipulate-source-file", fileOf(await drawn()));
  await page.getByText("The face is seen from the side: check the crop.").waitFor();
  await page.getByRole("button", { name: "Face 2" }).click();
  assert.equal(await page.locator("#align-profile").isVisible(), false);
  await page.click("#align-cancel");
  await done();
});

test("dropped and pasted pictures are used", async () => {
  for (const [how, name] of [["drop", "dropped.png"], ["paste", "pasted.png"]]) {
    await changing("#original", async () => {
      await give(how, [fileOf(await drawn({ colour: how === "drop" ? "red" : "lime" }), name)]);
      await confirm();
    });
  }
  await page.click("#tab-mix");
  const files = [fileOf(await drawn(), "a.png"), fileOf(await drawn({ colour: "black" }), "b.png")];
  await give("drop", files);
  await confirm();
  await page.waitForFunction(() => document.querySelectorAll("#mix-cards img[src]").length === 1);
  await confirm();
  await page.waitForFunction(() => document.querySelectorAll("#mix-cards img[src]").length === 2);
  // A tab that does not use pictures passes it to the first one.
  await page.click("#tab-about");
  await changing("#original", async () => {
    await give("paste", [fileOf(await drawn({ colour: "white" }))]);
    await confirm();
  });
  assert.ok(await page.locator("#manipulate").isVisible());
  await done();
});

test("a JPEG of a phone's size is used", async () => {
  const large = await drawn({ width: 3000, height: 4000, type: "image/jpeg" });
  await changing("#original", async () => {
    await page.setInputFiles("#manipulate-source-file", fileOf(large, "phone.jpg", "image/jpeg"));
    await confirm();
  });
  await done();
});

test("dragging, clicking and the arrow keys place the eyes", async () => {
  await finding([]);
  await page.setInputFiles("#manipulate-source-file", PHOTO);
  await page.locator("#align").waitFor();
  await page.locator("#align-use:not(:disabled)").waitFor();
  const before = await image("#aligned");
  const eye = await page.locator("#eye-left").boundingBox();
  await page.mouse.move(eye.x + eye.width / 2, eye.y + eye.height / 2);
  await page.mouse.down();
  await page.mouse.move(eye.x + eye.width / 2 + 15, eye.y + eye.height / 2 + 30, { steps: 5 });
  await page.mouse.up();
  const dragged = await image("#aligned");
  assert.notEqual(dragged, before);
  await page.locator("#eye-right").press("ArrowUp");
  const moved = await image("#aligned");
  assert.notEqual(moved, dragged);
  const canvas = await page.locator("#photo").boundingBox();
  await page.mouse.click(canvas.x + canvas.width * 0.9, canvas.y + canvas.height * 0.1);
  const [left, top] = await position("#eye-right");
  assert.ok(Math.abs(left - 90) < 1 && Math.abs(top - 10) < 1, `${left}, ${top}`);
  await page.click("#align-middle");
  assert.equal(await image("#aligned"), before);
  await changing("#changed", () => page.click("#align-use"));
  await done();
});

test("a face that is found has its markers placed", async () => {
  await finding([face(0.3, 0.4)]);
  await page.setInputFiles("#manipulate-source-file", fileOf(await drawn()));
  await page.getByText("A face was found.").waitFor();
  assert.deepEqual(await position("#eye-left"), [25, 40]);
  assert.deepEqual(await position("#eye-right"), [35, 40]);
  await screenshot("align", {});
  await changing("#changed", () => confirm());
  await done();
});

test("one of several faces is chosen", async () => {
  await finding([face(0.7, 0.5), face(0.2, 0.3)]);
  await page.setInputFiles("#manipulate-source-file", fileOf(await drawn()));
  await page.getByText("2 faces were found.").waitFor();
  assert.deepEqual(await position("#eye-left"), [65, 50]);
  const first = await image("#aligned");
  await page.getByRole("button", { name: "Face 2" }).click();
  assert.deepEqual(await position("#eye-left"), [15, 30]);
  assert.equal(await page.getByRole("button", { name: "Face 2" }).getAttribute("aria-pressed"), "true");
  assert.notEqual(await image("#aligned"), first);
  await screenshot("faces", {});
  await changing("#changed", () => confirm());
  await done();
});

test("without a face the eyes are placed by hand", async () => {
  await finding([]);
  await page.setInputFiles("#manipulate-source-file", fileOf(await drawn()));
  await page.getByText("No face was found. Drag the markers onto the eyes.").waitFor();
  await changing("#changed", () => confirm());
  await done();
});

test("the camera's picture can be used", async () => {
  await page.getByRole("button", { name: "Camera for changing" }).click();
  await page.click("#camera-take");
  await changing("#changed", () => confirm());
  await done();
});

test("a file that is not a picture is reported by name and changes nothing", async () => {
  await page.setInputFiles("#manipulate-source-file", fileOf(Buffer.from("none"), "notes.png"));
  await page.getByText("notes.png is not a picture").waitFor();
  await uploadToManipulate();
  await done();
});

test("a photograph of anything but a face is cut: moved and zoomed", async () => {
  await amend("**/api/v1/info", () => ({ faces: false, eyes: null }));
  await page.reload();
  await ready();
  await page.setInputFiles("#manipulate-source-file", fileOf(await drawn()));
  await page.locator("#crop").waitFor();
  const seen = [await image("#cropped")];
  const next = async () => {
    seen.push(await image("#cropped"));
    assert.equal(new Set(seen).size, seen.length, `step ${seen.length} changes nothing`);
  };
  const box = await page.locator("#cropped").boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(x + 40, y, { steps: 4 });
  await page.mouse.up();
  await next();
  await page.mouse.wheel(0, -100);
  await page.waitForFunction(() => document.getElementById("crop-zoom").value > 0);
  await next();
  await page.locator("#cropped").press("ArrowLeft");
  await next();
  await page.locator("#cropped").press("+");
  await next();
  await page.locator("#crop-zoom").press("End");
  await next();
  await page.locator("#crop-zoom").press("Home");
  await screenshot("crop", {});
  await changing("#changed", () => confirm("crop"));
  await done();
});

test("two fingers zoom the part that is used", async () => {
  await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true,
    prepare: () => amend("**/api/v1/info", () => ({ faces: false, eyes: null })) });
  await page.setInputFiles("#manipulate-source-file", fileOf(await drawn()));
  await page.locator("#crop").waitFor();
  const before = await image("#cropped");
  const { x, y, width, height } = await page.locator("#cropped").boundingBox();
  const touch = await page.context().newCDPSession(page);
  const fingers = (apart) =>
    [-1, 1].map((side, id) => ({ x: x + width / 2 + side * apart, y: y + height / 2, id }));
  await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: fingers(30) });
  for (const apart of [40, 50, 60])
    await touch.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: fingers(apart) });
  await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  await page.waitForFunction(() => Math.abs(document.getElementById("crop-zoom").value - 1) < 0.1);
  assert.notEqual(await image("#cropped"), before);
  await changing("#changed", () => confirm("crop"));
  await done();
});

/** A copy of the run without eye positions. */
async function withUnknownEyes(work) {
  const folder = await mkdtemp(join(tmpdir(), "glowflow-"));
  try {
    const run = join(folder, "run");
    // Checkpoints are large and not needed here.
    await cp(
      RUN, run, { recursive: true, filter: (path) => !/checkpoint|best|eyes\.toml/.test(basename(path)) });
    const [server, at] = await serve(run);
    try {
      await work(at, run);
    } finally {
      await stop(server);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Puts the markers on the mean picture. */
async function place() {
  await page.locator("#eyes").waitFor();
  const box = await page.locator("#mean").boundingBox();
  await page.mouse.click(box.x + box.width * 0.35, box.y + box.height * 0.45);
  await page.mouse.click(box.x + box.width * 0.65, box.y + box.height * 0.45);
}

test("the eyes are asked for once and stored with the model", () => withUnknownEyes(async (at, run) => {
  await open({ at });
  await settled();
  assert.ok(await page.locator("#eyes-banner").isVisible());
  await page.click("#eyes-open");
  await page.waitForFunction(() => {
    const canvas = document.getElementById("mean");
    return canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[3] === 255;
  });
  await place();
  await screenshot("eyes", {});
  await page.click("#eyes-save");
  await page.getByText("The answer is stored with the model.").waitFor();
  const stored = await readFile(join(run, "eyes.toml"), "utf8");
  assert.match(stored, /0\.(35|349|350)/);
  await open({ at });
  assert.equal(await page.locator("#eyes-banner").isVisible(), false);
  await page.setInputFiles("#manipulate-source-file", PHOTO);
  await changing("#changed", () => confirm("align"));

  // The answer can be changed.
  await page.click("#tab-about");
  await page.getByText(
    "Photographs of faces are aligned: the eyes are placed at 35 % / 45 % and 65 % / 45 %").waitFor();
  await page.click("#eyes-change");
  await page.click("#eyes-none");
  await page.getByText("The pictures are not faces").waitFor();
  await page.click("#tab-manipulate");
  await page.setInputFiles("#manipulate-source-file", PHOTO);
  await changing("#changed", () => confirm("crop"));
  await done();
}));

test("a browser remembers the eyes if the server does not store them", () => withUnknownEyes(async (at) => {
  const prepare = () => amend("**/api/v1/info", () => ({ stores_eyes: false }));
  await open({ at, prepare });
  // An upload asks first if there is no answer yet.
  await page.setInputFiles("#manipulate-source-file", PHOTO);
  await place();
  await page.click("#eyes-save");
  await changing("#changed", () => confirm("align"));
  await page.reload();
  await ready();
  assert.equal(await page.locator("#eyes-banner").isVisible(), false);
  await page.setInputFiles("#manipulate-source-file", PHOTO);
  await changing("#changed", () => confirm("align"));
  await open({ at, prepare });
  assert.ok(await page.locator("#eyes-banner").isVisible(), "another browser has no answer");
  await page.click("#eyes-not-faces");
  assert.equal(await page.locator("#eyes-banner").isVisible(), false);
  await page.setInputFiles("#manipulate-source-file", PHOTO);
  await changing("#changed", () => confirm("crop"));
  await done();
}));

test("an answer that the server cannot store holds in the browser", () => withUnknownEyes(async (at) => {
  for (const [storage, said] of [
    [true, "This browser remembers the answer. The server did not store it: no room"],
    [false, "The answer is kept until the page is closed."]]) {
    await open({ at, prepare: async () => {
      await page.route("**/api/v1/eyes", (route) =>
        route.fulfill({ json: { detail: "no room" }, status: 507 }));
      if (storage) return;
      await page.addInitScript(() => {
        Storage.prototype.setItem = Storage.prototype.getItem = Storage.prototype.removeItem =
          () => { throw new Error("no storage"); };
      });
    } });
    await page.setInputFiles("#manipulate-source-file", PHOTO);
    await place();
    // Its message is soon followed by that of the photograph.
    const reported = page.getByText(said).waitFor();
    await page.click("#eyes-save");
    await reported;
    await changing("#changed", () => confirm("align"));
    assert.equal(await page.locator("#eyes-banner").isVisible(), false);
    await page.setInputFiles("#manipulate-source-file", PHOTO);
    await changing("#changed", () => confirm("align"));
  }
  await page.context().close();
}));

test("close markers are refused, and the way out has a fitting name", () => withUnknownEyes(async (at) => {
  await open({ at });
  await page.click("#eyes-open");
  assert.equal(await page.locator("#eyes-later").innerText(), "Later");
  await place();
  for (let i = 0; i < 6; i++) await page.locator("#mean-left").press("Shift+ArrowRight");
  await page.getByText("The markers are too close to each other.").waitFor();
  assert.ok(await page.locator("#eyes-save").isDisabled());
  await page.locator("#mean-left").press("Shift+ArrowLeft");
  assert.ok(await page.locator("#eyes-save").isEnabled());
  await page.click("#eyes-save");
  await page.getByText("The answer is stored with the model.").waitFor();
  await page.click("#tab-about");
  await page.click("#eyes-change");
  assert.equal(await page.locator("#eyes-later").innerText(), "Cancel");
  await page.click("#eyes-later");
  await page.getByText("Photographs of faces are aligned").waitFor();
  await done();
}));

test("suggested eyes are the median of several pictures, or else level", () => withUnknownEyes(async (at) => {
  for (const [found, left, right] of [
    [[[[0.4, 0.5], [0.6, 0.52]]], [40, 51], [60, 51]],
    [[[[0.4, 0.5], [0.6, 0.56]], [[0.36, 0.48], [0.64, 0.48]], [[0.36, 0.48], [0.64, 0.48]]],
      [36, 48], [64, 48]],
  ]) {
    let request = 0;
    await open({ at, prepare: async () => {
      await amend("**/api/v1/info", () => ({ detector: true }));
      await page.route("**/api/v1/faces", (route) => {
        const eyes = found[request++];
        return route.fulfill(
          { json: { width: 384, height: 384, faces: eyes ? [{ eyes, score: 0.9 }] : [] } });
      });
    } });
    await page.click("#eyes-open");
    await page.getByText("A face was found. Correct the markers").waitFor();
    const near = (a, b) => a.every((x, i) => Math.abs(x - b[i]) < 0.01);
    assert.ok(near(await position("#mean-left"), left) && near(await position("#mean-right"), right));
    await page.click("#eyes-later");
  }
  await open({ at, prepare: () =>
    page.route("**/api/v1/faces", (route) => route.fulfill({ json: { faces: [] } })) });
  await page.click("#eyes-open");
  await page.getByText("No face was found; place the markers.").waitFor();
  await screenshot("eyes-none", {});
  await page.click("#eyes-later");
  await done();
}));

test("the question of the eyes can be postponed", () => withUnknownEyes(async (at) => {
  await open({ at });
  await page.click("#eyes-postpone");
  assert.equal(await page.locator("#eyes-banner").isVisible(), false);
  await page.setInputFiles("#manipulate-source-file", PHOTO);
  await changing("#changed", () => confirm("crop"));
  await done();
}));
