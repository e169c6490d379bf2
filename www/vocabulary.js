// @ts-check
// What the page's own model knows, beside what is typed: an emoji becomes its name, and what the model does not know is said.

/**
 * A thing that the model draws. `kin` are words and emoji for what the model does not know, and this is nearest to.
 * @typedef {{ emoji: string, kin: string }} Thing
 */

/**
 * `picture` is the address of one that the model knows; `bounds` are measured, in bits per dimension.
 * @typedef {{ glyphs: Record<string, Thing>, styles: string[], picture: string, bounds: { of: string, bits: number }[] }} Vocabulary
 */

/** How many of the nearest are named. */
const NEAREST = 3;

/** Longest part of a prompt that is quoted, in letters. */
const QUOTED = 60;

/** Words that name nothing. */
const SMALL = new Set("a an and at in of on one some the this with".split(" "));

/** An emoji, with what changes its look. */
const EMOJI =
  /(?:\p{Extended_Pictographic}(?:[\u{1f3fb}-\u{1f3ff}\ufe0f]|\u200d\p{Extended_Pictographic})*|\p{RI}{2})/gu;

const field = /** @type {HTMLTextAreaElement} */ (document.getElementById("prompt"));
const hint = /** @type {HTMLElement} */ (document.getElementById("prompt-hint"));

/** Of the model that is open, if it is one whose vocabulary is known. @type {Vocabulary | undefined} */
let known;

field.addEventListener("input", remark);

/** @param {Vocabulary} [vocabulary] of the model that is open; none if it is not known */
export function learn(vocabulary) {
  known = vocabulary;
  remark();
}

/** What is known of the model that is open. */
export function about() {
  return known;
}

/** Says under the prompt what of it the model does not know. */
export function remark() {
  hint.textContent = known ? remarkOn(field.value, known) : "";
}

/** A prompt as it is sent to the model: emoji that it knows by their names. @param {string} prompt */
export function sent(prompt) {
  return known ? named(prompt, known) : prompt;
}

/**
 * @param {string} prompt
 * @param {Pick<Vocabulary, "glyphs" | "styles">} vocabulary
 */
export function named(prompt, { glyphs }) {
  const names = new Map(Object.entries(glyphs).map(([name, { emoji }]) => [emoji, name]));
  let isChanged = false;
  const text = prompt.replace(EMOJI, (emoji) => {
    const name = names.get(bare(emoji));
    isChanged ||= name !== undefined;
    return name === undefined ? emoji : ` ${name} `;
  });
  return isChanged
    ? text
        .replace(/\s+/g, " ")
        .replace(/ (?=,)/g, "")
        .trim()
    : prompt;
}

/**
 * What is to be said of a prompt: how it is sent, if not as it is typed, and what it names that the model does not know.
 * @param {string} prompt
 * @param {Pick<Vocabulary, "glyphs" | "styles">} vocabulary
 */
export function remarkOn(prompt, vocabulary) {
  const { glyphs, styles } = vocabulary;
  const text = named(prompt, vocabulary);
  const remarks = text === prompt ? [] : [`Sent to the model as “${text}”.`];
  const style = styles.find((style) => text.trimEnd().toLowerCase().endsWith(style));
  const thing = text
    .trimEnd()
    .slice(0, style ? -style.length : undefined)
    .replace(/[\s,]+$/, "")
    .trim();
  const words = wordsOf(thing);
  const strangers = (thing.match(EMOJI) ?? []).map(bare);
  const names = Object.keys(glyphs);
  const isKnown = strangers.length === 0 && names.some((name) => words.every((word) => wordsOf(name).some(same(word))));
  if (words.length + strangers.length > 0 && !isKnown) {
    const quoted = thing.length > QUOTED ? `${[...thing].slice(0, QUOTED).join("")}…` : thing;
    const nearest = nearestTo([...words, ...strangers], glyphs);
    remarks.push(
      `emoji64 knows ${names.length} things, and “${quoted}” is not one of them: it will draw something that it knows.`,
      nearest.length > 0 ? `Nearest: ${nearest.join(", ")}.` : "All of them are listed below.",
    );
  }
  return remarks.join(" ");
}

/**
 * The names that have most in common with words, counted the more the fewer names have it.
 * @param {string[]} words
 * @param {Record<string, Thing>} glyphs
 */
function nearestTo(words, glyphs) {
  const things = Object.entries(glyphs).map(([name, { kin }]) => ({ name, own: wordsOf(name), kin: kin.split(" ") }));
  const shared = (/** @type {string} */ word) => things.filter(({ own }) => own.some(same(word))).length;
  const scored = things.map(({ name, own, kin }) => {
    const scores = words.map((word) => {
      if (own.some(same(word))) return 1 / shared(word);
      if (kin.some(same(word))) return 0.9;
      return own.concat(kin).some((other) => isMisspelt(word, other)) ? 0.7 : 0;
    });
    return { name, score: scores.reduce((sum, score) => sum + score, 0) };
  });
  return scored
    .filter(({ score }) => score > 0.2)
    .sort((a, b) => b.score - a.score)
    .slice(0, NEAREST)
    .map(({ name }) => name);
}

/** @param {string} text */
function wordsOf(text) {
  return (text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []).filter((word) => !SMALL.has(word));
}

/** Whether another word is this one, or its plural. @param {string} word */
function same(word) {
  return (/** @type {string} */ other) => word === other || word === `${other}s`;
}

/** An emoji without what only changes its look. @param {string} emoji */
function bare(emoji) {
  return emoji.replace(/[\u{1f3fb}-\u{1f3ff}\ufe0f]/gu, "");
}

/**
 * Whether a word is another one with a letter or, if it is long, two letters wrong.
 * @param {string} word
 * @param {string} other
 */
function isMisspelt(word, other) {
  const most = word.length < 4 ? 0 : word.length < 7 ? 1 : 2;
  return Math.abs(word.length - other.length) <= most && distance(word, other) <= most;
}

/**
 * How many letters have to be put in, left out or changed to make one word of another.
 * @param {string} from
 * @param {string} to
 */
function distance(from, to) {
  let row = Array.from({ length: to.length + 1 }, (_, at) => at);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + Number(from[i - 1] !== to[j - 1])));
    }
    row = next;
  }
  return row[to.length];
}
