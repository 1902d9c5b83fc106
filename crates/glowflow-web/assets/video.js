// Videos of frames, recorded by the browser.

import { element } from "./dom.js";

/** Display time of a frame, as in the server's animations. */
const FRAME_MS = 80;
const BITS_PER_SECOND = 6_000_000;

const FORMATS = [
  { name: "MP4", extension: "mp4", types: ["video/mp4;codecs=avc1.42E01E", "video/mp4"] },
  { name: "WebM", extension: "webm", types: ["video/webm;codecs=vp9", "video/webm;codecs=vp8"] },
];

/** The formats that this browser can record. */
export function videoFormats() {
  if (!globalThis.MediaRecorder || !HTMLCanvasElement.prototype.captureStream) return [];
  return FORMATS.flatMap(({ types, ...format }) => {
    const type = types.find((type) => MediaRecorder.isTypeSupported(type));
    return type ? [{ ...format, type }] : [];
  });
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Records `count` frames placed side by side in a picture. Takes as long as the video lasts. */
export async function record(film, count, [width, height], { type }) {
  const bitmap = await createImageBitmap(film);
  const canvas = element("canvas");
  // Video encoders require even sizes.
  [canvas.width, canvas.height] = [width & ~1, height & ~1];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const wide = bitmap.width / count;
  const draw = (frame) =>
    context.drawImage(bitmap, frame * wide, 0, wide, bitmap.height, 0, 0, canvas.width, canvas.height);
  draw(0);
  const stream = canvas.captureStream();
  const recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: BITS_PER_SECOND });
  const parts = [];
  recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
  const stopped = new Promise((resolve, reject) => {
    recorder.addEventListener("stop", resolve);
    recorder.addEventListener("error", () =>
      reject(new Error("This browser cannot record the video; use APNG or GIF.")));
  });
  recorder.start();
  const begin = performance.now();
  for (let frame = 0; frame < count; frame++) {
    draw(frame);
    await wait(Math.max(0, begin + (frame + 1) * FRAME_MS - performance.now()));
  }
  recorder.stop();
  await stopped;
  stream.getTracks().forEach((track) => track.stop());
  bitmap.close();
  return new Blob(parts, { type: type.split(";")[0] });
}
