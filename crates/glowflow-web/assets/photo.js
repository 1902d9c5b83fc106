// Photographs provided by the user.

import { element } from "./dom.js";

/** Maximum size of a photograph; larger ones are reduced before they are cropped. */
const LARGEST_SIDE = 2048;
/** File types that the server accepts. */
export const ACCEPTED = ["image/png", "image/jpeg", "image/webp", "image/bmp"];

/** A photograph as a file and as pixels, upright. */
export class Photo {
  constructor(file, bitmap, shrunk) {
    Object.assign(this, { file, bitmap, shrunk, width: bitmap.width, height: bitmap.height });
  }

  static async load(file) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      throw new Error(`${file.name || "This"} is not a picture that this browser can display.`);
    }
    const shrink = LARGEST_SIDE / Math.max(bitmap.width, bitmap.height);
    if (shrink >= 1) return new Photo(file, bitmap, false);
    const size = {
      resizeWidth: Math.max(1, Math.round(bitmap.width * shrink)),
      resizeHeight: Math.max(1, Math.round(bitmap.height * shrink)),
    };
    const smaller = await createImageBitmap(bitmap, { ...size, resizeQuality: "high" });
    bitmap.close();
    return new Photo(file, smaller, true);
  }

  /** Returns whether the server accepts the file itself. */
  fits({ upload_bytes: bytes }) {
    return !this.shrunk && this.file.size <= bytes && ACCEPTED.includes(this.file.type);
  }

  /** A file that the server accepts. */
  async sendable(model) {
    if (this.fits(model)) return this.file;
    const canvas = element("canvas", { width: this.width, height: this.height });
    canvas.getContext("2d").drawImage(this.bitmap, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  }

  close() {
    this.bitmap.close();
  }
}

/** The size at which cropped photographs are sent: 256 pixels high, or the model's height if larger. */
export function cutSize({ config: { image: [height, width] } }) {
  const high = Math.max(256, height);
  return [Math.round((high * width) / height), high];
}
