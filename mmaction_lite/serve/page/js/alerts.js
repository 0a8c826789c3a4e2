// Messages above the page.

import { $, element, icon } from "./dom.js";

/** Show an error: what happened, the details, and how to go on. Further errors replace it. */
export function showProblem(problem) {
  if (problem.name === "AbortError") return; // the user's own cancellation
  const title = problem.title || "The page failed";
  const detail = problem.message === title ? "" : problem.message;
  const text = element("p", {}, element("strong", {}, sentence(title)), ` ${sentence(detail)} ${problem.advice || ""}`.trimEnd());
  const close = element("button", { class: "round", type: "button", "aria-label": "Close", click: hideAlerts }, icon("close"));
  $("alerts").replaceChildren(element("div", { class: "alert" }, text, close));
  $("alerts").scrollIntoView({ block: "nearest" });
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return !whole || /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

export function hideAlerts() {
  $("alerts").replaceChildren();
}
