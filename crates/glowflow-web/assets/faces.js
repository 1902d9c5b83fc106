// Positions of the eyes in the model's images: as the server knows them, or as this browser was given them.

import * as api from "./api.js";

/** Usual positions of the eyes in cut photographs of faces: where markers begin. */
export const USUAL = [[0.39, 0.51], [0.61, 0.51]];

const listeners = [];
let model;
/** The answer of this visit, as `localStorage` has it, for browsers that store nothing. */
let visit = null;

const place = () => `glowflow-eyes ${location.pathname} ${model.fingerprint}`;
const server = () => ({ faces: model.faces, eyes: model.eyes });

/** Starts with what the server knows. */
export function setFaces(info) {
  model = info;
}

/** Calls `listener` when they change. */
export function onFaces(listener) {
  listeners.push(listener);
}

/** This browser's answer. It counts as long as the server's is the one that it was given for. */
function own() {
  try {
    const { given, ...answer } = JSON.parse(visit ?? localStorage.getItem(place()));
    return JSON.stringify(given) === JSON.stringify(server()) ? answer : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the model's images show faces (null if unknown), and the eyes as fractions, the left one first. */
export const known = () => own() ?? server();

/** Stores positions with the model, or else in this browser, or else for this visit. Resolves to a report of that. */
export async function remember(answer) {
  let reason = "";
  if (model.stores_eyes) {
    try {
      await api.storeEyes(answer.faces ? answer : { faces: false });
      forget();
      Object.assign(model, { eyes: null, ...answer });
      listeners.forEach((listener) => listener());
      return "The answer is stored with the model.";
    } catch (error) {
      reason = ` The server did not store it: ${error.message}`;
    }
  }
  const kept = keep(JSON.stringify({ given: server(), eyes: null, ...answer }));
  listeners.forEach((listener) => listener());
  return `${kept ? "This browser remembers the answer." : "The answer holds until the page is closed."}${reason}`;
}

/** Stores this browser's answer. Returns false if it lasts for this visit alone. */
function keep(text) {
  visit = text;
  try {
    localStorage.setItem(place(), text);
    return true;
  } catch {
    return false;
  }
}

function forget() {
  visit = null;
  try {
    localStorage.removeItem(place());
  } catch {
    // A browser that stores nothing has nothing to forget.
  }
}
