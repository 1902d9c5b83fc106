// Sliders that are filled from their zero to their value.

/** Values of a slider around 0 that a pointer cannot choose, as a part of its length. */
const SNAP = 0.015;

/** Draws a slider's fill: from its zero if it reaches below 0, else from its beginning. */
export function fill(slider) {
  const [min, max, value] = [slider.min, slider.max, slider.value].map(Number);
  const place = (x) => (max > min ? (x - min) / (max - min) : 0);
  const ends = [place(Math.max(min, 0)), place(value)].sort((a, b) => a - b);
  slider.style.setProperty("--from", ends[0]);
  slider.style.setProperty("--to", ends[1]);
}

/** Sets a slider as the user would. */
function setSlider(slider, value) {
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  slider.dispatchEvent(new Event("change", { bubbles: true }));
}

/** Lets a pointer snap to 0, and a double click or the key 0 return there. */
export function snapToZero(slider) {
  let pointing = false;
  slider.addEventListener("pointerdown", () => { pointing = true; });
  for (const end of ["pointerup", "pointercancel", "change", "keydown"]) {
    slider.addEventListener(end, () => { pointing = false; });
  }
  slider.addEventListener("input", () => {
    if (pointing && Math.abs(slider.value) < SNAP * (slider.max - slider.min)) slider.value = 0;
  }, { capture: true });
  slider.addEventListener("dblclick", () => setSlider(slider, 0));
  slider.addEventListener("keydown", (event) => {
    if (event.key !== "0" || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    setSlider(slider, 0);
  });
}
