// The tab for scoring a photograph.

import { byId, element, show } from "./dom.js";
import { StoredImage } from "./image.js";
import { addSource, exactness } from "./source.js";

/** The most recently requested picture, which may not be shown yet. */
let wanted;
let model;
/** Counts requested pictures, so that a late answer does not replace a newer one. */
let changes = 0;

/** Builds the tab. */
export function start(info) {
  model = info;
  addSource(byId("score-source"), "scoring", use);
}

/** Scores a picture. A random picture has no original, so its own pixels are encoded. */
export async function use(image) {
  const change = ++changes;
  wanted = image;
  if (image.facts.bits_per_dim === undefined) {
    image = await StoredImage.encode(await image.decode(), image.label);
    if (change !== changes) return;
    wanted = image;
  }
  const [original, reconstruction, { picture: difference, gain }] = await Promise.all([
    image.decode("original"), image.decode(), image.decodeWithGain("difference"),
  ]);
  if (change !== changes) return;
  await Promise.all([
    show(byId("score-original"), original),
    show(byId("score-reconstruction"), reconstruction),
    show(byId("score-difference"), difference),
  ]);
  if (change !== changes) return;
  byId("score-gain").textContent =
    image.facts.exact ? "Difference: none" : `Difference, amplified ${gain} times`;
  tell(image);
}

/** Scores the same picture with another class. */
export async function changeClass(label) {
  if (!wanted) return;
  const change = ++changes;
  const changed = await wanted.withClass(label);
  if (change === changes) await use(changed);
}

function tell(image) {
  const { bits_per_dim: bits, standard_error: error, dequantization, draws } = image.facts;
  const test = model.evaluation ?? null;
  const facts = {
    "This picture": `${bits.toFixed(3)}${error === null ? "" : ` ± ${error.toFixed(3)}`} bits/dim`,
    "Test images": test === null ? "not measured" : `${test.bits_per_dim.toFixed(3)} bits/dim on average`,
    "Reconstruction": exactness(image),
  };
  byId("score-facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  byId("score-how").textContent =
    `Bits/dim is an upper bound, with ${dequantization} dequantisation: the mean of ${draws} ${draws === 1 ? "draw" : "draws"}` +
    `${error === null ? "" : " ± its standard error"}.${test === null ? "" : ` ${compare(bits - test.bits_per_dim)}`}`;
  byId("score-result").hidden = false;
}

function compare(more) {
  const amount = Math.abs(more).toFixed(3);
  if (Number(amount) === 0) return "The picture is as likely under the model as its test images on average.";
  return more > 0
    ? `The picture takes ${amount} bits/dim more than the test images on average: it is less like them, or more detailed.`
    : `The picture takes ${amount} bits/dim less than the test images on average: it is like them, or smoother.`;
}
