// @ts-check
// The typed errors of the package, and their plain form for the way between threads.

/** @import { ErrorCode, ErrorDetails } from "./index.d.ts" */

/** Every error that this package raises on purpose. */
export class UndiffuseError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message
   * @param {ErrorDetails} [details]
   */
  constructor(code, message, details = {}) {
    super(message, "cause" in details ? { cause: details.cause } : undefined);
    this.code = code;
    this.file = details.file;
    this.tensor = details.tensor;
    this.option = details.option;
    this.limit = details.limit;
  }
}

/** A file of the checkpoint (or the .wasm) could not be read, or is not what it should be. */
export class SourceError extends UndiffuseError {}

/**
 * What to do where one of the package's own scripts, fetched for its first use, does not arrive.
 * @param {string} file
 * @returns {(cause: unknown) => never}
 */
export function unloaded(file) {
  return (cause) => {
    throw new SourceError("network", `The package's own ${file} could not be loaded: ${cause}.`, { file });
  };
}

/** The checkpoint was read, but its parts do not fit together or are of a kind this version cannot run. */
export class ModelError extends UndiffuseError {}

/** The GPU is absent, was lost, ran out of memory, or computed something that is not a number. */
export class DeviceError extends UndiffuseError {}

/** An option has a wrong name, type or value. */
export class OptionError extends UndiffuseError {}

/** The caller's signal was aborted, or a run was left before its end. */
export class AbortError extends UndiffuseError {}

/** The pipeline is not in a state to do this: busy, disposed, or its worker is gone. */
export class StateError extends UndiffuseError {}

const CLASSES = { UndiffuseError, SourceError, ModelError, DeviceError, OptionError, AbortError, StateError };
for (const [name, type] of Object.entries(CLASSES)) {
  // On the prototype, and spelled out: a minifier may rename the classes, `error.name` has to stay.
  Object.defineProperty(type.prototype, "name", { value: name, configurable: true, writable: true });
}

/** @type {Record<ErrorCode, typeof UndiffuseError>} */
const CLASS_OF_CODE = {
  "file-missing": SourceError,
  "file-truncated": SourceError,
  "file-corrupt": SourceError,
  "file-unreadable": SourceError,
  network: SourceError,
  "shape-mismatch": ModelError,
  unsupported: ModelError,
  "invalid-option": OptionError,
  "no-gpu": DeviceError,
  "device-lost": DeviceError,
  "out-of-memory": DeviceError,
  gpu: DeviceError,
  "non-finite": DeviceError,
  busy: StateError,
  disposed: StateError,
  "worker-failed": StateError,
  aborted: AbortError,
  internal: UndiffuseError,
};

/**
 * An error as a plain object, which survives structured cloning (an Error's own properties do not).
 * @typedef {{ code: ErrorCode, message: string } & ErrorDetails} PlainError
 */

/**
 * @param {PlainError} plain
 * @returns {UndiffuseError}
 */
export function fromPlain({ code, message, ...details }) {
  return new CLASS_OF_CODE[code](code, message, details);
}

/**
 * Anything that was thrown, as a plain error. What carries no known code is a defect of this package, and says so.
 * @param {any} thrown
 * @returns {PlainError}
 */
export function toPlain(thrown) {
  if (Object.hasOwn(CLASS_OF_CODE, thrown?.code)) {
    const { code, message, file, tensor, option, limit } = thrown;
    return { code, message, file, tensor, option, limit };
  }
  return { code: "internal", message: `Something went wrong inside undiffuse: ${thrown?.message ?? thrown}` };
}

/**
 * Throws the error that `signal`'s abort stands for, if it was aborted. Its cause is the signal's reason, whose words it repeats.
 * @param {AbortSignal | undefined} signal
 */
export function throwIfAborted(signal) {
  if (!signal?.aborted) return;
  const { reason } = signal;
  const isPlain = reason?.name === "AbortError";
  const why = isPlain ? "" : `: ${reason?.message ?? reason}`;
  const error = new AbortError("aborted", `Stopped, as the signal asked${why}.`.replace("..", "."), { cause: reason });
  // Of AbortSignal.timeout: the name by which callers know that it was not they who stopped it.
  if (reason?.name === "TimeoutError") error.name = "TimeoutError";
  throw error;
}
