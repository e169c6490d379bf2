// @ts-check
/** @param {import("./app.js").Page} page @returns {import("./app.js").View} */
export function open(page) {
  void page;
  throw new Error("not there yet");
}
