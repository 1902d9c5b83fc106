// Positions of the eyes in the model's images: as the server knows them, or as this browser was given them.

import * as api from "./api.js";

/** Usual positions of the eyes in cut photographs of faces: where markers begin. */
export const USUAL = [[0.39, 0.51], [0.61, 0.51]];

const listeners = [];
let model;

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
    const { given, ...answer } = JSON.parse(localStorage.getItem(place()));
    return JSON.stringify(given) === JSON.stringify(server()) ? answer : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the model's images show faces (null if unknown), and the eyes as fractions, the left one first. */
export const known = () => own() ?? server();

/** Stores positions with the model, or else in this browser. Resolves to whether it was with the model. */
export async function remember(answer) {
  if (model.stores_eyes) {
    try {
      await api.storeEyes(answer.faces ? answer : { faces: false });
      localStorage.removeItem(place());
      Object.assign(model, { eyes: null, ...answer });
      listeners.forEach((listener) => listener());
      return true;
    } catch (error) {
      if (error.status !== 403) throw error;
    }
  }
  localStorage.setItem(place(), JSON.stringify({ given: server(), eyes: null, ...answer }));
  listeners.forEach((listener) => listener());
  return false;
}
