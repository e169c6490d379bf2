// @ts-check
// The worker's entry: every port it is sent becomes the host of a pipeline or of an extractor of features.

import { FeatureHost } from "./features_host.js";
import { serve } from "./host.js";

self.addEventListener("message", ({ data }) => {
  if (data?.undiffuse instanceof MessagePort) serve(data.undiffuse, FeatureHost);
});
