// Download menus: pictures at several sizes, and animations in several formats.

import { button, element } from "./dom.js";
import { attempt, say } from "./message.js";
import { record, videoFormats } from "./video.js";

/** Longer side of enlarged pictures and of videos. */
const LARGE = 512;

/** Saves a file. */
function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The size of a picture when its longer side is `LARGE`. */
function enlarged(width, height) {
  const scale = LARGE / Math.max(width, height);
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

/** A picture as PNG with a longer side of `LARGE`, with sharp or smooth pixels. */
async function enlarge(picture, smooth) {
  const bitmap = await createImageBitmap(picture);
  const canvas = element("canvas");
  [canvas.width, canvas.height] = enlarged(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Converts text to a part of a file name: lower case, words joined by hyphens. */
export const slug = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");

/** The name of a file: `glowflow-PARTS.KIND`. */
const fileName = (parts, kind) => `${["glowflow", ...parts].join("-")}.${kind}`;

/**
 * Fills `place` with a menu of downloads. `picture` makes the picture; `frames(format)` makes the animation
 * of `count` frames as GIF, APNG, or PNG with the frames side by side. Either can be left out. `name` gives
 * the parts of the file's name.
 */
export function addDownloads(place, text, { size, name, picture, frames, count }) {
  const [width, height] = size;
  const menu = element("details", { className: "menu" });
  const summary = element("summary", { className: "button", textContent: text });
  const list = element("div", { className: "menu-items" });
  menu.append(summary, list);
  menu.addEventListener("toggle", () => menu.open && list.scrollIntoView({ block: "nearest" }));
  const add = (label, work) => list.append(button(label, () => attempt(async () => {
    menu.open = false;
    summary.focus();
    await work();
  })));
  // The page may change while `make` works, so the file's name is taken before.
  const saving = (label, extension, make, ...parts) => add(label, async () => {
    const file = fileName([...name(), ...parts], extension);
    save(await make(), file);
  });
  if (picture) {
    const [wide, high] = enlarged(width, height);
    saving(`Original size, ${width} × ${height}`, "png", picture);
    if (Math.max(width, height) < LARGE) {
      for (const [smooth, how] of [[false, "sharp"], [true, "smooth"]]) {
        saving(`${wide} × ${high}, ${how}`, "png", async () => enlarge(await picture(), smooth), `${LARGE}`, how);
      }
    }
  }
  if (frames) {
    const animation = (label, extension, make) => saving(label, extension, async () => {
      say("Drawing…");
      const file = await make();
      say("");
      return file;
    });
    for (const [format, what] of [["gif", "GIF"], ["apng", "APNG (all colours)"]]) {
      animation(`Animation, ${what}`, format, () => frames(format));
    }
    for (const format of videoFormats()) {
      animation(`Video, ${format.name} (${LARGE} px)`, format.extension, async () => {
        const length = count();
        const film = await frames("png");
        say("Recording the video…");
        return record(film, length, enlarged(width, height), format);
      });
    }
  }
  place.append(menu);
  return {
    set disabled(disabled) {
      if (disabled) menu.open = false;
      summary.setAttribute("aria-disabled", disabled);
      summary.tabIndex = disabled ? -1 : 0;
    },
    set title(title) {
      menu.title = title;
    },
  };
}

// A menu closes on a click elsewhere and on Escape.
document.addEventListener("click", ({ target }) => {
  for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(target)) menu.open = false;
});
document.addEventListener("keydown", ({ key, target }) => {
  const menu = key === "Escape" ? target.closest(".menu[open]") : null;
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
