// The tab with a slider for each attribute.

import { startCompare } from "./compare.js";
import { byId, element, show } from "./dom.js";
import { addDownloads, slug } from "./download.js";
import { addExamples } from "./examples.js";
import { History } from "./history.js";
import { chosenClass } from "./image.js";
import { attempt, newest } from "./message.js";
import { fill, snapToZero } from "./range.js";
import { addSource } from "./source.js";

/**
 * Range of the sliders in both directions; 1 is the distance between images without and with the attribute.
 */
const REACH = 2;
/** Maximum number of frames in an animation of an attribute. */
const SWEEP_FRAMES = 25;
/** Maximum number of attributes in a file name. */
const NAMED = 3;

const history = new History();
const sliders = new Map();
let image;
let amounts = {};
/** The most recently moved attribute, which an animation varies. */
let swept;
let downloads;
let sweepDownloads;
/** Counts changes of the picture, so that a late answer does not replace a newer one. */
let changes = 0;
/** Number of pictures that are being presented. */
let pending = 0;
/** Called with the class of the picture shown. */
let classShown;

const refresh = newest(async () => {
  const [changing, change] = [image, changes];
  if (!changing) return;
  const blob = await changing.manipulate({ ...amounts });
  if (change === changes && changing === image) await show(byId("changed"), blob);
});

/** Shows an image with changed attributes. */
async function present(shown, wanted) {
  const change = ++changes;
  pending++;
  try {
    const asked = { ...wanted };
    const original = await shown.decode();
    const changed = Object.keys(asked).length === 0 ? original : await shown.manipulate(asked);
    if (change !== changes) return false;
    image = shown;
    classShown(image.label);
    // A slider may have moved meanwhile.
    const moved = Object.keys({ ...asked, ...wanted }).some((name) => asked[name] !== wanted[name]);
    setAmounts(wanted);
    await Promise.all([
      show(byId("original"), original), show(byId("before"), original), show(byId("changed"), changed),
    ]);
    if (moved) refresh();
    downloads.disabled = false;
    byId("compare").disabled = false;
    return true;
  } finally {
    pending--;
  }
}

/** Shows an image with unchanged attributes. */
export async function use(shown) {
  if (await present(shown, {})) remember();
}

/** Shows the page's first image, unless the user has already chosen one. */
export async function begin(first) {
  const label = chosenClass();
  const shown = first.label === label ? first : await first.withClass(label);
  if (!image && pending === 0) await use(shown);
}

/** Shows the same picture with another class. */
export async function changeClass(label) {
  if (!image) return;
  const change = ++changes;
  const changed = await image.withClass(label);
  if (change === changes && await present(changed, amounts)) remember();
}

function setAmounts(wanted) {
  amounts = { ...wanted };
  for (const [name, { slider, tell }] of sliders) {
    slider.value = amounts[name] ?? 0;
    tell();
  }
  tellState();
}

function remember(kind) {
  history.push({ image, amounts: { ...amounts } }, kind);
  tellState();
}

function tellState() {
  byId("undo").disabled = !history.canUndo;
  byId("redo").disabled = !history.canRedo;
  byId("reset").disabled = !Object.values(amounts).some((amount) => amount !== 0);
}

function go(state) {
  if (!state) return;
  tellState();
  if (state.image === image) {
    changes++;
    setAmounts(state.amounts);
    refresh();
  } else {
    attempt(() => present(state.image, state.amounts));
  }
}

/** Parts of a file name: the attributes with the largest changes. */
function namedAfter() {
  const changed = Object.entries(amounts).filter(([, amount]) => amount !== 0);
  changed.sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  return changed.slice(0, NAMED).map(([name, amount]) => (amount < 0 ? `less-${slug(name)}` : slug(name)));
}

/** Builds the tab; `showClass` receives the class of each picture shown. */
export function start(info, showClass) {
  classShown = showClass;
  const [height, width] = info.config.image;
  addSource(byId("manipulate-source"), "changing", use);
  addExamples(byId("manipulate-examples"), "changing", use);
  startCompare();
  addSliders(info);
  byId("undo").addEventListener("click", () => go(history.undo()));
  byId("redo").addEventListener("click", () => go(history.redo()));
  byId("reset").addEventListener("click", () => {
    setAmounts({});
    if (!image) return;
    changes++;
    refresh();
    remember();
  });
  addEventListener("keydown", undoByKey);
  downloads = addDownloads(byId("manipulate-downloads"), "Download", {
    size: [width, height],
    name: namedAfter,
    picture: () => image.manipulate({ ...amounts }),
  });
  downloads.disabled = true;
  const frames = Math.min(SWEEP_FRAMES, info.images);
  if (frames >= 2 && info.attributes.length > 0) {
    sweepDownloads = addDownloads(byId("manipulate-downloads"), "Animate", {
      size: [width, height],
      name: () => [slug(swept), "sweep"],
      count: () => frames,
      frames: (format) =>
        image.sweep({ ...amounts, [swept]: -1 }, { ...amounts, [swept]: 1 }, frames, format),
    });
    tellSwept();
  }
}

function tellSwept() {
  if (!sweepDownloads) return;
  sweepDownloads.disabled = swept === undefined;
  sweepDownloads.title = swept === undefined
    ? "Move a slider first"
    : `Animates “${readable(swept)}” from less to more`;
}

function undoByKey(event) {
  if (byId("manipulate").hidden || document.querySelector("dialog[open]")) return;
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
  // Text fields handle undo themselves.
  if (event.target.matches("input:not([type=range], [type=checkbox], [type=file]), textarea")) return;
  const key = event.key.toLowerCase();
  if (key === "z") go(event.shiftKey ? history.redo() : history.undo());
  else if (key === "y") go(history.redo());
  else return;
  event.preventDefault();
}

const readable = (name) => name.replaceAll("_", " ");

function addSliders({ attributes }) {
  const form = byId("sliders");
  form.addEventListener("submit", (event) => event.preventDefault());
  if (attributes.length === 0) {
    form.append(element("p", {
      textContent: "This model has no attribute directions. The command `glowflow attributes` computes them from labelled images.",
    }));
    return;
  }
  const weak = element("details", {}, element("summary", { textContent: "Less reliable attributes" }));
  const bestFirst = [...attributes].sort((a, b) => (b.auc ?? 0) - (a.auc ?? 0));
  bestFirst.forEach((attribute, i) => (attribute.weak ? weak : form).append(makeSlider(attribute, i)));
  if (weak.children.length > 1) {
    weak.open = weak.children.length > bestFirst.length;
    form.append(weak);
  }
}

function makeSlider({ name, weak }, i) {
  const id = `slider-${i}`;
  const label = element("label", { textContent: readable(name), htmlFor: id });
  const shown = element("output", { htmlFor: id });
  const slider = element("input",
    { type: "range", id, min: -REACH, max: REACH, step: 0.01, value: 0, className: "bipolar" });
  slider.dataset.attribute = name;
  const row = element("div", { className: "slider" }, label, shown, slider);
  if (weak) {
    row.title = weak;
    row.append(element("small", { id: `${id}-weak`, textContent: `Weak: ${weak}` }));
    slider.setAttribute("aria-describedby", `${id}-weak`);
  }
  const tell = () => {
    const value = Number(slider.value);
    shown.textContent = value.toFixed(2).replace("-", "−");
    slider.setAttribute("aria-valuetext", shown.textContent);
    fill(slider);
  };
  snapToZero(slider);
  slider.addEventListener("input", () => {
    amounts[name] = Number(slider.value);
    if (amounts[name] === 0) delete amounts[name];
    swept = name;
    tellSwept();
    tellState();
    tell();
    refresh();
  });
  slider.addEventListener("change", () => image && remember(name));
  sliders.set(name, { slider, tell });
  tell();
  return row;
}
