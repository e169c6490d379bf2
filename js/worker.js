// @ts-check
// The worker's entry: every port it is sent becomes a pipeline's host.

import { serve } from "./host.js";

self.addEventListener("message", ({ data }) => {
  if (data?.undiffuse instanceof MessagePort) serve(data.undiffuse);
});
