// Prints the bytes of all files together, each compressed as a static host would send it.
import { readFileSync } from "node:fs";
import { brotliCompressSync } from "node:zlib";

console.log(process.argv.slice(2).reduce((sum, path) => sum + brotliCompressSync(readFileSync(path)).length, 0));
