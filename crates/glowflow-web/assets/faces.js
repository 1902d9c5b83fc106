// Eye positions in the model's images, from the server or from this browser.

import * as api from "./api.js";

/** Typical eye positions in cropped photographs of faces: initial positions of the markers. */
export const USUAL = [[0.39, 0.51], [0.61, 0.51]];

const listeners = [];
let model;
/** The answer of this visit, in the format of `localStorage`, for browsers without storage. */
let visit = null;

const place = () => `glowflow-eyes ${location.pathname} ${model.fingerprint}`;
const server = () => ({ faces: model.faces, eyes: model.eyes });

/** Starts with the server's positions. */
export function setFaces(info) {
  model = info;
}

/** Calls `listener` when the positions change. */
export function onFaces(listener) {
  listeners.push(listener);
}

/** This browser's answer. It is valid as long as the server's positions are those that it was given for. */
function own() {
  try {
    const { given, ...answer } = JSON.parse(visit ?? localStorage.getItem(place()));
    return JSON.stringify(given) === JSON.stringify(server()) ? answer : undefined;
  } catch {
    return undefined;
  }
}

/** True if the model's images show faces (null if unknown), and the eyes as fractions, the left one first. */
export const known = () => own() ?? server();

/**
 * Stores positions with the model, else in this browser, else for this visit. Resolves to a message about it.
 */
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
  return `${kept ? "This browser remembers the answer." : "The answer is kept until the page is closed."}${reason}`;
}

/** Stores this browser's answer. Returns false if it only lasts for this visit. */
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
    // A browser without storage has nothing to remove.
  }
}
