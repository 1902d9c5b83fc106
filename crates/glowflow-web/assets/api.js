// Requests to the server.

import { warnUnlessFinite } from "./message.js";

/** A request that the server refused. */
class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Runs a request; its path is relative, so the page can be served below any path. */
async function answer(path, options) {
  let response;
  try {
    response = await fetch(`api/v1/${path}`, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({ detail: response.statusText }));
    throw new Refusal(response.status, problem.detail);
  }
  return response;
}

const send = (method) => (path, body) =>
  answer(path, { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
const [post, put] = [send("POST"), send("PUT")];

async function picture(response) {
  warnUnlessFinite(response.headers.get("glowflow-finite") !== "false");
  return response.blob();
}

/** The model and the operations available on it. */
export const info = async () => (await answer("info")).json();

/** Encodes a picture as an image of a class, if the model has classes. Resolves to its id and its scores. */
export const encode = async (file, label) =>
  (await answer(
    label === undefined ? "encode" : `encode?class=${label}`, { method: "POST", body: file })).json();

/** A picture of an image (`reconstruction`, `original` or `difference`) and its amplification. */
export async function decode(id, shown = "reconstruction") {
  const response = await answer(shown === "reconstruction" ? `decode/${id}` : `decode/${id}?show=${shown}`);
  return { picture: await picture(response), gain: Number(response.headers.get("glowflow-gain") ?? 1) };
}

/** Changes an image's attributes: a picture, or frames. */
export const manipulate = async (request) => picture(await post("manipulate", request));

/** Interpolates between two images. */
export const mix = async (request) => picture(await post("mix", request));

/** Frames of a walk through several images. */
export const walk = async (request) => picture(await post("walk", request));

/** Draws images. */
export const sample = async (request) => (await post("sample", request)).json();

/** Detects faces in a photograph. */
export const findFaces = async (file) => (await answer("faces", { method: "POST", body: file })).json();

/** Stores eye positions with the model. */
export const storeEyes = (eyes) => put("eyes", eyes);
