// The tab for sampling images.

import { byId, clear, element, show } from "./dom.js";
import { addDownloads } from "./download.js";
import { draw, randomSeed } from "./image.js";
import { newest } from "./message.js";
import { fill } from "./range.js";

/** Number of images sampled first, if the model allows it. */
const COUNT = 16;
/** The server supports larger seeds, but number fields do not. */
const MAX_SEED = 2 ** 53 - 1;

let refresh;
let opened = false;

/** Samples images when the tab is first opened, or once the model is known. */
export function openTab() {
  if (!opened) refresh?.();
  opened = true;
}

/** Samples the images again with another class. */
export function changeClass() {
  if (opened) refresh?.();
}

/** Builds the tab; `choose` receives the image that the user clicks. */
export function start(info, choose) {
  const [height, width] = info.config.image;
  const [count, seed, temperature, grid] = ["count", "seed", "temperature", "samples"].map(byId);
  let drawn = [];
  let drawnFrom;
  const makeButton = (i) => {
    const made = element("button",
      { type: "button", ariaLabel: `Sample ${i + 1}` }, element("img", { alt: "" }));
    made.addEventListener("click", () => drawn[i] && choose(drawn[i]));
    return made;
  };
  const resize = (count) => {
    while (grid.children.length > count) {
      clear(grid.lastElementChild.firstChild);
      grid.lastElementChild.remove();
    }
    while (grid.children.length < count) grid.append(makeButton(grid.children.length));
  };
  const whole = (field, most) => {
    const value = Math.round(Number(field.value));
    return Number.isFinite(value) ? Math.min(Math.max(value, Number(field.min)), most) : Number(field.min);
  };

  Object.assign(count, { max: info.images, value: Math.min(COUNT, info.images) });
  Object.assign(seed, { max: MAX_SEED, value: randomSeed() });
  refresh = newest(async () => {
    const request = {
      count: whole(count, info.images), temperature: Number(temperature.value), seed: whole(seed, MAX_SEED) };
    const images = await draw(request);
    const pictures = await Promise.all(images.map((image) => image.decode()));
    [drawn, drawnFrom] = [images, request.seed];
    resize(images.length);
    await Promise.all(pictures.map((picture, i) => show(grid.children[i].firstChild, picture)));
    downloads.disabled = false;
  });
  const downloads = addDownloads(byId("sample-downloads"), "Download all", {
    size: [width, height],
    name: () => ["samples", "seed", `${drawnFrom}`],
    picture: () => sheet(grid, [width, height]),
  });
  downloads.disabled = true;
  temperature.addEventListener("input", () => {
    byId("temperature-shown").textContent = Number(temperature.value).toFixed(2);
    fill(temperature);
    refresh();
  });
  fill(temperature);
  for (const [field, most] of [[count, info.images], [seed, MAX_SEED]]) {
    field.addEventListener("input", () => field.value !== "" && refresh());
    field.addEventListener("change", () => {
      field.value = whole(field, most);
    });
  }
  byId("draw").addEventListener("click", () => {
    seed.value = randomSeed();
    refresh();
  });
  if (opened) refresh();
}

/** All pictures of the grid in one image. */
async function sheet(grid, [width, height]) {
  const images = [...grid.querySelectorAll("img")];
  const columns = Math.ceil(Math.sqrt(images.length));
  const canvas = element("canvas",
    { width: columns * width, height: Math.ceil(images.length / columns) * height });
  const context = canvas.getContext("2d");
  images.forEach((image, i) =>
    context.drawImage(image, (i % columns) * width, Math.floor(i / columns) * height, width, height));
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
