// The tab about the model.

import { byId, element } from "./dom.js";

/** The model's architecture in words. A Glow's configuration does not name it. */
function architecture({ architecture: name, image, bits, classes, ...keys }) {
  if (name === undefined)
    return `Glow, ${keys.levels} levels of ${keys.steps} steps, hidden ${keys.hidden}, ${keys.coupling} coupling, ` +
      keys.permutation;
  const words = Object.entries(keys).map(([key, value]) => `${key.replaceAll("_", " ")} ${value}`);
  return [{ realnvp: "RealNVP", nice: "NICE" }[name] ?? name, ...words].join(", ");
}

/** Builds the tab. */
export function start({
  config, class_names: names, parameters, trained, bits_per_dim, inverse_error, evaluation, attributes }) {
  const [height, width, channels] = config.image;
  const known = (value, text) => (value === null || value === undefined ? "not measured" : text(value));
  const number = (value) => value.toLocaleString("en");
  const bits = (value) =>
    `${value.toFixed(3)} on test images (upper bound, ${evaluation?.dequantization ?? "uniform"} dequantisation)`;
  const facts = {
    Images: `${width} × ${height}, ${channels === 1 ? "grey" : "colour"}, ${config.bits} bits`,
    Architecture: architecture(config),
    Classes: !config.classes ? "none" : names?.length > 0 ? names.join(", ") : config.classes,
    Parameters: number(parameters),
    Training: known(trained, ({ steps, images }) =>
      `${number(steps)} steps${images ? `, ${number(images)} images` : ""}`),
    "Bits per dimension": known(bits_per_dim, bits),
    "Inverse error": known(inverse_error, (error) => error.toExponential(1)),
  };
  byId("facts").append(...Object.entries(facts).flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  byId("directions-known").hidden = attributes.length === 0;
  for (const { name, positives, negatives, auc, weak } of attributes) {
    const row = byId("attributes").insertRow();
    const cells = [name.replaceAll("_", " "), positives, negatives, known(auc, (auc) => auc.toFixed(3))];
    for (const text of cells) row.insertCell().textContent = text;
    if (!weak) continue;
    // A separate row, because a phone has no room for another column.
    row.className = "explained";
    const reason = byId("attributes").insertRow().insertCell();
    Object.assign(reason, { colSpan: cells.length, className: "quiet", textContent: `Weak: ${weak}` });
  }
}
