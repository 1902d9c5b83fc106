// Rows of example pictures: likely images at a low temperature, the same on every visit.

import { element, show } from "./dom.js";
import { draw } from "./image.js";
import { attempt } from "./message.js";

const COUNT = 8;
/**
 * Images per request, of which the likeliest are shown. Large images are requested in smaller numbers, for
 * speed.
 */
const BATCH = { count: 16, pixels: 16 * 64 * 64 };
/** Likely images at a low temperature are smooth and rarely odd. */
const TEMPERATURE = 0.6;

const rows = [];
let model;
/** Counts the sets of examples: sets for an earlier class are abandoned. */
let current = 0;
let found = [];

/** Sets the model. */
export function setExamples(info) {
  model = info;
}

/** Fills `place` with a row of examples; `use` receives the image that is clicked. */
export function addExamples(place, name, use) {
  const buttons = Array.from({ length: COUNT }, (_, i) => {
    const made = element("button",
      { type: "button", disabled: true, ariaLabel: `Example ${i + 1} for ${name}` },
      element("img", { alt: "", hidden: true }));
    made.addEventListener("click", () => found[i] && attempt(() => use(found[i])));
    return made;
  });
  place.append(...buttons);
  rows.push(buttons);
}

const perRequest = () => {
  const [height, width] = model.config.image;
  return Math.max(1, Math.min(BATCH.count, model.images, Math.floor(BATCH.pixels / (height * width))));
};

/** Scores that are not finite are null and sort last. */
const likeliestFirst = (images) => images.sort((a, b) => (a.bits ?? Infinity) - (b.bits ?? Infinity));

/** Samples examples of the chosen class. Resolves to the likeliest one; the row is filled afterwards. */
export async function drawExamples() {
  const mine = ++current;
  const count = perRequest();
  const images = likeliestFirst(await draw({ count, temperature: TEMPERATURE, seed: 1, score: count > 1 }));
  const [first] = images;
  if (mine === current) attempt(() => fillRows(mine, images));
  return first;
}

async function fillRows(mine, images) {
  // Scores take longer than sampling, so further requests of few images omit them.
  for (let seed = 2; images.length < COUNT; seed++) {
    images.push(...await draw({ count: perRequest(), temperature: TEMPERATURE, seed }));
    if (mine !== current) return;
  }
  const chosen = images.slice(0, COUNT);
  const pictures = [];
  for (const image of chosen) pictures.push(await image.decode());
  if (mine !== current) return;
  found = chosen;
  await Promise.all(rows.flatMap((buttons) => buttons.map(async (made, i) => {
    await show(made.firstChild, pictures[i]);
    made.disabled = false;
  })));
}
