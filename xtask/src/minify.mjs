// Makes every script in a folder smaller, each by itself and in place.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { minifySync } from "vite";

const [folder] = process.argv.slice(2);
const scripts = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".js"));
for (const path of scripts.map((name) => join(folder, name))) {
  const { code, errors } = minifySync(path, readFileSync(path, "utf8"), { module: true });
  if (errors.length > 0) throw new Error(`${path}: ${errors[0].message}`);
  writeFileSync(path, code);
}
