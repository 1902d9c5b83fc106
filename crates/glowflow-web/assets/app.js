// The page: tabs, the choice of the class, and dispatch of dropped pictures.

import * as about from "./about.js";
import { info as ask } from "./api.js";
import { byId } from "./dom.js";
import { startDrop } from "./drop.js";
import { drawExamples, setExamples } from "./examples.js";
import { startEyes } from "./eyes.js";
import { setFaces } from "./faces.js";
import { chosenClass } from "./image.js";
import * as manipulate from "./manipulate.js";
import { attempt, say } from "./message.js";
import * as mix from "./mix.js";
import * as samples from "./sample.js";
import * as score from "./score.js";
import { setModel, usePhotos } from "./source.js";

const INTRODUCED = "glowflow-introduced";

const tabs = [...document.querySelectorAll("[role=tab]")];

function open(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    byId(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (tab.id === "tab-sample") samples.openTab();
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => {
    say("");
    open(tab);
  });
  tab.addEventListener("keydown", (event) => {
    const next = {
      ArrowLeft: i + tabs.length - 1, ArrowRight: i + 1, Home: 0, End: tabs.length - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const to = tabs[next % tabs.length];
    open(to);
    to.focus();
  });
});

/** Uses dropped or pasted pictures in the open tab, or in the first one if that takes none. */
function receive(files) {
  const taking = { mix: mix.use, score: score.use };
  const [id] = Object.keys(taking).filter((id) => !byId(id).hidden);
  if (!id) open(byId("tab-manipulate"));
  if (id === "mix") return attempt(() => usePhotos(files, mix.use, mix.room));
  return attempt(() => usePhotos(files.slice(0, 1), taking[id] ?? manipulate.use));
}

function introduce() {
  try {
    byId("intro").hidden = localStorage.getItem(INTRODUCED) !== null;
  } catch {
    byId("intro").hidden = false;
  }
  byId("intro-close").addEventListener("click", () => {
    byId("intro").hidden = true;
    try {
      localStorage.setItem(INTRODUCED, "yes");
    } catch {
      // A browser without storage shows the introduction again.
    }
  });
}

/** Fills the choice of the class, which applies to everything shown. */
function startClasses({ config: { classes }, class_names: names = [] }) {
  const choice = byId("class");
  byId("class-choice").hidden = !classes;
  for (let i = 0; i < classes; i++) choice.add(new Option(names[i] ?? `Class ${i}`, i));
  choice.addEventListener("change", () => {
    attempt(() => manipulate.changeClass(chosenClass()));
    followClass();
  });
}

/** Updates everything except the manipulated picture to the chosen class. */
function followClass() {
  samples.changeClass();
  attempt(() => score.changeClass(chosenClass()));
  attempt(drawExamples);
}

/** Selects the class of the picture shown, for example after an undo. */
function showClass(label) {
  if (label === chosenClass()) return;
  byId("class").value = label;
  followClass();
}

introduce();
attempt(async () => {
  const info = await ask();
  const [height, width] = info.config.image;
  document.documentElement.style.setProperty("--shape", `${width} / ${height}`);
  document.documentElement.style.setProperty("--aspect", width / height);
  startClasses(info);
  setModel(info);
  setFaces(info);
  setExamples(info);
  about.start(info);
  startEyes(info);
  manipulate.start(info, showClass);
  mix.start(info);
  score.start(info);
  samples.start(info, (image) => {
    open(byId("tab-manipulate"));
    byId("tab-manipulate").focus();
    attempt(() => manipulate.use(image));
  });
  startDrop(receive);
  await manipulate.begin(await drawExamples());
});
