// Photographs: uploaded, dropped, pasted, taken; aligned by the eyes or cut.

import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { beforeEach, test } from "node:test";
import {
  PHOTO, RUN, amend, changing, confirm, done, drawn, fileOf, give, open, page, ready, screenshot, serve, settled, stop,
  uploadToManipulate, withServer,
} from "./support.js";

withServer();
beforeEach(() => open());

const image = (canvas) => page.locator(canvas).evaluate((canvas) => canvas.toDataURL());
const position = (marker) => page.locator(marker).evaluate(({ style }) => [style.left, style.top].map(parseFloat));

/** Makes the server find faces. */
async function finding(faces) {
  await amend("**/api/v1/info", () => ({ detector: true }));
  await page.route("**/api/v1/faces", (route) => route.fulfill({ json: { width: 300, height: 200, faces } }));
  await page.reload();
  await ready();
}

const face = (x, y, score = 0.9) => ({ eyes: [[x - 0.05, y], [x + 0.05, y]], score });

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
  // A tab that takes none gives it to the first one.
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

test("a file that is no picture is named and does no harm", async () => {
  await page.setInputFiles("#manipulate-source-file", fileOf(Buffer.from("none"), "notes.png"));
  await page.getByText("notes.png is no picture").waitFor();
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
  const fingers = (apart) => [-1, 1].map((side, id) => ({ x: x + width / 2 + side * apart, y: y + height / 2, id }));
  await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: fingers(30) });
  for (const apart of [40, 50, 60]) await touch.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: fingers(apart) });
  await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  await page.waitForFunction(() => Math.abs(document.getElementById("crop-zoom").value - 1) < 0.1);
  assert.notEqual(await image("#cropped"), before);
  await changing("#changed", () => confirm("crop"));
  await done();
});

/** A copy of the run that does not know where the eyes are. */
async function withUnknownEyes(work) {
  const folder = await mkdtemp(join(tmpdir(), "glowflow-"));
  try {
    const run = join(folder, "run");
    // Checkpoints are large, and nothing here needs them.
    await cp(RUN, run, { recursive: true, filter: (path) => !/checkpoint|best|eyes\.toml/.test(basename(path)) });
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
  await page.getByText("Photographs of faces are aligned: the eyes are put at 35 % / 45 % and 65 % / 45 %").waitFor();
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
  // An upload asks first, if nobody has answered.
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
  assert.ok(await page.locator("#eyes-banner").isVisible(), "another browser knows nothing");
  await page.click("#eyes-not-faces");
  assert.equal(await page.locator("#eyes-banner").isVisible(), false);
  await page.setInputFiles("#manipulate-source-file", PHOTO);
  await changing("#changed", () => confirm("crop"));
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
