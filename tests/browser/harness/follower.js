/** A thread of Node.js that helps with the batches of `crew.test.js`. */
import { workerData } from "node:worker_threads";
import { follow } from "../../../js/crew.js";
import { recorder } from "./recorder.js";

const { state, record, sleeps } = workerData;

/** Says that it has a part, and sleeps over it. */
function sleep() {
  Atomics.add(record, 0, 1);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, sleeps);
}

follow(state, sleeps === undefined ? recorder(record) : sleep);
