// Two markers on a picture, for the eyes: dragged, placed by a click, or moved with the arrow keys.

const within = (x) => Math.min(Math.max(x, 0), 1);

/** Steps of the arrow keys, as fractions of the picture; the second applies with Shift. */
const STEPS = [0.005, 0.05];

/**
 * Shows markers at `positions`, fractions of the canvas's width and height, until `signal` aborts. Calls
 * `moved` with the positions whenever the user moves one. Returns a function that sets the positions.
 */
export function placeMarkers(canvas, markers, positions, moved, signal) {
  let at = positions;
  const refresh = () => markers.forEach((marker, i) => {
    marker.style.left = `${100 * at[i][0]}%`;
    marker.style.top = `${100 * at[i][1]}%`;
  });
  const move = (i, [x, y]) => {
    at = at.map((position, k) => (k === i ? [within(x), within(y)] : position));
    refresh();
    moved(at);
  };
  const pointed = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  /** The marker nearest to a pointer. */
  const nearest = (event) => {
    const [x, y] = pointed(event);
    const box = canvas.getBoundingClientRect();
    const away = ([ex, ey]) => Math.hypot((x - ex) * box.width, (y - ey) * box.height);
    return away(at[0]) <= away(at[1]) ? 0 : 1;
  };
  /** Offset from the pointer to the centre of the marker that it drags. */
  let grip = [0, 0];
  const lift = (i, event) => {
    const [x, y] = pointed(event);
    grip = [at[i][0] - x, at[i][1] - y];
    event.preventDefault();
    markers[i].focus();
    markers[i].setPointerCapture(event.pointerId);
  };
  const on = (target, type, listener) => target.addEventListener(type, listener, { signal });
  markers.forEach((marker, i) => {
    // Markers of a small face overlap, and the upper one may not be the intended one.
    on(marker, "pointerdown", (event) => lift(nearest(event), event));
    on(marker, "pointermove", (event) => {
      if (!marker.hasPointerCapture(event.pointerId)) return;
      const [x, y] = pointed(event);
      move(i, [x + grip[0], y + grip[1]]);
    });
    on(marker, "keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const size = STEPS[Number(event.shiftKey)];
      move(i, [at[i][0] + size * step[0], at[i][1] + size * step[1]]);
    });
  });
  // A click elsewhere moves the nearer marker.
  on(canvas, "pointerdown", (event) => {
    const i = nearest(event);
    move(i, pointed(event));
    lift(i, event);
  });
  refresh();
  return (positions) => {
    at = positions;
    refresh();
  };
}
