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

/** Tells this module what the model is. */
export function setModel(info) {
  model = info;
}

/** Fills `place` with buttons that bring pictures; `use` gets the image on the server. */
export function addSource(place, name, use, { multiple = false } = {}) {
  const file = element("input", { type: "file", accept: ACCEPTED.join(), id: `${place.id}-file`, multiple });
  file.setAttribute("aria-label", `Photograph for ${name}`);
  const label = element("label", { className: "button", htmlFor: file.id, textContent: "Photograph…" });
  file.addEventListener("change", () => attempt(async () => {
    const chosen = [...file.files];
    file.value = "";
    await usePhotos(chosen, use);
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

/** Cuts and encodes photographs; `use` gets the image of each. */
export async function usePhotos(files, use) {
  for (const file of files) {
    const photo = await Photo.load(file);
    let cut;
    try {
      await askEyesOnce();
      cut = await (known().faces ? align : crop)(photo, model);
    } finally {
      photo.close();
    }
    if (!cut) continue;
    say("Encoding…");
    const image = await StoredImage.encode(cut);
    await use(image);
    say(exactness(image));
  }
}

/** Whether a picture comes back from its latents. */
export function exactness({ facts: { exact, differing_pixels: differing } }) {
  const [height, width] = model.config.image;
  if (exact) return "The picture comes back exactly.";
  return `The picture does not come back exactly: ${differing} of ${width * height} pixels differ.`;
}
