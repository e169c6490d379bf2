// @ts-check
// The LoRAs that the visitor has added, each with its weight.

/** @import { Lora } from "./pkg/index.js" */

const list = /** @type {HTMLUListElement} */ (document.getElementById("loras"));

/** @type {{ name: string, source: File, slider: HTMLInputElement }[]} */
let added = [];

/** @param {File} file */
export function add(file) {
  const name = file.name.replace(/\.safetensors$/i, "");
  const item = document.createElement("li");
  const label = document.createElement("label");
  const slider = document.createElement("input");
  const value = document.createElement("output");
  const remove = document.createElement("button");
  Object.assign(slider, { type: "range", min: "-1", max: "2", step: "0.05", value: "1" });
  slider.addEventListener("input", () => (value.textContent = slider.value));
  value.textContent = slider.value;
  Object.assign(remove, { type: "button", textContent: "Remove", ariaLabel: `Remove ${name}` });
  const entry = { name, source: file, slider };
  remove.addEventListener("click", () => {
    added = added.filter((other) => other !== entry);
    // The button has the focus, and takes it along.
    const next = item.nextElementSibling ?? item.previousElementSibling;
    /** @type {HTMLElement | null} */ (next?.querySelector("button") ?? document.getElementById("lora-file"))?.focus();
    item.remove();
  });
  label.append(name, slider);
  item.append(label, value, remove);
  list.append(item);
  added.push(entry);
}

export function clear() {
  added = [];
  list.replaceChildren();
}

/** @returns {Lora[]} as the package takes them */
export function chosen() {
  return added.map(({ source, slider }) => ({ source, weight: slider.valueAsNumber }));
}

/** @returns {{ name: string, weight: number }[]} as a picture that was made with them names them */
export function named() {
  return added.map(({ name, slider }) => ({ name, weight: slider.valueAsNumber }));
}
