// @ts-check
// What the page uses of the package from its start on. The build makes one script of it.

export { AbortError, StateError, UndiffuseError } from "./pkg/errors.js";
export { bitmapOf } from "./pkg/picture.js";
export { Pipeline } from "./pkg/pipeline.js";
export { describeSource } from "./pkg/source.js";
