// @ts-check
// What every view beside drawing is built on: its two parts of the page, and whether they are looked at.

/** @import { Page } from "./views.js" */

/** A part of the page: its name for those who listen, and its HTML. @typedef {{ id?: string, label: string, html: string }} Part */

/**
 * The parts of a view, which are shown while it is: one beside the form, and one below it.
 * @param {Page} page
 * @param {string} view
 * @param {{ stage: Part, below: Part }} parts
 */
export function scaffold(page, view, parts) {
  const built = (/** @type {Part} */ { id, label, html }) => {
    const section = document.createElement("section");
    if (id) section.id = id;
    section.dataset.views = view;
    section.setAttribute("aria-label", label);
    section.innerHTML = html;
    return section;
  };
  const [stage, below] = [built(parts.stage), built(parts.below)];
  page.stage.append(stage);
  page.below.append(below);
  return {
    stage,
    below,
    /** Whether the view is looked at. */
    isShown: false,
    /** One of its elements. @param {string} id */
    element: (id) => /** @type {HTMLElement} */ (document.getElementById(id)),
  };
}
