// Crops photographs of anything but faces to the model's shape.

import { byId, modal } from "./dom.js";
import { cutSize } from "./photo.js";
import { fill } from "./range.js";

const dialog = byId("crop");
byId("crop-use").addEventListener("click", () => dialog.close("use"));
byId("crop-cancel").addEventListener("click", () => dialog.close());

/** Step of the arrow keys, as a fraction of the picture, and zoom factor of + and −. */
const STEP = 0.02;
const ZOOM = 1.1;

/** Lets the user crop a photograph. Resolves to a picture to encode, or to undefined. */
export async function crop(photo, model) {
  const [canvas, slider] = [byId("cropped"), byId("crop-zoom")];
  [canvas.width, canvas.height] = cutSize(model);
  canvas.style.setProperty("--photo-shape", canvas.width / canvas.height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  // Photograph pixels per canvas pixel when the whole shorter side is used.
  const widest = Math.min(photo.width / canvas.width, photo.height / canvas.height);
  let zoom = 1;
  let [x, y] = [photo.width / 2, photo.height / 2];
  let touched = false;

  const refresh = () => {
    const [width, height] = [canvas.width, canvas.height].map((side) => (side * widest) / zoom);
    x = Math.min(Math.max(x, width / 2), photo.width - width / 2);
    y = Math.min(Math.max(y, height / 2), photo.height - height / 2);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(
      photo.bitmap, x - width / 2, y - height / 2, width, height, 0, 0, canvas.width, canvas.height);
    slider.value = Math.log2(zoom);
    fill(slider);
  };
  /** Moves by fractions of the visible part, then zooms by a factor. */
  const change = (dx, dy, factor = 1) => {
    touched = true;
    x -= (dx * canvas.width * widest) / zoom;
    y -= (dy * canvas.height * widest) / zoom;
    zoom = Math.min(Math.max(zoom * factor, 1), 2 ** Number(slider.max));
    refresh();
  };

  const done = new AbortController();
  const on = (target, type, listener) => target.addEventListener(type, listener, { signal: done.signal });
  const pointers = new Map();
  const spread = () => {
    const [[ax, ay], [bx, by]] = [...pointers.values()];
    return Math.hypot(ax - bx, ay - by);
  };
  on(canvas, "pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (pointers.size < 2) pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  on(canvas, "pointermove", (event) => {
    const from = pointers.get(event.pointerId);
    if (!from) return;
    const before = pointers.size === 2 ? spread() : 0;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const box = canvas.getBoundingClientRect();
    // With two fingers, each moves the picture by half.
    const part = 1 / pointers.size;
    const factor = before > 0 ? spread() / before : 1;
    change(
      (part * (event.clientX - from[0])) / box.width,
      (part * (event.clientY - from[1])) / box.height, factor);
  });
  for (const end of ["pointerup", "pointercancel"])
    on(canvas, end, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    change(0, 0, ZOOM ** (event.deltaY < 0 ? 1 : -1));
  }, { signal: done.signal, passive: false });
  on(canvas, "keydown", (event) => {
    const moves = {
      ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP],
      "+": [0, 0, ZOOM], "=": [0, 0, ZOOM], "-": [0, 0, 1 / ZOOM],
    }[event.key];
    if (!moves) return;
    event.preventDefault();
    change(...moves);
  });
  on(slider, "input", () => change(0, 0, 2 ** Number(slider.value) / zoom));
  refresh();

  const answer = await modal(dialog);
  done.abort();
  if (answer !== "use") return undefined;
  // The server crops to the centre itself, without resampling by the browser.
  if (!touched && photo.fits(model)) return photo.file;
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
