// DOM helpers.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A new button. `label` is its accessible name, if the text is not sufficient. */
export function button(text, work, label) {
  const made = element("button", { type: "button", textContent: text });
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", work);
  return made;
}

/** Shows a picture in an image element, and releases the previous one. */
export async function show(image, blob) {
  const previous = image.src;
  image.src = URL.createObjectURL(blob);
  image.hidden = false;
  if (previous.startsWith("blob:")) URL.revokeObjectURL(previous);
  await image.decode().catch(() => {});
}

/** Empties an image element. */
export function clear(image) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  image.hidden = true;
}

/** Opens a modal dialog. Resolves to its return value, which is empty if it was cancelled. */
export function modal(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}
