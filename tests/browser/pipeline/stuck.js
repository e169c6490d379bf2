/** The package's worker, which does nothing else for a while when it is told so, as in the middle of a call that cannot be stopped. */
import "./pkg/worker.js";

self.addEventListener("message", ({ data }) => {
  if (data?.stuckFor === undefined) return;
  for (const end = Date.now() + data.stuckFor; Date.now() < end;);
});
