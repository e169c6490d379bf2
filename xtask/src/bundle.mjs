// Makes what a page loads of a folder's scripts small, in place: what it uses of the package, in `pkg/`, becomes one script for each place
// that it is started from and one for what these share, as an application would bundle them. The page's own are minified one by one.
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildSync } from "esbuild";
import { minifySync } from "vite";

/** Where the page's own scripts import the package from, and where that becomes a script. */
const [FACE, BUNDLED] = ["./package.js", "./pkg/site.js"];

/**
 * The scripts in `pkg/` with what they are made of. The worker is one for pipelines alone: features come with the view that needs them,
 * in a worker of their own.
 */
const ENTRIES = {
  site: "../package.js",
  features: "features.js",
  worker: "../pipeline_worker.js",
  features_worker: "worker.js",
  kernels_worker: "kernels_worker.js",
};

const [folder] = process.argv.slice(2);
const scripts = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".js"));
const ofPackage = scripts.filter((name) => name.startsWith("pkg"));

const { outputFiles, warnings } = buildSync({
  absWorkingDir: join(folder, "pkg"),
  entryPoints: ENTRIES,
  bundle: true,
  splitting: true,
  format: "esm",
  minify: true,
  outdir: ".",
  write: false,
});
if (warnings.length > 0) throw new Error(warnings[0].text);
for (const path of ofPackage) rmSync(join(folder, path));
// What is shared is called after its content: noise that no compression takes out of the scripts that import it.
/** @type {string[]} */
const shared = [];
const renamed = (/** @type {string} */ text) =>
  text.replace(/\bchunk-[A-Z\d]{8}\b/g, (name) => {
    if (!shared.includes(name)) shared.push(name);
    return `chunk${shared.indexOf(name)}`;
  });
for (const { path, text } of outputFiles) writeFileSync(renamed(path), renamed(text));

const bundled = ["package.js", "pipeline_worker.js"];
for (const name of bundled) rmSync(join(folder, name));
const own = scripts.filter((name) => !ofPackage.includes(name) && !bundled.includes(name));
for (const path of own.map((name) => join(folder, name))) {
  const { code, errors } = minifySync(path, readFileSync(path, "utf8"), { module: true });
  if (errors.length > 0) throw new Error(`${path}: ${errors[0].message}`);
  writeFileSync(path, code.replaceAll(JSON.stringify(FACE), JSON.stringify(BUNDLED)));
}
