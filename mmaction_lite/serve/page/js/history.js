// The videos of this session. Videos stay in memory; results survive a reload of the tab; nothing is sent anywhere.

import { $, element } from "./dom.js";
import { percent } from "./format.js";
import { Windows } from "./windows.js";

const KEY = "mmaction-lite history";
const MOST = 12;
let entries = [];
let open = () => {};

/** Restore the entries of this tab; `onOpen(entry)` is called when one is chosen. */
export function start(onOpen) {
  open = onOpen;
  try {
    entries = JSON.parse(sessionStorage.getItem(KEY) ?? "[]").map(({ windows, ...entry }) => ({ ...entry, windows: new Windows(windows) }));
  } catch {
    entries = []; // of another version of the page
  }
  draw();
}

/** Add a video with its result. */
export function add({ source, model, result, windows }) {
  entries = [{ source, model, result, windows, segments: [] }, ...entries].slice(0, MOST);
  store();
}

/** Keep the segments too. */
export function update({ result, segments }) {
  const entry = entries.find((each) => each.result === result);
  if (entry) entry.segments = segments;
  store();
}

function store() {
  const plain = entries.map(({ source, model, result, windows, segments }) => ({
    source: { name: source.name, example: source.example, url: source.url },
    model,
    result: { ...result, frames: result.frames.map(({ index, seconds }) => ({ index, seconds })) },
    windows: windows.list.slice(0, 2000),
    segments: segments.slice(0, 500),
  }));
  try {
    sessionStorage.setItem(KEY, JSON.stringify(plain));
  } catch {
    sessionStorage.removeItem(KEY); // over the browser's limit: the entries stay in memory
  }
  draw();
}

function draw() {
  $("history").hidden = !entries.length;
  $("history-list").replaceChildren(
    ...entries.map((entry) => {
      const [best] = entry.result.predictions;
      return element("li", {}, element("button", { class: "chip", type: "button", click: () => open(entry) },
        element("span", { class: "chip-name" }, entry.source.name),
        element("span", { class: "soft" }, best ? `${best.class} ${percent(best.probability)}` : "no class"),
        element("span", { class: "soft" }, entry.result.model),
      ));
    }),
  );
}

$("history-clear").addEventListener("click", () => {
  entries = [];
  store();
  $("main").focus();
});
