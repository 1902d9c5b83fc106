// The message line, and functions that report errors on it.

const line = document.getElementById("message");

const NOT_FINITE =
  "Some decoded values are not finite; the affected pixels are black. Smaller amounts may help.";

/** True if a picture since the user's last action was not finite. The warning then stays visible. */
let warned = false;
for (const action of ["click", "change", "input"]) {
  addEventListener(action, () => { warned = false; }, { capture: true });
}

/** Time after which a message that reports a result disappears. On phones, it covers part of the page. */
const RESULT_MS = 15_000;
const PHONE_RESULT_MS = 5000;
const phone = matchMedia("(max-width: 45rem)");

let expiry;

/** Shows a message to the user, followed by the current warning. */
export function say(text) {
  line.className = warned ? "wrong" : "";
  line.textContent = warned ? `${text} ${NOT_FINITE}`.trim() : text;
  clearTimeout(expiry);
  if (!warned && !text.endsWith("…"))
    expiry = setTimeout(() => say(""), phone.matches ? PHONE_RESULT_MS : RESULT_MS);
}

/** Shows an error. */
function complain(error) {
  clearTimeout(expiry);
  line.className = "wrong";
  line.textContent = error.message;
}

/** Warns if a picture contains NaN or infinite values; removes the warning if a later one does not. */
export function warnUnlessFinite(finite) {
  if (!finite) {
    warned = true;
    say("");
  } else if (!warned && line.textContent.endsWith(NOT_FINITE)) {
    say("");
  }
}

/** Runs `work` and shows its error, if any. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    complain(error);
    return undefined;
  }
}

/**
 * Returns a function that runs `work` with the newest state: calls during a run cause one more run after it.
 */
export function newest(work) {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      await attempt(work);
    }
    running = false;
  };
}
