// The page: tabs, and what the model is.

import { attempt, info as ask } from "./api.js";
import * as manipulate from "./manipulate.js";
import * as mix from "./mix.js";
import * as samples from "./sample.js";
import { setModel } from "./source.js";

const byId = (id) => document.getElementById(id);
const tabs = [...document.querySelectorAll("[role=tab]")];
const opened = {};

function open(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    byId(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  const first = opened[tab.id];
  delete opened[tab.id];
  first?.();
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => open(tab));
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

function tellAbout({ config, parameters, bits_per_dim, inverse_error, attributes }) {
  const [height, width, channels] = config.image;
  const known = (value, text) => (value === null ? "not measured" : text(value));
  const facts = {
    Images: `${width} × ${height}, ${channels === 1 ? "grey" : "colour"}, ${config.bits} bits`,
    Architecture: `${config.levels} levels of ${config.steps} steps, hidden ${config.hidden}, ${config.coupling} coupling, ` +
      `${config.permutation}`,
    Classes: config.classes || "none",
    Parameters: parameters.toLocaleString("en"),
    "Bits per dimension": known(bits_per_dim, (bits) => bits.toFixed(3)),
    "Inverse error": known(inverse_error, (error) => error.toExponential(1)),
  };
  for (const [name, value] of Object.entries(facts)) {
    const term = document.createElement("dt");
    term.textContent = name;
    const description = document.createElement("dd");
    description.textContent = value;
    byId("facts").append(term, description);
  }
  byId("directions-known").hidden = attributes.length === 0;
  for (const { name, positives, negatives, auc } of attributes) {
    const row = byId("attributes").insertRow();
    const cells = [name.replaceAll("_", " "), positives, negatives, known(auc, (auc) => auc.toFixed(3))];
    for (const text of cells) row.insertCell().textContent = text;
  }
}

attempt(async () => {
  const info = await ask();
  const [height, width] = info.config.image;
  document.documentElement.style.setProperty("--shape", `${width} / ${height}`);
  const choice = byId("class");
  byId("class-choice").hidden = info.config.classes === 0;
  for (let i = 0; i < info.config.classes; i++) choice.add(new Option(i, i));
  setModel(info);
  tellAbout(info);
  mix.start(info);
  opened["tab-sample"] = samples.start(info, (kept) => {
    open(byId("tab-manipulate"));
    byId("tab-manipulate").focus();
    attempt(() => manipulate.use(kept));
  });
  await manipulate.start(info);
});
