// @ts-check
// The public face of the package. Its types, with the documentation, are in index.d.ts.

export { AbortError, DeviceError, ModelError, OptionError, SourceError, StateError, UndiffuseError } from "./errors.js";
export { FeatureExtractor } from "./features.js";
export { Pipeline } from "./pipeline.js";
