// The server's interface, and where messages go.

const line = document.getElementById("message");

const NOT_FINITE = "Some of the model's numbers are not finite; their pixels are black. Smaller amounts may help.";

/** True if a picture was not finite since the user's last action. The warning then stays on the line. */
let warned = false;
for (const action of ["click", "change", "input"]) {
  addEventListener(action, () => { warned = false; }, { capture: true });
}

/** Shows a message to the user, followed by the current warning. */
export function say(text) {
  line.className = warned ? "wrong" : "";
  line.textContent = warned ? `${text} ${NOT_FINITE}`.trim() : text;
}

/** Tells the user what went wrong. */
export function complain(error) {
  line.className = "wrong";
  line.textContent = error.message;
}

/** Runs `work` and tells the user what goes wrong in it. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    complain(error);
    return undefined;
  }
}

/** What the server says no to. */
class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Runs a request; its path is relative, so that the page can be served below any path. */
async function answer(path, options) {
  let response;
  try {
    response = await fetch(`api/v1/${path}`, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({ detail: response.statusText }));
    throw new Refusal(response.status, problem.detail);
  }
  return response;
}

const post = (path, body) =>
  answer(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

/** The picture of an answer. Warns if it contains NaN or infinite values. */
async function picture(response) {
  if (response.headers.get("glowflow-finite") === "false") {
    warned = true;
    say("");
  } else if (!warned && line.textContent.endsWith(NOT_FINITE)) {
    say("");
  }
  return response.blob();
}

/** What the model is. */
export const info = async () => (await answer("info")).json();

/** The class chosen, where the model has classes. */
export function chosenClass() {
  const choice = document.getElementById("class");
  return choice.value === "" ? undefined : Number(choice.value);
}

/**
 * An image that the server keeps. It forgets after a while; one that came from a picture is then sent again, and asked
 * about once more.
 */
export class Kept {
  constructor(id, picture) {
    this.id = id;
    this.picture = picture;
  }

  static async encode(picture) {
    const kept = new Kept(undefined, picture);
    await kept.send();
    return kept;
  }

  async send() {
    const label = chosenClass();
    const path = label === undefined ? "encode" : `encode?class=${label}`;
    const encoded = await (await answer(path, { method: "POST", body: this.picture })).json();
    this.id = encoded.id;
    this.exact = encoded.exact;
    this.differingPixels = encoded.differing_pixels;
  }

  /** What it decodes to. */
  async decode() {
    return Kept.remembering([this], async () => picture(await answer(`decode/${this.id}`)));
  }

  async manipulate(amounts) {
    return Kept.remembering([this], async () => picture(await post("manipulate", { id: this.id, amounts })));
  }

  static async mix(a, b, at, format) {
    return Kept.remembering([a, b], async () => picture(await post("mix", { a: a.id, b: b.id, at, format })));
  }

  static async remembering(images, ask) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 404 || images.some((image) => image.picture === undefined)) throw error;
      await Promise.all(images.map((image) => image.send()));
      return ask();
    }
  }
}

/** Draws images. */
export async function sample(count, temperature, seed) {
  const { ids } = await (await post("sample", { count, temperature, seed, class: chosenClass() })).json();
  return ids.map((id) => new Kept(id));
}

/** Draws images and returns the likeliest one. Scores that are not finite are null and never win. */
export async function likeliest(count, temperature, seed) {
  if (count === 1) return (await sample(1, temperature, seed))[0];
  const request = { count, temperature, seed, class: chosenClass(), score: true };
  const { ids, bits_per_dim: bits } = await (await post("sample", request)).json();
  const better = (x, best) => x !== null && (best === null || x < best);
  const best = bits.reduce((best, x, i) => (better(x, bits[best]) ? i : best), 0);
  return new Kept(ids[best]);
}

/** Shows a picture in an image element, and forgets the one before it. */
export async function show(image, blob) {
  const before = image.src;
  image.src = URL.createObjectURL(blob);
  image.hidden = false;
  if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  await image.decode().catch(() => {});
}

/** Saves a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * Makes a function that runs `work` with what is newest: while one run is under way, calls do nothing but ask for one
 * more after it.
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
