// The tab that mixes two pictures.

import { Kept, attempt, newest, save, say, show } from "./api.js";
import { addSource } from "./source.js";

/** Pictures in the film strip. */
const STRIP = 7;
/** Pictures in the animation, one way. */
const FRAMES = 16;

const byId = (id) => document.getElementById(id);
const ends = {};

const steps = (count) => Array.from({ length: count }, (_, i) => i / (count - 1));

const refresh = newest(async () => {
  if (!ends.a || !ends.b) return;
  await show(byId("mixed"), await Kept.mix(ends.a, ends.b, [Number(byId("share").value)], "png"));
});

const refreshStrip = newest(async () => {
  if (!ends.a || !ends.b) return;
  await show(byId("strip"), await Kept.mix(ends.a, ends.b, steps(STRIP), "png"));
});

/** Builds the tab. */
export function start() {
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
    refresh();
  });
  byId("gif").addEventListener("click", () => attempt(async () => {
    say("Drawing…");
    // There and back, so that it has no end.
    const there = steps(FRAMES);
    save(await Kept.mix(ends.a, ends.b, [...there, ...there.slice(1, -1).reverse()], "gif"), "mix.gif");
    say("");
  }));
}
