// Pictures from the camera.

import { byId, element, modal } from "./dom.js";

/** Returns whether this browser lets the page use a camera. */
export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

byId("camera-take").addEventListener("click", () => byId("camera").close("take"));
byId("camera-cancel").addEventListener("click", () => byId("camera").close());

/** Takes a picture. Resolves to it, or to undefined. */
export async function takePhoto() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch {
    throw new Error("The camera is not available. Check that the browser allows its use.");
  }
  const video = byId("viewfinder");
  try {
    video.srcObject = stream;
    await video.play();
    if (await modal(byId("camera")) !== "take") return undefined;
    const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  }
}
