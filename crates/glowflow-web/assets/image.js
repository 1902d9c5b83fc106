// Images stored on the server, and their regeneration after the server has dropped them.

import * as api from "./api.js";
import { byId } from "./dom.js";

/** The chosen class, if the model has classes. */
export function chosenClass() {
  const choice = byId("class");
  return choice.value === "" ? undefined : Number(choice.value);
}

/** An image on the server. */
export class StoredImage {
  #make;

  /** `make` requests the image of a class: its id and, for a photograph, its scores. */
  constructor(make, label, facts) {
    this.#make = make;
    this.label = label;
    this.facts = facts;
  }

  get id() {
    return this.facts.id;
  }

  /** Encodes a picture. */
  static async encode(picture, label = chosenClass()) {
    const make = (label) => api.encode(picture, label);
    return new StoredImage(make, label, await make(label));
  }

  /** The same picture or seed with another class. */
  async withClass(label) {
    return new StoredImage(this.#make, label, await this.#make(label));
  }

  /** Runs a request for images; regenerates them first if the server has dropped them. */
  static async with(images, request) {
    try {
      return await request();
    } catch (error) {
      if (error.status !== 404) throw error;
      await Promise.all([...new Set(images)].map(async (image) => {
        image.facts = await image.#make(image.label);
      }));
      return request();
    }
  }

  /** Its picture (see `api.decode`). */
  async decode(shown) {
    return (await this.decodeWithGain(shown)).picture;
  }

  async decodeWithGain(shown) {
    return StoredImage.with([this], () => api.decode(this.id, shown));
  }

  /** Its picture after changes of attributes. */
  async manipulate(amounts) {
    return StoredImage.with([this], () => api.manipulate({ id: this.id, amounts }));
  }

  /** Frames of a change of its attributes from `from` to `amounts`. */
  async sweep(from, amounts, frames, format) {
    return StoredImage.with([this], () => api.manipulate({ id: this.id, from, amounts, frames, format }));
  }
}

/** Samples images of a class. With `score`, their `bits` are computed too: null if not finite. */
export async function draw({ count, temperature, seed, label = chosenClass(), score = false }) {
  const request = { count, temperature, seed, class: label };
  const { ids, bits_per_dim: bits } = await api.sample(score ? { ...request, score } : request);
  return ids.map((id, i) => {
    const make = async (label) => ({ id: (await api.sample({ ...request, class: label })).ids[i] });
    return Object.assign(new StoredImage(make, label, { id }), { bits: bits?.[i] });
  });
}

/** A new seed. */
export function randomSeed() {
  return Math.floor(Math.random() * 2 ** 32);
}
