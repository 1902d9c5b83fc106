// The tab for a walk through several pictures.

import * as api from "./api.js";
import { button, byId, clear, element, show } from "./dom.js";
import { addDownloads } from "./download.js";
import { addExamples } from "./examples.js";
import { StoredImage } from "./image.js";
import { attempt, newest } from "./message.js";
import { fill } from "./range.js";
import { addSource } from "./source.js";

const MAX_PICTURES = 6;
/** Maximum number of frames of the film strip and of the animation. */
const STRIP = 13;
const ANIMATION = 48;

let cards = [];
let nextCard = 1;
let model;
let downloads;

const images = () => cards.map((card) => card.image);
const closed = () => byId("mix-closed").checked;
const ready = () => cards.length > 1;
/** Pairs of neighbours. */
const pairs = () => cards.length - (closed() ? 0 : 1);

/** Frames from each picture to the next, for at most `wanted` frames in total, and their total. */
function framesFor(wanted) {
  const last = closed() ? 0 : 1;
  const each = Math.max(1, Math.floor((Math.min(wanted, model.images) - last) / pairs()));
  return [each, each * pairs() + last];
}

async function walk(wanted, format) {
  const [walked, [frames]] = [images(), framesFor(wanted)];
  const request = () => api.walk({ ids: walked.map(({ id }) => id), frames, closed: closed(), format });
  return StoredImage.with(walked, request);
}

/** The picture at the slider's position. */
async function mixture() {
  const at = Number(byId("walk").value);
  const pair = Math.min(Math.floor(at), pairs() - 1);
  const [a, b] = [cards[pair].image, cards[(pair + 1) % cards.length].image];
  return StoredImage.with([a, b], () => api.mix({ a: a.id, b: b.id, at: [at - pair] }));
}

const refresh = newest(async () => {
  if (!ready()) return;
  const mixed = await mixture();
  if (ready()) await show(byId("mixed"), mixed);
});

const refreshStrip = newest(async () => {
  if (!ready()) return;
  // A model of large images allows too few frames for a walk.
  if (framesFor(STRIP)[1] > model.images) return clear(byId("strip"));
  const strip = await walk(STRIP, "png");
  if (ready()) await show(byId("strip"), strip);
});

/** Shows the position: the pair of pictures and the distance between them. */
function tellWalk() {
  const walk = byId("walk");
  const at = Number(walk.value);
  const pair = Math.min(Math.floor(at), Math.max(pairs() - 1, 0));
  const share = Math.round(100 * (at - pair));
  const name = (i) => `${(i % Math.max(cards.length, 1)) + 1}`;
  const text = !ready() ? "" : share === 0 ? `picture ${name(pair)}`
    : share === 100 ? `picture ${name(pair + 1)}`
    : `${share} % from ${name(pair)} to ${name(pair + 1)}`;
  byId("walk-shown").textContent = text;
  walk.setAttribute("aria-valuetext", text);
  fill(walk);
}

/** Updates the tab after pictures were added, removed or moved. */
function changed() {
  byId("mix-cards").replaceChildren(...cards.map((card) => card.shown));
  cards.forEach((card, i) => card.place(i));
  const walk = byId("walk");
  walk.max = Math.max(pairs(), 1);
  walk.disabled = !ready();
  byId("mix-hint").hidden = ready();
  byId("mix-result").hidden = !ready();
  byId("mix-add").hidden = cards.length >= MAX_PICTURES;
  const possible = ready() && framesFor(ANIMATION)[1] <= model.images;
  downloads.disabled = !possible;
  tellWalk();
  if (!ready()) {
    clear(byId("mixed"));
    clear(byId("strip"));
  }
  return Promise.all([refresh(), refreshStrip()]);
}

/** Number of pictures that can still be added. */
export const room = () => MAX_PICTURES - cards.length;

/** Appends a picture once it can be shown. */
export async function use(image) {
  const card = makeCard(image);
  await card.show();
  if (room() === 0) throw new Error(`There are ${MAX_PICTURES} pictures already; remove one first.`);
  cards.push(card);
  if (cards.length === 2) byId("walk").value = 0.5;
  await changed();
}

function makeCard(image) {
  const number = nextCard++;
  const picture = element("img", { alt: "" });
  const caption = element("figcaption");
  const move = (by) => () => {
    const from = cards.indexOf(card);
    const to = from + by;
    if (to < 0 || to >= cards.length) return;
    [cards[from], cards[to]] = [cards[to], cards[from]];
    attempt(changed);
    // The button may be disabled by now.
    (by < 0 && to > 0 ? earlier : by > 0 && to < cards.length - 1 ? later : by < 0 ? later : earlier).focus();
  };
  const earlier = button("◀", move(-1));
  const later = button("▶", move(1));
  const remove = button("✕", () => {
    const at = cards.indexOf(card);
    cards = cards.filter((other) => other !== card);
    clear(picture);
    attempt(changed);
    (cards[Math.min(at, cards.length - 1)]?.shown.querySelector("button:last-of-type")
      ?? byId("mix-source-file")).focus();
  });
  const shown = element("figure", { className: "card" },
    element("div", { className: "picture" }, picture), caption,
    element("div", { className: "card-actions" }, earlier, later, remove));
  if (image.label !== undefined) {
    const choice = element("select", { id: `mix-class-${number}` },
      ...[...byId("class").options].map((option) => new Option(option.text, option.value)));
    choice.value = image.label;
    choice.addEventListener("change", () => attempt(async () => {
      const label = Number(choice.value);
      const changedTo = await card.image.withClass(label);
      // The answer may arrive after a later choice.
      if (label !== Number(choice.value)) return;
      card.image = changedTo;
      await card.show();
      await changed();
    }));
    shown.append(choice);
  }
  const card = {
    image,
    shown,
    show: async () => {
      const wanted = card.image;
      const decoded = await wanted.decode();
      // The picture may arrive after that of a later class.
      if (card.image === wanted) await show(picture, decoded);
    },
    place: (i) => {
      caption.textContent = `${i + 1}`;
      picture.alt = `Picture ${i + 1} of the walk`;
      earlier.setAttribute("aria-label", `Move picture ${i + 1} earlier`);
      later.setAttribute("aria-label", `Move picture ${i + 1} later`);
      remove.setAttribute("aria-label", `Remove picture ${i + 1}`);
      shown.querySelector("select")?.setAttribute("aria-label", `Class of picture ${i + 1}`);
      earlier.disabled = i === 0;
      later.disabled = i === cards.length - 1;
    },
  };
  return card;
}

/** Builds the tab. */
export function start(info) {
  model = info;
  const [height, width] = info.config.image;
  addSource(byId("mix-source"), "the walk", use, room);
  addExamples(byId("mix-examples"), "the walk", use);
  byId("walk").addEventListener("input", () => {
    tellWalk();
    refresh();
  });
  byId("mix-closed").addEventListener("change", () => attempt(changed));
  addDownloads(byId("mix-downloads"), "Download picture", {
    size: [width, height],
    name: () => ["mix"],
    picture: mixture,
  });
  downloads = addDownloads(byId("mix-downloads"), "Download walk", {
    size: [width, height],
    name: () => ["walk"],
    count: () => framesFor(ANIMATION)[1],
    frames: (format) => walk(ANIMATION, format),
  });
  attempt(changed);
}
