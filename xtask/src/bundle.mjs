// Makes what a page loads of a folder's scripts small, in place: the package's, in `pkg/`, become one for each place that they are
// started from and one for what these share, as an application would bundle them. The page's own are minified one by one.
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildSync } from "esbuild";
import { minifySync } from "vite";

/** The package's face, what the page imports of it, each for itself, and its workers. */
const ENTRIES = [
  "index.js",
  "pipeline.js",
  "features.js",
  "errors.js",
  "picture.js",
  "source.js",
  "worker.js",
  "kernels_worker.js",
];

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
for (const { path, contents } of outputFiles) writeFileSync(path, contents);

for (const path of scripts.filter((name) => !ofPackage.includes(name)).map((name) => join(folder, name))) {
  const { code, errors } = minifySync(path, readFileSync(path, "utf8"), { module: true });
  if (errors.length > 0) throw new Error(`${path}: ${errors[0].message}`);
  writeFileSync(path, code);
}
