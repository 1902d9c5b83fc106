// Where pictures come from: a file, the camera, or the model; and aligning a photograph by its eyes.

import { Kept, attempt, likeliest, sample, say } from "./api.js";

/** Photographs are made smaller than this before they are aligned. */
const LARGEST_SIDE = 2048;
/** Height of what is sent. */
const ALIGNED_HEIGHT = 256;

/** The images that the first one is chosen from: fewer if they are large, so that the page does not wait. */
const FIRST = { count: 8, pixels: 8 * 64 * 64, temperature: 0.6, seed: 1 };

const byId = (id) => document.getElementById(id);
let model;

/** Tells this module what the model is. */
export function setModel(info) {
  model = info;
  // Without positions of the eyes, the markers begin where faces often have them.
  model.eyes ??= [[0.39, 0.51], [0.61, 0.51]];
}

/** Fills `place` with buttons that bring pictures; `use` gets an image that the server keeps. */
export function addSource(place, name, use) {
  const file = document.createElement("input");
  file.type = "file";
  file.accept = "image/png,image/jpeg,image/webp,image/bmp";
  file.id = `${place.id}-file`;
  const label = document.createElement("label");
  label.className = "button";
  label.htmlFor = file.id;
  label.textContent = "Photograph…";
  file.setAttribute("aria-label", `Photograph for ${name}`);
  file.addEventListener("change", () => attempt(async () => {
    const [chosen] = file.files;
    file.value = "";
    if (chosen) await usePhoto(chosen, use);
  }));
  place.append(file, label);
  if (navigator.mediaDevices?.getUserMedia) {
    place.append(button("Camera…", `Camera for ${name}`, async () => {
      const photo = await takePhoto();
      if (photo) await usePhoto(photo, use);
    }));
  }
  place.append(button("Sample", `Sample for ${name}`, async () => {
    await use(await drawOne());
    say("");
  }));
}

/**
 * The image that the page opens on: the likeliest of a few at a low temperature, the same at every visit. Those are smooth
 * and seldom odd.
 */
export function drawFirst() {
  const [height, width] = model.config.image;
  const fitting = Math.floor(FIRST.pixels / (height * width));
  const count = Math.max(1, Math.min(FIRST.count, model.images, fitting));
  return likeliest(count, FIRST.temperature, FIRST.seed);
}

/** An image of the model's own. */
export async function drawOne() {
  const [drawn] = await sample(1, 0.7, randomSeed());
  return drawn;
}

/** A new seed. */
export function randomSeed() {
  return Math.floor(Math.random() * 2 ** 32);
}

function button(text, label, work) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", () => attempt(work));
  return made;
}

async function usePhoto(file, use) {
  const photo = await load(file);
  const aligned = await align(file, photo);
  photo.close();
  if (!aligned) return;
  say("Encoding…");
  const kept = await Kept.encode(aligned);
  await use(kept);
  say(howExact(kept));
}

/** Whether a picture comes back from its latents. */
function howExact({ exact, differingPixels }) {
  const [height, width] = model.config.image;
  if (exact) return "The picture comes back exactly.";
  return `The picture does not come back exactly: ${differingPixels} of ${width * height} pixels differ.`;
}

async function load(file) {
  let photo;
  try {
    photo = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name ?? "This"} is no picture that this browser can show.`);
  }
  const shrink = LARGEST_SIDE / Math.max(photo.width, photo.height);
  if (shrink >= 1) return photo;
  const size = { resizeWidth: Math.round(photo.width * shrink), resizeHeight: Math.round(photo.height * shrink) };
  const smaller = await createImageBitmap(photo, { ...size, resizeQuality: "high" });
  photo.close();
  return smaller;
}

/** Where the model's eyes lie when the photograph is cut to the middle. */
function eyesOfMiddle(photo) {
  const [height, width] = model.config.image;
  const scale = Math.min(photo.width / width, photo.height / height);
  return model.eyes.map(([x, y]) => [
    photo.width / 2 + (x - 0.5) * width * scale,
    photo.height / 2 + (y - 0.5) * height * scale,
  ]);
}

/** Draws the photograph turned, scaled and moved so that its eyes lie where the model's do. */
function drawAligned(canvas, photo, [left, right]) {
  const [height, width] = model.config.image;
  canvas.height = ALIGNED_HEIGHT;
  canvas.width = Math.round((ALIGNED_HEIGHT * width) / height);
  const [to, toRight] = model.eyes.map(([x, y]) => [x * canvas.width, y * canvas.height]);
  const [dx, dy] = [right[0] - left[0], right[1] - left[1]];
  const [ex, ey] = [toRight[0] - to[0], toRight[1] - to[1]];
  const length = Math.max(dx * dx + dy * dy, 1);
  // (a + ib) · (dx + i dy) = ex + i ey: the one turn and scale that takes one pair of eyes to the other.
  const [a, b] = [(ex * dx + ey * dy) / length, (ey * dx - ex * dy) / length];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  // Behind what the photograph does not cover: itself.
  context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  context.setTransform(a, b, -b, a, to[0] - a * left[0] + b * left[1], to[1] - b * left[0] - a * left[1]);
  context.drawImage(photo, 0, 0);
  context.resetTransform();
}

/** Lets the user place the eyes. Resolves to a picture to send, or to nothing. */
function align(file, photo) {
  const dialog = byId("align");
  const canvas = byId("photo");
  const aligned = byId("aligned");
  const markers = [byId("eye-left"), byId("eye-right")];
  const eyes = eyesOfMiddle(photo);
  let moved = false;
  canvas.width = photo.width;
  canvas.height = photo.height;
  canvas.getContext("2d").drawImage(photo, 0, 0);
  byId("stage").style.setProperty("--photo-shape", photo.width / photo.height);

  const refresh = () => {
    markers.forEach((marker, i) => {
      marker.style.left = `${(100 * eyes[i][0]) / photo.width}%`;
      marker.style.top = `${(100 * eyes[i][1]) / photo.height}%`;
    });
    drawAligned(aligned, photo, eyes);
  };
  const place = (i, x, y) => {
    eyes[i] = [Math.min(Math.max(x, 0), photo.width), Math.min(Math.max(y, 0), photo.height)];
    moved = true;
    refresh();
  };
  const done = new AbortController();
  const on = (target, type, listener) => target.addEventListener(type, listener, { signal: done.signal });
  markers.forEach((marker, i) => {
    on(marker, "pointerdown", (event) => marker.setPointerCapture(event.pointerId));
    on(marker, "pointermove", (event) => {
      if (!marker.hasPointerCapture(event.pointerId)) return;
      const box = canvas.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      place(i, x * photo.width, y * photo.height);
    });
    on(marker, "keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const size = (event.shiftKey ? 0.05 : 0.005) * Math.max(photo.width, photo.height);
      place(i, eyes[i][0] + size * step[0], eyes[i][1] + size * step[1]);
    });
  });
  refresh();
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    on(byId("align-use"), "click", () => dialog.close("use"));
    on(byId("align-cancel"), "click", () => dialog.close());
    on(dialog, "close", () => {
      done.abort();
      if (dialog.returnValue !== "use") resolve(undefined);
      // The server cuts to the middle by itself, without a detour over the browser's pixels.
      else if (!moved && file.size <= model.upload_bytes && smallEnough(photo)) resolve(file);
      else aligned.toBlob(resolve, "image/png");
    });
  });
}

/** Whether the photograph came without being made smaller, so that the server takes it too. */
function smallEnough(photo) {
  return Math.max(photo.width, photo.height) < LARGEST_SIDE;
}

/** Takes a picture with the camera. Resolves to it, or to nothing. */
async function takePhoto() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch {
    throw new Error("The camera cannot be used. Has the browser been allowed to?");
  }
  const dialog = byId("camera");
  const video = byId("viewfinder");
  video.srcObject = stream;
  await video.play();
  dialog.returnValue = "";
  dialog.showModal();
  const done = new AbortController();
  const on = (target, type, listener) => target.addEventListener(type, listener, { signal: done.signal });
  const taken = await new Promise((resolve) => {
    on(byId("camera-take"), "click", () => dialog.close("take"));
    on(byId("camera-cancel"), "click", () => dialog.close());
    on(dialog, "close", () => resolve(dialog.returnValue === "take"));
  });
  done.abort();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  stream.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  return taken ? new Promise((resolve) => canvas.toBlob(resolve, "image/png")) : undefined;
}
