// The most probable classes: those of the window at the play head, or those of the whole video.

import { $, element } from "./dom.js";
import { clock, percent } from "./format.js";
import * as player from "./player.js";
import { hueOf } from "./timeline.js";

const ROWS = 5;
let whole = [];
let windows = null;
let followsHead = true;
let shown = null; // what the bars show: nothing is drawn again while the play head stays in a window

/** Show the classes of the whole video, and windows as soon as there are some. */
export function show(predictions, shownWindows) {
  [whole, windows, shown] = [predictions, shownWindows, null];
  draw(player.time());
}

export function clear() {
  show([], null);
}

function draw(now) {
  const window = followsHead ? windows?.at(now) : null;
  const list = window ? window.top : whole;
  if (shown === list) return;
  shown = list;
  $("bars-span").textContent = window
    ? `Window from ${clock(window.start)} to ${clock(window.end)}`
    : followsHead && windows?.list.length ? "No window here; the whole video" : "The whole video";
  const rows = [...$("bars").children];
  list.slice(0, ROWS).forEach((entry, i) => fillRow(rows[i] || addRow(), entry));
  rows.slice(list.length).forEach((row) => row.remove());
}

function addRow() {
  const row = element(
    "li", {},
    element("span", { class: "bar-name" }), element("span", { class: "bar-value" }),
    element("span", { class: "bar", "aria-hidden": "true" }, element("span", { class: "bar-fill" })),
  );
  $("bars").append(row);
  return row;
}

function fillRow(row, entry) {
  const [name, value, bar] = row.children;
  const hue = hueOf(entry.class);
  row.className = hue === null ? "" : `hue-${hue}`;
  name.textContent = entry.class;
  name.title = entry.class;
  value.textContent = percent(entry.probability);
  bar.firstChild.style.width = `${100 * entry.probability}%`;
}

function choose(isHead) {
  followsHead = isHead;
  $("bars-head").setAttribute("aria-pressed", String(isHead));
  $("bars-whole").setAttribute("aria-pressed", String(!isHead));
  shown = null;
  draw(player.time());
}

$("bars-head").addEventListener("click", () => choose(true));
$("bars-whole").addEventListener("click", () => choose(false));
player.onTime(draw);
