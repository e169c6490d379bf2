/** The package's worker, which answers anything else that it is sent with how many workers it has itself. */
import "./pkg/worker.js";

let alive = 0;

globalThis.Worker = class extends Worker {
  constructor(url, options) {
    super(url, options);
    alive++;
  }

  terminate() {
    super.terminate();
    alive--;
  }
};

self.addEventListener("message", ({ data }) => {
  if (data === "count") self.postMessage(alive);
});
