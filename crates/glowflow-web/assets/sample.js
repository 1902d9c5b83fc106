// The tab that draws images.

import { newest, sample, show } from "./api.js";
import { fill } from "./range.js";
import { randomSeed } from "./source.js";

/** Images that are drawn, where the model allows so many in one request. */
const COUNT = 16;

const byId = (id) => document.getElementById(id);
let seed = randomSeed();

/** Builds the tab; `choose` gets the image that the user clicks. */
export function start({ images }, choose) {
  const count = Math.min(COUNT, images);
  let drawn = [];
  const buttons = Array.from({ length: count }, (_, i) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    image.alt = "";
    button.setAttribute("aria-label", `Sample ${i + 1}`);
    button.append(image);
    button.addEventListener("click", () => drawn[i] && choose(drawn[i]));
    return button;
  });
  byId("samples").append(...buttons);
  const refresh = newest(async () => {
    drawn = await sample(count, Number(byId("temperature").value), seed);
    await Promise.all(drawn.map(async (image, i) => show(buttons[i].firstChild, await image.decode())));
  });
  byId("temperature").addEventListener("input", () => {
    byId("temperature-shown").textContent = Number(byId("temperature").value).toFixed(2);
    fill(byId("temperature"));
    refresh();
  });
  fill(byId("temperature"));
  byId("draw").addEventListener("click", () => {
    seed = randomSeed();
    refresh();
  });
  return refresh;
}
