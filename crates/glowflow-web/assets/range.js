// Sliders with a fill from zero to their value.

/** Dead zone of a slider around 0 for pointers, as a fraction of its length. */
const SNAP = 0.015;

/** Draws a slider's fill: from zero if its range includes negative values, else from its start. */
export function fill(slider) {
  const [min, max, value] = [slider.min, slider.max, slider.value].map(Number);
  const place = (x) => (max > min ? (x - min) / (max - min) : 0);
  const ends = [place(Math.max(min, 0)), place(value)].sort((a, b) => a - b);
  slider.style.setProperty("--from", ends[0]);
  slider.style.setProperty("--to", ends[1]);
}

/** Sets a slider as if the user had moved it. */
function setSlider(slider, value) {
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  slider.dispatchEvent(new Event("change", { bubbles: true }));
}

/** Makes a slider snap to 0 under a pointer; a double click or the key 0 resets it. */
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
