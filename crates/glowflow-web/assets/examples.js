// Rows of example pictures to start from: likely images at a low temperature, the same at every visit.

import { element, show } from "./dom.js";
import { draw } from "./image.js";
import { attempt } from "./message.js";

const COUNT = 8;
/** Images of one request: fewer if they are large, so that the page does not wait. */
const BATCH = { count: 8, pixels: 8 * 64 * 64 };
/** Images per example that they are chosen from, if several are drawn at once. */
const CHOSEN_FROM = 2;
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

/** Draws one batch, the likeliest first. Scores that are not finite are null and come last. */
async function batch(seed) {
  const count = perRequest();
  const drawn = await draw({ count, temperature: TEMPERATURE, seed, score: count > 1 });
  return likeliestFirst(drawn);
}

const likeliestFirst = (images) => images.sort((a, b) => (a.bits ?? Infinity) - (b.bits ?? Infinity));

/** Draws examples of the chosen class. Resolves to the first, likeliest one; the others follow while the page is used. */
export async function drawExamples() {
  const mine = ++current;
  const images = await batch(1);
  const [first] = images;
  if (mine === current) attempt(() => fillRows(mine, images));
  return first;
}

async function fillRows(mine, images) {
  const batches = Math.ceil((COUNT * (perRequest() > 1 ? CHOSEN_FROM : 1)) / perRequest());
  for (let seed = 2; seed <= batches; seed++) {
    images.push(...await batch(seed));
    if (mine !== current) return;
  }
  const chosen = likeliestFirst(images).slice(0, COUNT);
  const pictures = [];
  for (const image of chosen) pictures.push(await image.decode());
  if (mine !== current) return;
  found = chosen;
  await Promise.all(rows.flatMap((buttons) => buttons.map(async (made, i) => {
    await show(made.firstChild, pictures[i]);
    made.disabled = false;
  })));
}
