// Aligns photographs of faces: rotates, scales and crops them so that the eyes are where the model's images
// have them.

import * as api from "./api.js";
import { byId, element, modal } from "./dom.js";
import { known } from "./faces.js";
import { placeMarkers } from "./markers.js";
import { cutSize } from "./photo.js";

/** Maximum number of faces offered per photograph. */
const MAX_FACES = 12;
/** Side of the region shown around a face, in multiples of the crop's side. */
const SHOWN_CROPS = 2.5;
/**
 * If the distance between the eyes is below this fraction of the face's width, the face counts as a profile.
 */
const PROFILE = 0.25;

const dialog = byId("align");
byId("align-use").addEventListener("click", () => dialog.close("use"));
byId("align-cancel").addEventListener("click", () => dialog.close());

/** Position of the model's eyes in a centre-cropped photograph, as fractions of the photograph. */
function eyesOfMiddle(photo, { config: { image: [height, width] } }) {
  const scale = Math.min(photo.width / width, photo.height / height);
  return known().eyes.map(([x, y]) => [
    0.5 + ((x - 0.5) * width * scale) / photo.width,
    0.5 + ((y - 0.5) * height * scale) / photo.height,
  ]);
}

/** The similarity transform that maps the photograph's eyes, in fractions, to the model's on a canvas. */
function similarity({ width, height }, photo, eyes) {
  const [left, right] = eyes.map(([x, y]) => [x * photo.width, y * photo.height]);
  const [to, toRight] = known().eyes.map(([x, y]) => [x * width, y * height]);
  const [dx, dy] = [right[0] - left[0], right[1] - left[1]];
  const [ex, ey] = [toRight[0] - to[0], toRight[1] - to[1]];
  const length = Math.max(dx * dx + dy * dy, 1);
  // (a + ib) · (dx + i dy) = ex + i ey: the rotation and scale that map one pair of eyes to the other.
  const [a, b] = [(ex * dx + ey * dy) / length, (ey * dx - ex * dy) / length];
  return [a, b, -b, a, to[0] - a * left[0] + b * left[1], to[1] - b * left[0] - a * left[1]];
}

/** Canvas pixels per pixel of the photograph. */
const scaleOf = ([a, b]) => Math.max(Math.hypot(a, b), 1e-6);

/** The photograph and its reflections at the edges; the photograph is drawn last. */
const REFLECTIONS = [[-1, -1], [1, -1], [-1, 1], [1, 1], [-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]];

/**
 * Draws the photograph with its eyes, in fractions, at the model's positions. Beyond its edges it is
 * reflected.
 */
function drawAligned(canvas, photo, eyes) {
  const context = canvas.getContext("2d");
  const transform = similarity(canvas, photo, eyes);
  // Reflections extend one canvas pixel under the photograph, so that no seam shows.
  const overlap = 1 / scaleOf(transform);
  context.imageSmoothingQuality = "high";
  // Transparent parts are white.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  for (const [column, row] of REFLECTIONS) {
    context.setTransform(...transform);
    context.translate(
      (column > 0 ? 2 * photo.width : 0) - column * overlap,
      (row > 0 ? 2 * photo.height : 0) - row * overlap);
    context.scale(column === 0 ? 1 : -1, row === 0 ? 1 : -1);
    context.drawImage(photo.bitmap, 0, 0);
  }
  context.resetTransform();
}

/** The whole photograph, as left, top, width and height in its pixels. */
const whole = ({ width, height }) => [0, 0, width, height];

/** The region around a face that is shown for placing the markers. */
function around(photo, eyes, cut) {
  const scale = scaleOf(similarity(cut, photo, eyes));
  const [width, height] = [cut.width, cut.height].map((side) => (SHOWN_CROPS * side) / scale);
  const between = [0, 1].map((axis) => (eyes[0][axis] + eyes[1][axis]) / 2);
  const [w, h] = [Math.min(width, photo.width), Math.min(height, photo.height)];
  const start = (middle, side, all) => Math.min(Math.max(middle * all - side / 2, 0), all - side);
  return [start(between[0], w, photo.width), start(between[1], h, photo.height), w, h];
}

/** Returns whether the eyes of a face are as close as in a profile. */
function isProfile({ eyes: [left, right], box }, photo) {
  if (!box) return false;
  const apart = Math.hypot((right[0] - left[0]) * photo.width, (right[1] - left[1]) * photo.height);
  return apart < PROFILE * (box[2] - box[0]) * photo.width;
}

/** The faces detected by the server, and a message for the user. */
async function find(photo, model) {
  const byHand = "Drag the markers onto the eyes.";
  if (!model.detector) return [[], `${byHand} If there is no face, leave the markers where they are.`];
  try {
    const { faces } = await api.findFaces(await photo.sendable(model));
    if (faces.length === 0) return [[], `No face was found. ${byHand}`];
    if (faces.length === 1)
      return [faces, "A face was found. Correct the markers if they are not on the eyes."];
    return [faces.slice(0, MAX_FACES),
      `${faces.length} faces were found. Choose one, and correct the markers if necessary.`];
  } catch {
    return [[], `Face detection is unavailable at the moment. ${byHand}`];
  }
}

/** Lets the user place the eyes. Resolves to a picture to encode, or to undefined. */
export async function align(photo, model) {
  const [canvas, aligned, choice, status] = ["photo", "aligned", "align-faces", "align-status"].map(byId);
  const middle = eyesOfMiddle(photo, model);
  let eyes = middle;
  let touched = false;
  let view;
  const show = (part) => {
    view = part;
    const [, , width, height] = view;
    Object.assign(canvas, { width: Math.max(1, Math.round(width)), height: Math.max(1, Math.round(height)) });
    canvas.getContext("2d").drawImage(photo.bitmap, ...view, 0, 0, canvas.width, canvas.height);
    byId("align-stage").style.setProperty("--photo-shape", width / height);
    byId("align-whole").hidden = width === photo.width && height === photo.height;
  };
  // Marker positions are relative to the region shown.
  const sides = [photo.width, photo.height];
  const shownAt = (position) => position.map((x, axis) => (x * sides[axis] - view[axis]) / view[axis + 2]);
  const photoAt = (position) => position.map((x, axis) => (view[axis] + x * view[axis + 2]) / sides[axis]);
  show(whole(photo));
  [aligned.width, aligned.height] = cutSize(model);
  choice.replaceChildren();

  const done = new AbortController();
  const put = (positions) => {
    eyes = positions;
    drawAligned(aligned, photo, eyes);
  };
  const setMarkers = placeMarkers(canvas, [byId("eye-left"), byId("eye-right")], eyes, (positions) => {
    touched = true;
    put(positions.map(photoAt));
  }, done.signal);
  const showPart = (part) => {
    show(part);
    setMarkers(eyes.map(shownAt));
  };
  const choose = (positions, part, chosen) => {
    put(positions);
    showPart(part);
    for (const other of choice.children) other.setAttribute("aria-pressed", other === chosen);
  };
  const chooseFace = (face, chosen) => {
    choose(face.eyes, around(photo, face.eyes, aligned), chosen);
    byId("align-profile").hidden = !isProfile(face, photo);
  };
  byId("align-profile").hidden = true;
  byId("align-middle").addEventListener("click", () => {
    choose(middle, whole(photo));
    byId("align-profile").hidden = true;
  }, { signal: done.signal });
  byId("align-whole").addEventListener("click", () => showPart(whole(photo)), { signal: done.signal });
  put(eyes);

  status.textContent = model.detector ? "Looking for faces…" : "";
  byId("align-use").disabled = true;
  const searched = find(photo, model).then(([faces, text]) => {
    if (done.signal.aborted) return;
    status.textContent = text;
    if (faces.length > 1) {
      for (const [i, face] of faces.entries()) {
        const preview = element("canvas",
          { height: 72, width: Math.round((72 * aligned.width) / aligned.height) });
        drawAligned(preview, photo, face.eyes);
        const chooser = element("button",
          { type: "button", ariaLabel: `Face ${i + 1}`, ariaPressed: "false" }, preview);
        chooser.addEventListener("click", () => chooseFace(face, chooser));
        choice.append(chooser);
      }
    }
    if (faces.length > 0 && !touched) chooseFace(faces[0], choice.firstElementChild);
    byId("align-use").disabled = false;
  });

  const answer = await modal(dialog);
  done.abort();
  if (answer !== "use") return undefined;
  await searched;
  // The server crops to the centre itself, without resampling by the browser.
  if (eyes === middle && photo.fits(model)) return photo.file;
  return new Promise((resolve) => aligned.toBlob(resolve, "image/png"));
}
