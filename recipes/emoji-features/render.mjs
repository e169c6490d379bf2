// Draws the emoji of six icon sets as 64x64 PNG over white and sorts them into the sets of pictures that training and the
// evaluation use:
//
//   node render.mjs OUT
//
//   OUT/pictures/STYLE/GLYPH.png   every picture; dashes for the spaces of the glyph's name
//   OUT/pictures/index.json        glyphs, styles and, per picture, glyph, hexcode, group, style, file and the two splits
//   OUT/sets/train                 what emoji64's diffusion model saw
//   OUT/sets/held-out-pairs        pairs of a known glyph and a known style that it did not see
//   OUT/sets/held-out              all other pictures of its three styles
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Resvg } from "@resvg/resvg-js";

const SIZE = 64;
const SEED = "emoji-features 1";
/** Share of the pairs (glyph, style) that the classifier never trains on. */
const TEST_SHARE = 0.1;
const STYLES = ["noto", "twemoji", "fluent-emoji-flat", "noto-v1", "emojione", "fxemoji"];

// The diffusion model's data, as its model card lists it.
const DIFFUSION_STYLES = STYLES.slice(0, 3);
const DIFFUSION_GLYPHS =
  `alien, angry face, automobile, balloon, banana, birthday cake, blue heart, butterfly, cactus, cat face,
  cloud, crown, crying face, dog face, doughnut, evergreen tree, fire, fox, frog, ghost, green apple, green heart, grinning cat,
  grinning cat with smiling eyes, grinning face, hamburger, jack-o-lantern, lady beetle, monkey face, octopus, panda, penguin,
  pig face, pile of poo, pizza, purple heart, rabbit face, rainbow, red apple, red heart, robot, rocket, rose, skull,
  sleeping face, smiling face with heart-eyes, smiling face with sunglasses, soccer ball, star, strawberry, sun, sunflower,
  tiger face, tomato, unicorn, watermelon, winking face, yellow heart`.split(/,\s+/);
const HELD_OUT_PAIRS =
  `noto: automobile, noto: lady beetle, noto: panda, noto: red heart, noto: sun, noto: yellow heart,
  twemoji: grinning cat with smiling eyes, twemoji: tomato, fluent-emoji-flat: fox, fluent-emoji-flat: penguin`.split(
    /,\s+/,
  );

const read = (path) => JSON.parse(readFileSync(new URL(`node_modules/${path}`, import.meta.url), "utf8"));

/** A label as a glyph's name: lower case, no accents, and of the punctuation only the dash. */
const nameOf = (label) =>
  label
    .normalize("NFD")
    .replace(/[\u0300-\u036f]/g, "")
    .toLowerCase()
    .replace(/&/g, "and")
    .replace(/[’'“”".!:,()]/g, "")
    .trim();
/** A name of any origin without what the sets write differently: spaces, dashes, underscores. */
const squash = (name) => nameOf(name).replace(/[^a-z0-9]/g, "");
/** Code points without the variation selector, in lower case, as `chars.json` has them. */
const bare = (hexcode) => hexcode.toLowerCase().replace(/-fe0f/g, "");

/** Whether an entry of emojibase is drawn. */
function wanted({ hexcode, label, group }) {
  const letters =
    /^(1F17[01EF]|1F18E|1F19[1-9A]|1F20[12]|1F21A|1F22F|1F23[2-9A]|1F25[01]|3297|3299|24C2|00A9|00AE|2122|2139)/;
  if (group === undefined || group === 2) return false; // regional indicators, skin tones and hair
  if (group === 9) return !/^1F1|^1F3F4-E/.test(hexcode); // flags of countries
  if (/20E3$/.test(hexcode) || letters.test(hexcode) || /^1F52[0-4]$/.test(hexcode)) return false; // keycaps, letter buttons
  if (/^1F55[0-9A-F]$|^1F56[0-7]$/.test(hexcode)) return false; // clock faces
  if (/200D-264[02]/.test(hexcode) || /^1F46[89]-/.test(hexcode)) return false; // gender variants, couples of two named genders
  return !/^family|: facing right$|: (man|woman|men|women),/.test(label) && !/^1F9D1-200D-1F9D[12]/.test(hexcode);
}

/** The glyphs: name, hexcode, group and every squashed name under which some set may have it, the surest first. */
function glyphs() {
  const entries = read("emojibase-data/en/data.json");
  const groups = read("emojibase-data/meta/groups.json").groups;
  const shortcodes = ["cldr", "github", "emojibase", "iamcal", "joypixels", "emojibase-legacy"].map((set) =>
    read(`emojibase-data/en/shortcodes/${set}.json`),
  );
  const sets = ["noto", "twemoji", "fluent-emoji-flat"].map((set) => [
    read(`@iconify-json/${set}/chars.json`),
    read(`@iconify-json/${set}/icons.json`),
  ]);
  // Names of every entry, wanted or not: a name that belongs to an unwanted one must not be taken for a wanted one.
  const owners = new Map();
  const claims = entries.map((entry) => {
    const icons = sets.map(([chars]) => chars[bare(entry.hexcode)]).filter(Boolean);
    const aliases = sets.flatMap(([, { aliases = {} }]) =>
      Object.keys(aliases).filter(
        (name) => icons.includes(aliases[name].parent) && Object.keys(aliases[name]).length === 1,
      ),
    );
    return [[entry.label], icons, shortcodes.map((set) => set[entry.hexcode] ?? []).flat(), aliases];
  });
  for (let tier = 0; tier < 4; tier++) {
    entries.forEach((entry, i) => {
      for (const name of claims[i][tier].map(squash)) if (!owners.has(name)) owners.set(name, entry.hexcode);
    });
  }
  return entries.filter(wanted).map((entry, _, all) => ({
    name: nameOf(entry.label),
    hexcode: entry.hexcode,
    group: groups[entry.group],
    order: entry.order,
    names: claims[entries.indexOf(entry)]
      .flat()
      .map(squash)
      .filter((name) => owners.get(name) === entry.hexcode),
  }));
}

/** An icon of a set, aliases resolved: `{ body, left, top, width, height, hFlip }`. */
function icon(set, name) {
  const alias = set.aliases?.[name];
  const data = alias ? { ...icon(set, alias.parent), ...alias } : set.icons[name];
  if (data.rotate || data.vFlip) throw new Error(`${set.prefix}:${name}: rotation is not implemented`);
  return data;
}

function draw(set, name) {
  const { body, hFlip, left = 0, top = 0, width = set.width ?? 16, height = set.height ?? 16 } = icon(set, name);
  const drawing = hFlip ? `<g transform="translate(${2 * left + width} 0) scale(-1 1)">${body}</g>` : body;
  // A margin as wide as the picture, cut off again: resvg fails on some groups that lie outside of all that it draws.
  const viewBox = [left - width, top - height, 3 * width, 3 * height].join(" ");
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${3 * SIZE}" ` +
    `height="${3 * SIZE}" viewBox="${viewBox}">${drawing}</svg>`;
  const crop = { left: SIZE, top: SIZE, right: 2 * SIZE, bottom: 2 * SIZE };
  return new Resvg(svg, { background: "white", crop, font: { loadSystemFonts: false } }).render();
}

const out = process.argv[2];
if (!out) throw new Error("usage: node render.mjs OUT");
const pictures = join(out, "pictures");
for (const folder of [pictures, join(out, "sets")]) rmSync(folder, { recursive: true, force: true });

const known = glyphs().sort((a, b) => a.order - b.order);
const items = [];
for (const style of STYLES) {
  const set = read(`@iconify-json/${style}/icons.json`);
  let chars = {};
  try {
    chars = read(`@iconify-json/${style}/chars.json`);
  } catch {
    // The older sets have names only.
  }
  const byName = new Map();
  for (const name of [...Object.keys(set.aliases ?? {}), ...Object.keys(set.icons)]) byName.set(squash(name), name);
  mkdirSync(join(pictures, style), { recursive: true });
  const seen = new Set();
  for (const { name, hexcode, group, names } of known) {
    const found = chars[bare(hexcode)] ?? byName.get(names.find((candidate) => byName.has(candidate)));
    if (!found) continue;
    const picture = draw(set, found);
    const pixels = createHash("sha256").update(picture.pixels).digest("hex");
    if (seen.has(pixels)) continue; // the same drawing under a second code point
    seen.add(pixels);
    const file = `${style}/${name.replaceAll(" ", "-")}.png`;
    writeFileSync(join(pictures, file), picture.asPng());
    items.push({ glyph: name, hexcode, group, style, file });
  }
}

// The classifier's test pairs: the first tenth in the order of a hash, of glyphs that at least two other styles draw.
const styles = new Map();
for (const { glyph } of items) styles.set(glyph, (styles.get(glyph) ?? 0) + 1);
const order = (item) => createHash("sha256").update(`${SEED} ${item.file}`).digest("hex");
const shuffled = [...items].sort((a, b) => (order(a) < order(b) ? -1 : 1));
const left = new Map(styles);
let wantedTests = Math.round(items.length * TEST_SHARE);
for (const item of shuffled) {
  item.split = "classifier-train";
  if (wantedTests === 0 || left.get(item.glyph) < 3) continue;
  item.split = "classifier-test"; // and at least two pictures of the glyph stay for training
  left.set(item.glyph, left.get(item.glyph) - 1);
  wantedTests--;
}

const heldOut = new Set(HELD_OUT_PAIRS);
for (const item of items) {
  if (!DIFFUSION_STYLES.includes(item.style)) continue;
  const pair = DIFFUSION_GLYPHS.includes(item.glyph);
  item.diffusion = !pair ? "held-out" : heldOut.has(`${item.style}: ${item.glyph}`) ? "held-out-pairs" : "train";
  mkdirSync(join(out, "sets", item.diffusion), { recursive: true });
  copyFileSync(join(pictures, item.file), join(out, "sets", item.diffusion, item.file.replace("/", "-")));
}

const drawn = known.filter(({ name }) => styles.has(name)).map(({ name }) => name);
writeFileSync(
  join(pictures, "index.json"),
  JSON.stringify({ glyphs: drawn, styles: STYLES, pictures: items }, null, 1),
);

console.log(`${items.length} pictures of ${drawn.length} glyphs`);
for (const style of STYLES) console.log(`  ${style}: ${items.filter((item) => item.style === style).length}`);
for (const key of ["split", "diffusion"]) {
  for (const value of new Set(items.map((item) => item[key]).filter(Boolean))) {
    console.log(`  ${value}: ${items.filter((item) => item[key] === value).length}`);
  }
}
for (const style of DIFFUSION_STYLES) {
  const of = (value) => items.filter((item) => item.style === style && item.diffusion === value);
  const missing = DIFFUSION_GLYPHS.filter(
    (glyph) => !items.some((item) => item.style === style && item.glyph === glyph),
  );
  console.log(
    `  ${style}: ${of("train").length} seen, ${of("held-out-pairs").length} held out, no picture of: ${missing}`,
  );
}
