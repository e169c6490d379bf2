// @ts-check
// What the page has in place of the package's own worker until it needs features: one that serves pipelines alone.

import { serve } from "./pkg/host.js";

self.addEventListener("message", ({ data }) => {
  if (data?.undiffuse instanceof MessagePort) serve(data.undiffuse);
});
