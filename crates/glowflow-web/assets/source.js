// Sources of pictures: a file, the camera, or the model.

import { align } from "./align.js";
import { hasCamera, takePhoto } from "./camera.js";
import { crop } from "./crop.js";
import { button, element } from "./dom.js";
import { askEyesOnce } from "./eyes.js";
import { known } from "./faces.js";
import { StoredImage, draw, randomSeed } from "./image.js";
import { attempt, say } from "./message.js";
import { ACCEPTED, Photo } from "./photo.js";

const TEMPERATURE = 0.7;

let model;

/** Sets the model. */
export function setModel(info) {
  model = info;
}

/** Resolves when earlier photographs have been used, so that dialogs open one after another. */
let turn = Promise.resolve();

/**
 * Fills `place` with buttons that bring pictures; `use` gets the image on the server. With `room`, up to
 * `room()` files can be chosen.
 */
export function addSource(place, name, use, room) {
  const file = element("input",
    { type: "file", accept: ACCEPTED.join(), id: `${place.id}-file`, multiple: room !== undefined });
  file.setAttribute("aria-label", `Photograph for ${name}`);
  const label = element("label", { className: "button", htmlFor: file.id, textContent: "Photograph…" });
  file.addEventListener("change", () => attempt(async () => {
    const chosen = [...file.files];
    file.value = "";
    await usePhotos(chosen, use, room);
  }));
  place.append(file, label);
  if (hasCamera()) {
    place.append(button("Camera…", () => attempt(async () => {
      const photo = await takePhoto();
      if (photo) await usePhotos([photo], use);
    }), `Camera for ${name}`));
  }
  place.append(button("Random", () => attempt(async () => {
    const [drawn] = await draw({ count: 1, temperature: TEMPERATURE, seed: randomSeed() });
    await use(drawn);
    say("");
  }), `Random picture for ${name}`));
}

/**
 * Cuts and encodes photographs once earlier ones are done; `use` gets the image of each. At most `room()` of
 * them are used. Those that cannot be used do not stop the others.
 */
export function usePhotos(files, use, room) {
  const done = turn.then(() => useAll(files, use, room));
  turn = done.catch(() => {});
  return done;
}

async function useAll(files, use, room = () => 1) {
  const free = room();
  const problems = [];
  for (const file of files.slice(0, free)) {
    try {
      await usePhoto(file, use);
    } catch (error) {
      problems.push(error.message);
    }
  }
  if (files.length > free) {
    problems.push(free === 0
      ? "There is no room for another picture; remove one first."
      : `${files.length - free} of ${files.length} pictures were skipped: there was room for ${free}.`);
  }
  if (problems.length > 0) throw new Error(problems.join(" "));
}

async function usePhoto(file, use) {
  const photo = await Photo.load(file);
  let cut;
  try {
    await askEyesOnce();
    cut = await (known().faces ? align : crop)(photo, model);
  } finally {
    photo.close();
  }
  if (!cut) return;
  say("Encoding…");
  const image = await StoredImage.encode(cut);
  await use(image);
  say(exactness(image));
}

/** A message on whether a picture is reconstructed exactly from its latents. */
export function exactness({ facts: { exact, differing_pixels: differing } }) {
  const [height, width] = model.config.image;
  if (exact) return "The picture is reconstructed exactly.";
  return `The picture is not reconstructed exactly: ${differing} of ${width * height} pixels differ.`;
}
