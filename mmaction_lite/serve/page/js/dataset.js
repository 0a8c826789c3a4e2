// Dataset mode: the clips of a data set with label and prediction, the worst first. Labels are corrected in a file of
// the server; the data set itself stays as it is.

import { showProblem } from "./alerts.js";
import { get, request } from "./api.js";
import { $, announce, element } from "./dom.js";
import { percent } from "./format.js";
import { playWithin, preview } from "./media.js";

const RESULTS = { "": "All", "wrong=true": "Wrong", "wrong=false": "Correct", "corrected=true": "Corrected" };
const ORDERS = { worst: "Worst first", best: "Best first", name: "By name" };
let summary = null;
let chosen = { class: "", predicted: "", result: "", sort: "worst", page: 1 };
let isShown = false;

/** Whether the server has a data set to show. */
export async function isOffered() {
  summary = await get("v1/data/summary").catch(() => null);
  return Boolean(summary);
}

export function show() {
  if (isShown) return;
  isShown = true;
  $("data").replaceChildren(element("div", { id: "data-tiles" }), filters(), element("ul", { class: "clips", id: "clips" }), element("nav", { class: "pager", id: "pager", "aria-label": "Pages" }));
  drawTiles();
  load();
}

export function hide() {}

/** How to write predictions of a split. Training splits are not tested. */
function howToPredict(split) {
  if (split === "train") return "There are no predictions.";
  return `There are no predictions. Write them with mmaction-lite test RUN --data DATA --protocol ${split} --dump RUN/${split}.npz, then start serve again.`;
}

function drawTiles() {
  const { num_clips: clips, num_corrected: corrected, classes, protocol } = summary;
  const wrong = classes.reduce((sum, each) => sum + (each.num_wrong ?? 0), 0);
  const labels = classes.reduce((sum, each) => sum + each.num_clips, 0);
  const list = [["Clips", clips], ["Classes", classes.length], ["Corrected labels", corrected]];
  if (summary.has_predictions) list.splice(2, 0, ["Correct", percent(labels ? 1 - wrong / labels : 0)], ["Wrong", wrong]);
  $("data-tiles").replaceChildren(
    element("div", { class: "run-heading" }, element("p", {}, element("strong", {}, summary.name)),
      element("p", { class: "soft small-text" }, protocol ?? howToPredict(summary.split))),
    element("dl", { class: "tiles" }, ...list.map(([name, value]) => element("div", { class: "card" }, element("dt", {}, name), element("dd", {}, `${value}`)))),
  );
}

function filters() {
  const names = (text) => ({ "": "All", ...Object.fromEntries(summary.classes.map((each) => [each.class, text(each)])) });
  const withErrors = (each) => `${each.class} (${each.num_clips}${each.num_wrong === null ? "" : `, ${each.num_wrong} wrong`})`;
  const form = element("form", { class: "filters", "aria-label": "Filter" }, select("Class", "class", names(withErrors)));
  if (summary.has_predictions) form.append(select("Prediction", "predicted", names((each) => each.class)));
  form.append(select("Result", "result", summary.has_predictions ? RESULTS : { "": "All", "corrected=true": "Corrected" }));
  if (summary.has_predictions) form.append(select("Order", "sort", ORDERS));
  form.append(element("p", { class: "count soft", id: "clip-count", role: "status" }));
  return form;
}

function select(label, key, choices) {
  const change = (event) => {
    chosen = { ...chosen, [key]: event.target.value, page: 1 };
    load();
  };
  const options = Object.entries(choices).map(([value, text]) => element("option", { value, selected: chosen[key] === value }, text));
  return element("label", {}, label, element("select", { change }, ...options));
}

async function load() {
  const wanted = chosen;
  const query = new URLSearchParams(wanted.result);
  for (const key of ["class", "predicted", "sort", "page"]) {
    if (wanted[key] !== "") query.set(key, wanted[key]);
  }
  try {
    const answer = await get(`v1/data/clips?${query}`);
    if (wanted !== chosen) return; // a later choice
    $("clips").replaceChildren(...answer.clips.map(card));
    $("clip-count").textContent = `${answer.num_clips} clip${answer.num_clips === 1 ? "" : "s"}`;
    drawPager(answer);
  } catch (problem) {
    showProblem(problem);
  }
}

function drawPager({ page, num_pages: pages }) {
  const turn = (to) => () => ((chosen = { ...chosen, page: to }), load(), $("data-title").scrollIntoView());
  $("pager").hidden = pages < 2;
  $("pager").replaceChildren(
    element("button", { class: "quiet", type: "button", disabled: page <= 1, click: turn(page - 1) }, "Previous"),
    element("span", { class: "soft" }, `Page ${page} of ${pages}`),
    element("button", { class: "quiet", type: "button", disabled: page >= pages, click: turn(page + 1) }, "Next"),
  );
}

function card(clip) {
  const path = `v1/data/clips/${encodeURIComponent(clip.id)}/video`;
  const part = clip.start === null ? "" : `#t=${clip.start}${clip.end === null ? "" : `,${clip.end}`}`;
  const video = preview(path, { part, retry: `${path}?convert=true` });
  const toggle = () => (video.paused ? video.play().catch(() => {}) : video.pause());
  const button = element("button", { class: "clip-play", type: "button", "aria-label": `Play ${clip.name}`, click: toggle }, video);
  playWithin(button, video);
  const rows = [["Label", clip.labels.join(", "), ""]];
  if (clip.corrected) rows.push(["Corrected", clip.corrected.join(", "), ""]);
  if (clip.predicted) {
    rows.push(["Predicted", `${clip.predicted.join(", ")} ${percent(clip.probability)}`, clip.wrong ? "wrong" : "right"]);
    if (clip.wrong) rows.push(["Score of the label", percent(clip.true_probability), ""]);
  } else if (summary.has_predictions) rows.push(["Predicted", "none: the video was not readable", "wrong"]);
  const facts = rows.flatMap(([name, value, kind]) => [element("dt", {}, name), element("dd", { class: kind }, value)]);
  const item = element("li", { class: "card clip" }, button,
    element("div", { class: "clip-body" }, element("p", { class: "clip-name" }, clip.name), element("dl", {}, ...facts)));
  item.lastChild.append(relabel(clip, item));
  return item;
}

/** A choice of the correct label, or of several for clips with several labels. */
function relabel(clip, item) {
  const current = clip.corrected ?? clip.labels;
  const isMultiple = clip.labels.length !== 1;
  const options = summary.classes.map((each) => element("option", { value: each.class, selected: current.includes(each.class) }, each.class));
  const choice = element("select", { multiple: isMultiple, size: isMultiple ? 5 : false, "aria-label": `Correct label of ${clip.name}` }, ...options);
  const save = () => send([...choice.selectedOptions].map((option) => option.value));
  const send = async (labels) => {
    try {
      const headers = { "Content-Type": "application/json" };
      const path = `v1/data/clips/${encodeURIComponent(clip.id)}/label`;
      const changed = await (await request(path, { method: "POST", headers, body: JSON.stringify({ labels }) })).json();
      const replacement = card(changed);
      item.replaceWith(replacement);
      replacement.querySelector("select").focus();
      announce(changed.corrected ? `Corrected to ${changed.corrected.join(", ")}.` : "The correction is removed.");
      summary = await get("v1/data/summary");
      drawTiles();
    } catch (problem) {
      showProblem(problem);
    }
  };
  if (!isMultiple) choice.addEventListener("change", save);
  const undo = clip.corrected && element("button", { class: "link", type: "button", click: () => send(null) }, "Undo");
  const button = isMultiple && element("button", { class: "quiet", type: "button", click: save }, "Save");
  return element("div", { class: "relabel" }, element("label", {}, element("span", {}, "Correct label"), choice), button || null, undo || null);
}
