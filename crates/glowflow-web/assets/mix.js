// The tab that mixes two pictures.

import { Kept, attempt, newest, save, say, show } from "./api.js";
import { fill } from "./range.js";
import { addSource } from "./source.js";

/** Pictures in the film strip, where the model allows so many in one request. */
const STRIP = 7;
/** Pictures in the animation, one way, likewise. */
const FRAMES = 16;

const byId = (id) => document.getElementById(id);
const ends = {};
let most = 1;

/** From one end to the other; a single one is in the middle. */
const steps = (count) => (count < 2 ? [0.5] : Array.from({ length: count }, (_, i) => i / (count - 1)));

const refresh = newest(async () => {
  if (!ends.a || !ends.b) return;
  await show(byId("mixed"), await Kept.mix(ends.a, ends.b, [Number(byId("share").value)], "png"));
});

const refreshStrip = newest(async () => {
  if (!ends.a || !ends.b) return;
  await show(byId("strip"), await Kept.mix(ends.a, ends.b, steps(Math.min(STRIP, most)), "png"));
});

/** Builds the tab. */
export function start({ images }) {
  most = images;
  const put = (end) => async (kept) => {
    ends[end] = kept;
    await show(byId(`mix-${end}`), await kept.decode());
    byId("share").disabled = byId("gif").disabled = !ends.a || !ends.b;
    await Promise.all([refresh(), refreshStrip()]);
  };
  addSource(byId("mix-a-source"), "the first", put("a"));
  addSource(byId("mix-b-source"), "the second", put("b"));
  byId("share").addEventListener("input", () => {
    byId("share-shown").textContent = `${Math.round(100 * Number(byId("share").value))} %`;
    fill(byId("share"));
    refresh();
  });
  fill(byId("share"));
  byId("gif").addEventListener("click", () => attempt(async () => {
    say("Drawing…");
    // There and back, so that it has no end.
    const there = steps(Math.min(FRAMES, 1 + Math.floor(most / 2)));
    save(await Kept.mix(ends.a, ends.b, [...there, ...there.slice(1, -1).reverse()], "gif"), "mix.gif");
    say("");
  }));
}
