/** A thread of Node.js that helps with the batches of `crew.test.js`. */
import { workerData } from "node:worker_threads";
import { follow } from "../../../js/crew.js";
import { recorder } from "./recorder.js";

follow(workerData.state, recorder(workerData.record));
