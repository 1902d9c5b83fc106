// Sliders that are filled from their zero to their value.

/** Draws a slider's fill: from the middle where it reaches below 0, else from its beginning. */
export function fill(slider) {
  const [min, max, value] = [slider.min, slider.max, slider.value].map(Number);
  const place = (x) => (x - min) / (max - min);
  const ends = [place(Math.max(min, 0)), place(value)].sort((a, b) => a - b);
  slider.style.setProperty("--from", ends[0]);
  slider.style.setProperty("--to", ends[1]);
}
