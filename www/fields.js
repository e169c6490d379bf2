// @ts-check
// Which fields count, and what is wrong with one: a field that nobody sees never holds a run up without a word.

/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Field */

const form = /** @type {HTMLFormElement} */ (document.getElementById("form"));
const seed = /** @type {HTMLInputElement} */ (document.getElementById("seed"));

const LARGEST_SEED = 2n ** 64n - 1n;

// The browser refuses a field in silence where it is out of sight; `firstInvalid` looks after them instead.
form.noValidate = true;

/**
 * Whether a field means something to the model and the view: what they do not use is not displayed. A field within what is
 * folded away is used all the same.
 * @param {Field} field
 */
export function isUsed(field) {
  if (field.disabled) return false;
  for (let part = /** @type {Element | null} */ (field); part; part = part.parentElement) {
    if (getComputedStyle(part).display === "none") return false;
  }
  return true;
}

/** @returns {Field | undefined} the first field that is used and cannot be read */
export function firstInvalid() {
  const isTooLarge = !seed.validity.patternMismatch && BigInt(seed.value) > LARGEST_SEED;
  seed.setCustomValidity(isTooLarge ? `at most ${LARGEST_SEED}` : "");
  const fields = /** @type {Field[]} */ ([...form.elements].filter((part) => "validity" in part && !isButton(part)));
  return fields.find((field) => !field.validity.valid && isUsed(field));
}

/**
 * Brings a field into sight, also from what is folded away, and puts the cursor into it.
 * @param {Field} field
 */
export function reveal(field) {
  for (let part = field.closest("details"); part; part = part.parentElement?.closest("details") ?? null)
    part.open = true;
  field.focus({ preventScroll: true });
  field.scrollIntoView({ block: "center" });
}

/**
 * What is wrong with a field, by its name.
 * @param {Field} field
 */
export function complaint(field) {
  const { valueMissing, badInput, rangeUnderflow, rangeOverflow, stepMismatch, patternMismatch } = field.validity;
  const { min, max, step, title } = /** @type {HTMLInputElement} */ (field);
  const name = `“${labelOf(field)}”`;
  if (badInput) return `${name} has to be a number.`;
  if (valueMissing) return `${name} is empty.`;
  if (rangeUnderflow || rangeOverflow) {
    const [least, most] = [min && `from ${min}`, max && `to ${max}`];
    return `${name} is ${field.value}, and has to be a number ${[least, most].filter(Boolean).join(" ")}.`;
  }
  if (stepMismatch) {
    const whole = step === "1" ? "a whole number" : `a multiple of ${step}`;
    return `${name} is ${field.value}, and has to be ${whole}.`;
  }
  if (patternMismatch) return `${name} has to be ${title}.`;
  return `${name} has to be ${field.validationMessage}.`;
}

/** @param {Field} field */
function labelOf(field) {
  return field.labels?.[0]?.firstChild?.textContent?.trim() || field.getAttribute("aria-label") || field.id;
}

/** @param {Element} part */
function isButton(part) {
  return part instanceof HTMLButtonElement || part instanceof HTMLFieldSetElement || part instanceof HTMLOutputElement;
}
