// Comparison: shows the original over the changed picture, while a button is held or left of a divider.

import { byId } from "./dom.js";
import { fill } from "./range.js";

/** Connects the button, the switch and the divider. */
export function startCompare() {
  const [before, button, split, divider] = ["before", "compare", "split", "divider"].map(byId);
  let held = false;
  const refresh = () => {
    const share = Number(divider.value);
    before.classList.toggle("shown", held || split.checked);
    before.style.clipPath = held || !split.checked ? "none" : `inset(0 ${100 - share}% 0 0)`;
    byId("split-line").hidden = held || !split.checked;
    byId("split-line").style.left = `${share}%`;
    byId("divider-row").hidden = !split.checked;
    byId("pair").classList.toggle("split", split.checked);
    byId("changed-caption").textContent =
      held ? "Original" : split.checked ? "Original | changed" : "Changed";
    button.setAttribute("aria-pressed", held);
    fill(divider);
  };
  const hold = (now) => () => {
    held = now;
    refresh();
  };
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    hold(true)();
  });
  for (const end of ["pointerup", "pointercancel", "blur"]) button.addEventListener(end, hold(false));
  button.addEventListener("keydown", ({ key }) => [" ", "Enter"].includes(key) && hold(true)());
  button.addEventListener("keyup", hold(false));
  // Suppresses the menu that a long press opens on a phone.
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  split.addEventListener("change", refresh);
  divider.addEventListener("input", refresh);
  refresh();
}
