// Rows of example pictures to start from: likely images at a low temperature, the same at every visit.

import { element, show } from "./dom.js";
import { draw } from "./image.js";
import { attempt } from "./message.js";

const COUNT = 8;
/** Images of one request, from which the likeliest are chosen. There are fewer if they are large, for speed. */
const BATCH = { count: 16, pixels: 16 * 64 * 64 };
/** Likely images at a low temperature are smooth and seldom odd. */
const TEMPERATURE = 0.6;

const rows = [];
let model;
/** Counts the sets of examples: those of an earlier class are given up. */
let current = 0;
let found = [];

/** Tells this module what the model is. */
export function setExamples(info) {
  model = info;
}

/** Fills `place` with a row of examples; `use` gets the image of the one that is clicked. */
export function addExamples(place, name, use) {
  const buttons = Array.from({ length: COUNT }, (_, i) => {
    const made = element("button", { type: "button", disabled: true, ariaLabel: `Example ${i + 1} for ${name}` },
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

/** Scores that are not finite are null and come last. */
const likeliestFirst = (images) => images.sort((a, b) => (a.bits ?? Infinity) - (b.bits ?? Infinity));

/** Draws examples of the chosen class. Resolves to the likeliest one; the row is filled afterwards. */
export async function drawExamples() {
  const mine = ++current;
  const count = perRequest();
  const images = likeliestFirst(await draw({ count, temperature: TEMPERATURE, seed: 1, score: count > 1 }));
  const [first] = images;
  if (mine === current) attempt(() => fillRows(mine, images));
  return first;
}

async function fillRows(mine, images) {
  // Scores take longer than drawing, so further requests of few images do without.
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
