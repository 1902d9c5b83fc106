// Asks the user for the eye positions in the model's images, on the mean picture.

import * as api from "./api.js";
import { byId, element, modal } from "./dom.js";
import { USUAL, known, onFaces, remember } from "./faces.js";
import { chosenClass, draw } from "./image.js";
import { placeMarkers } from "./markers.js";
import { attempt, newest, say } from "./message.js";

/** Height at which the mean picture is shown, and at which faces are detected in pictures. */
const SHOWN = 384;
/** Number of the model's pictures searched in addition, because the face in the mean picture is faint. */
const SEARCHED = { count: 8, temperature: 0.6, seed: 1 };
/** Number of detections from which the median is used; with fewer, the first one is used. */
const SEVERAL = 3;
/** A single detection with less slope than this is made level. */
const LEVEL = 0.15;
/** Minimum distance between the eyes as a fraction of the width. */
const MIN_APART = 0.02;

const dialog = byId("eyes");
let model;
let postponed = false;

for (const [id, answer] of [["eyes-save", "save"], ["eyes-none", "none"], ["eyes-later", ""]]) {
  byId(id).addEventListener("click", () => dialog.close(answer));
}

const shown = ([x, y]) => `${Math.round(100 * x)} % / ${Math.round(100 * y)} %`;

/** Prepares the dialog and, if the positions are unknown, shows the banner that opens it. */
export function startEyes(info) {
  model = info;
  const choice = byId("eyes-class");
  choice.append(...[...byId("class").options].map((option) => new Option(option.text, option.value)));
  byId("eyes-class-choice").hidden = choice.options.length === 0;
  const refresh = () => {
    const { faces, eyes } = known();
    byId("eyes-banner").hidden = postponed || faces !== null;
    byId("eyes-known").textContent = {
      true: () => `Photographs of faces are aligned: the eyes are placed at ${eyes.map(shown).join(" and ")} of width and height.`,
      false: () => "The pictures are not faces: photographs are cropped, not aligned.",
      null: () => "It is not known whether the pictures show faces.",
    }[faces]();
  };
  onFaces(refresh);
  refresh();
  byId("eyes-open").addEventListener("click", () => attempt(() => askEyes()));
  byId("eyes-change").addEventListener("click", () => attempt(() => askEyes("Cancel")));
  byId("eyes-not-faces").addEventListener("click", () => attempt(() => keep({ faces: false })));
  byId("eyes-postpone").addEventListener("click", () => {
    postponed = true;
    refresh();
  });
}

/** Asks once, when a photograph first needs the positions. */
export async function askEyesOnce() {
  if (known().faces === null && !postponed) await askEyes();
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};

/** The most likely eye positions, given the detections in the mean picture and in others. */
function likeliest(found) {
  if (found.length >= SEVERAL) {
    return [0, 1].map((side) => [0, 1].map((axis) => median(found.map((eyes) => eyes[side][axis]))));
  }
  const [left, right] = found[0];
  if (Math.abs(right[1] - left[1]) >= LEVEL * (right[0] - left[0])) return found[0];
  const y = (left[1] + right[1]) / 2;
  return [[left[0], y], [right[0], y]];
}

/** The eyes of the face in a picture of the model, as a list that is empty without a face. */
async function eyesIn(bitmap, { width, height }) {
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  // The result is a guess that the user corrects, so a failure is harmless.
  const { faces } = await api.findFaces(picture).catch(() => ({ faces: [] }));
  return faces.slice(0, 1).map(({ eyes }) => eyes);
}

/**
 * Asks for the eye positions and stores the answer. `cancel` is the label of the button that declines to
 * answer.
 */
async function askEyes(cancel = "Later") {
  const [canvas, choice] = [byId("mean"), byId("eyes-class")];
  const [height, width] = model.config.image;
  Object.assign(canvas, { height: SHOWN, width: Math.round((SHOWN * width) / height) });
  byId("eyes-stage").style.setProperty("--photo-shape", canvas.width / canvas.height);
  let eyes = known().eyes ?? USUAL;
  let touched = known().eyes !== null;
  const status = byId("eyes-status");
  const tell = (text) => {
    const far = Math.abs(eyes[1][0] - eyes[0][0]) >= MIN_APART;
    byId("eyes-save").disabled = !far;
    status.textContent = far ? text : "The markers are too close to each other.";
  };
  tell("");
  byId("eyes-later").textContent = cancel;
  const done = new AbortController();
  const setMarkers = placeMarkers(canvas, [byId("mean-left"), byId("mean-right")], eyes, (positions) => {
    touched = true;
    eyes = positions;
    tell("");
  }, done.signal);
  const search = async (mean, label) => {
    const asked = choice.value;
    const settled = () => touched || done.signal.aborted || choice.value !== asked;
    if (settled() || !model.detector) return;
    tell("Looking for the eyes…");
    const found = await eyesIn(mean, canvas);
    const count = Math.min(SEARCHED.count, model.images);
    for (const image of await draw({ ...SEARCHED, count, label }).catch(() => [])) {
      if (settled()) return;
      const bitmap = await createImageBitmap(await image.decode());
      found.push(...await eyesIn(bitmap, canvas));
      bitmap.close();
    }
    if (settled()) return;
    if (found.length > 0) {
      eyes = likeliest(found);
      setMarkers(eyes);
    }
    tell(found.length > 0 ? "A face was found. Correct the markers if they are not on the eyes."
      : "No face was found; place the markers.");
  };
  const refresh = newest(async () => {
    const label = choice.value === "" ? undefined : Number(choice.value);
    const [mean] = await draw({ count: 1, temperature: 0, seed: 1, label });
    const bitmap = await createImageBitmap(await mean.decode());
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    try {
      await search(bitmap, label);
    } finally {
      bitmap.close();
    }
  });
  choice.value = chosenClass() ?? "";
  choice.addEventListener("change", refresh, { signal: done.signal });
  refresh();
  const answer = await modal(dialog);
  done.abort();
  // The left one first, even if the markers have swapped sides.
  if (answer === "save") await keep({ faces: true, eyes: [...eyes].sort(([a], [b]) => a - b) });
  else if (answer === "none") await keep({ faces: false });
  else if (known().faces === null) {
    postponed = true;
    byId("eyes-banner").hidden = true;
  }
}

const keep = async (answer) => say(await remember(answer));
