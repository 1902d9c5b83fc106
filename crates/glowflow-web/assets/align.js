// Photographs of faces: turned, scaled and cut so that the eyes lie where they do in the model's images.

import * as api from "./api.js";
import { byId, element, modal } from "./dom.js";
import { known } from "./faces.js";
import { placeMarkers } from "./markers.js";
import { cutSize } from "./photo.js";

/** Most faces of a photograph that are offered. */
const MAX_FACES = 12;

const dialog = byId("align");
byId("align-use").addEventListener("click", () => dialog.close("use"));
byId("align-cancel").addEventListener("click", () => dialog.close());

/** Where the model's eyes lie in a photograph that is cut to the middle, as fractions of it. */
function eyesOfMiddle(photo, { config: { image: [height, width] } }) {
  const scale = Math.min(photo.width / width, photo.height / height);
  return known().eyes.map(([x, y]) => [
    0.5 + ((x - 0.5) * width * scale) / photo.width,
    0.5 + ((y - 0.5) * height * scale) / photo.height,
  ]);
}

/** Draws the photograph so that its eyes, in fractions, lie where the model's do. */
function drawAligned(canvas, photo, eyes) {
  const [left, right] = eyes.map(([x, y]) => [x * photo.width, y * photo.height]);
  const [to, toRight] = known().eyes.map(([x, y]) => [x * canvas.width, y * canvas.height]);
  const [dx, dy] = [right[0] - left[0], right[1] - left[1]];
  const [ex, ey] = [toRight[0] - to[0], toRight[1] - to[1]];
  const length = Math.max(dx * dx + dy * dy, 1);
  // (a + ib) · (dx + i dy) = ex + i ey: the rotation and scale that take one pair of eyes to the other.
  const [a, b] = [(ex * dx + ey * dy) / length, (ey * dx - ex * dy) / length];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  // Fills the part that the photograph does not cover.
  context.drawImage(photo.bitmap, 0, 0, canvas.width, canvas.height);
  context.setTransform(a, b, -b, a, to[0] - a * left[0] + b * left[1], to[1] - b * left[0] - a * left[1]);
  context.drawImage(photo.bitmap, 0, 0);
  context.resetTransform();
}

/** Faces that the server finds, and what to tell the user. */
async function find(photo, model) {
  const byHand = "Drag the markers onto the eyes.";
  if (!model.detector) return [[], `${byHand} Without a face, leave them where they are.`];
  try {
    const { faces } = await api.findFaces(await photo.sendable(model));
    if (faces.length === 0) return [[], `No face was found. ${byHand}`];
    if (faces.length === 1) return [faces, "A face was found. Correct the markers if they are not on the eyes."];
    return [faces.slice(0, MAX_FACES), `${faces.length} faces were found. Choose one, and correct the markers if necessary.`];
  } catch {
    return [[], `Faces cannot be searched for at the moment. ${byHand}`];
  }
}

/** Lets the user place the eyes. Resolves to a picture to encode, or to undefined. */
export async function align(photo, model) {
  const [canvas, aligned, choice, status] = ["photo", "aligned", "align-faces", "align-status"].map(byId);
  const middle = eyesOfMiddle(photo, model);
  let eyes = middle;
  let touched = false;
  Object.assign(canvas, { width: photo.width, height: photo.height });
  canvas.getContext("2d").drawImage(photo.bitmap, 0, 0);
  byId("align-stage").style.setProperty("--photo-shape", photo.width / photo.height);
  [aligned.width, aligned.height] = cutSize(model);
  choice.replaceChildren();

  const done = new AbortController();
  const put = (positions) => {
    eyes = positions;
    drawAligned(aligned, photo, eyes);
  };
  const setMarkers = placeMarkers(canvas, [byId("eye-left"), byId("eye-right")], eyes, (positions) => {
    touched = true;
    put(positions);
  }, done.signal);
  const choose = (positions, chosen) => {
    setMarkers(positions);
    put(positions);
    for (const other of choice.children) other.setAttribute("aria-pressed", other === chosen);
  };
  byId("align-middle").addEventListener("click", () => choose(middle), { signal: done.signal });
  put(eyes);

  status.textContent = model.detector ? "Looking for faces…" : "";
  byId("align-use").disabled = true;
  const searched = find(photo, model).then(([faces, text]) => {
    if (done.signal.aborted) return;
    status.textContent = text;
    if (faces.length > 1) {
      for (const [i, face] of faces.entries()) {
        const preview = element("canvas", { height: 72, width: Math.round((72 * aligned.width) / aligned.height) });
        drawAligned(preview, photo, face.eyes);
        const chooser = element("button", { type: "button", ariaLabel: `Face ${i + 1}`, ariaPressed: "false" }, preview);
        chooser.addEventListener("click", () => choose(face.eyes, chooser));
        choice.append(chooser);
      }
    }
    if (faces.length > 0 && !touched) choose(faces[0].eyes, choice.firstElementChild);
    byId("align-use").disabled = false;
  });

  const answer = await modal(dialog);
  done.abort();
  if (answer !== "use") return undefined;
  await searched;
  // The server cuts to the middle by itself, without resampling by the browser.
  if (eyes === middle && photo.fits(model)) return photo.file;
  return new Promise((resolve) => aligned.toBlob(resolve, "image/png"));
}
