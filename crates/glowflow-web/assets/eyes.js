// The question where the eyes are in the model's images, asked on the mean picture.

import * as api from "./api.js";
import { byId, modal } from "./dom.js";
import { USUAL, known, onFaces, remember } from "./faces.js";
import { chosenClass, draw } from "./image.js";
import { placeMarkers } from "./markers.js";
import { attempt, newest, say } from "./message.js";

/** Height at which the mean picture is shown, and searched for a face. */
const SHOWN = 384;

const dialog = byId("eyes");
let model;
let postponed = false;

for (const [id, answer] of [["eyes-save", "save"], ["eyes-none", "none"], ["eyes-later", ""]]) {
  byId(id).addEventListener("click", () => dialog.close(answer));
}

const shown = ([x, y]) => `${Math.round(100 * x)} % / ${Math.round(100 * y)} %`;

/** Prepares the question and, if it is open, shows the banner that leads to it. */
export function startEyes(info) {
  model = info;
  const choice = byId("eyes-class");
  choice.append(...[...byId("class").options].map((option) => new Option(option.text, option.value)));
  byId("eyes-class-choice").hidden = choice.options.length === 0;
  const refresh = () => {
    const { faces, eyes } = known();
    byId("eyes-banner").hidden = postponed || faces !== null;
    byId("eyes-known").textContent = {
      true: () => `Photographs of faces are aligned: the eyes are put at ${eyes.map(shown).join(" and ")} of width and height.`,
      false: () => "The pictures are not faces: photographs are cut, not aligned.",
      null: () => "It is not known whether the pictures show faces.",
    }[faces]();
  };
  onFaces(refresh);
  refresh();
  byId("eyes-open").addEventListener("click", () => attempt(askEyes));
  byId("eyes-change").addEventListener("click", () => attempt(askEyes));
  byId("eyes-not-faces").addEventListener("click", () => attempt(() => keep({ faces: false })));
  byId("eyes-postpone").addEventListener("click", () => {
    postponed = true;
    refresh();
  });
}

/** Asks when a photograph needs the answer, once. */
export async function askEyesOnce() {
  if (known().faces === null && !postponed) await askEyes();
}

/** Asks where the eyes are, and stores the answer. */
async function askEyes() {
  const [canvas, choice] = [byId("mean"), byId("eyes-class")];
  const [height, width] = model.config.image;
  Object.assign(canvas, { height: SHOWN, width: Math.round((SHOWN * width) / height) });
  byId("eyes-stage").style.setProperty("--photo-shape", canvas.width / canvas.height);
  let eyes = known().eyes ?? USUAL;
  let touched = known().eyes !== null;
  const done = new AbortController();
  const setMarkers = placeMarkers(canvas, [byId("mean-left"), byId("mean-right")], eyes, (positions) => {
    touched = true;
    eyes = positions;
  }, done.signal);
  const refresh = newest(async () => {
    const label = choice.value === "" ? undefined : Number(choice.value);
    const [mean] = await draw({ count: 1, temperature: 0, seed: 1, label });
    const bitmap = await createImageBitmap(await mean.decode());
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    if (touched || !model.detector) return;
    const picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    // A guess that the user corrects, so that a failure does no harm.
    const { faces: [face] } = await api.findFaces(picture).catch(() => ({ faces: [] }));
    if (!face || touched || done.signal.aborted) return;
    eyes = face.eyes;
    setMarkers(eyes);
  });
  choice.value = chosenClass() ?? "";
  choice.addEventListener("change", refresh, { signal: done.signal });
  refresh();
  const answer = await modal(dialog);
  done.abort();
  // The left one first, even if the markers have changed sides.
  if (answer === "save") await keep({ faces: true, eyes: [...eyes].sort(([a], [b]) => a - b) });
  else if (answer === "none") await keep({ faces: false });
  else postponed = true;
  byId("eyes-banner").hidden = true;
}

async function keep(answer) {
  const withModel = await remember(answer);
  say(withModel ? "The answer is stored with the model." : "This browser remembers the answer.");
}
