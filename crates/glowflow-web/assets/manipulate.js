// The tab with a slider for each attribute.

import { newest, show } from "./api.js";
import { fill } from "./range.js";
import { addSource, drawFirst } from "./source.js";

/** Directions that tell images apart less well than this come last. */
const WEAK = 0.75;

const byId = (id) => document.getElementById(id);
const amounts = {};
let image;

async function showChanged(blob) {
  await show(byId("changed"), blob);
  const link = byId("download");
  link.href = byId("changed").src;
  link.setAttribute("aria-disabled", "false");
}

const refresh = newest(async () => {
  const changing = image;
  if (!changing) return;
  const blob = await changing.manipulate({ ...amounts });
  if (changing === image) await showChanged(blob);
});

/** Shows an image, with all attributes as they are. */
export async function use(kept) {
  const blob = await kept.decode();
  image = kept;
  clear();
  await Promise.all([show(byId("original"), blob), showChanged(blob)]);
}

function clear() {
  for (const name of Object.keys(amounts)) delete amounts[name];
  for (const slider of byId("sliders").querySelectorAll("input")) {
    slider.value = 0;
    slider.dispatchEvent(new Event("shown"));
  }
  byId("reset").disabled = true;
}

/** Builds the tab, and begins with an image of the model's own. */
export async function start(info) {
  addSource(byId("manipulate-source"), "changing", use);
  const form = byId("sliders");
  form.addEventListener("submit", (event) => event.preventDefault());
  const weak = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "Attributes that the model tells apart less well";
  weak.append(summary);
  const bestFirst = [...info.attributes].sort((a, b) => (b.auc ?? 0) - (a.auc ?? 0));
  bestFirst.forEach((attribute, i) => {
    const slider = makeSlider(attribute, i);
    (attribute.auc !== null && attribute.auc < WEAK ? weak : form).append(slider);
  });
  if (weak.children.length > 1) form.append(weak);
  if (info.attributes.length === 0) {
    form.textContent =
      "This model has no attribute directions. Find them with `glowflow attributes` from labelled images, and start again.";
  }
  byId("reset").addEventListener("click", () => {
    clear();
    refresh();
  });
  const first = await drawFirst();
  if (!image) await use(first);
}

function makeSlider({ name }, i) {
  const row = document.createElement("div");
  row.className = "slider";
  const label = document.createElement("label");
  label.textContent = name.replaceAll("_", " ");
  label.htmlFor = `slider-${i}`;
  const shown = document.createElement("output");
  shown.htmlFor = label.htmlFor;
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", id: label.htmlFor, min: -1, max: 1, step: 0.01, value: 0 });
  slider.dataset.attribute = name;
  const tell = () => {
    shown.textContent = Number(slider.value).toFixed(2);
    fill(slider);
  };
  slider.addEventListener("shown", tell);
  slider.addEventListener("input", () => {
    amounts[name] = Number(slider.value);
    byId("reset").disabled = false;
    tell();
    refresh();
  });
  tell();
  row.append(label, shown, slider);
  return row;
}
