// Handles pictures that are dropped on the page or pasted.

import { byId } from "./dom.js";

const PICTURE = /^image\//;
const busy = () => document.querySelector("dialog[open]") !== null;
const filesOf = (transfer) => [...(transfer?.files ?? [])];

/** Passes dropped and pasted files to `receive`, and highlights the drop target. */
export function startDrop(receive) {
  const hint = byId("drop");
  // Set while a picture of the page itself is dragged, for example to save it.
  let own = false;
  addEventListener("dragstart", () => { own = true; });
  addEventListener("dragend", () => { own = false; });
  const offers = (event) => !own && event.dataTransfer?.types.includes("Files");
  // Events of children bubble, so entries and exits are counted.
  let inside = 0;
  const leave = () => {
    inside = 0;
    hint.hidden = true;
  };
  addEventListener("dragenter", (event) => {
    if (!offers(event)) return;
    event.preventDefault();
    inside++;
    hint.hidden = busy();
  });
  addEventListener("dragover", (event) => {
    if (!offers(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = busy() ? "none" : "copy";
  });
  addEventListener("dragleave", (event) => {
    if (offers(event) && --inside <= 0) leave();
  });
  addEventListener("drop", (event) => {
    if (!offers(event)) return;
    event.preventDefault();
    leave();
    if (!busy()) receive(filesOf(event.dataTransfer));
  });
  addEventListener("paste", (event) => {
    const pictures = filesOf(event.clipboardData).filter(({ type }) => PICTURE.test(type));
    if (pictures.length === 0) return;
    event.preventDefault();
    receive(pictures);
  });
}
