// Choose a video: drop or paste it, pick a file, an address or an example.

import { hideAlerts, showProblem } from "./alerts.js";
import { get } from "./api.js";
import { $, element } from "./dom.js";
import { bytes, span } from "./format.js";
import { playWithin, preview } from "./media.js";

let choose = () => {};
let limits = {};

/** Call `onChoose(source)` with every video that is chosen. */
export function start(onChoose) {
  choose = onChoose;
}

/** State the limits, and show the form for addresses if the server fetches some. */
export function setLimits(known) {
  limits = known;
  const parts = [
    limits.max_bytes && `up to ${bytes(limits.max_bytes)}`,
    limits.max_seconds && span(limits.max_seconds),
    limits.max_side && `${limits.max_side} pixels a side`,
  ].filter(Boolean);
  $("limits").textContent = `MP4, MOV, MKV, WebM, AVI or MPEG${parts.length ? `, ${parts.join(", ")}` : ""}.`;
  const kept = limits.result_seconds ? `, the results of a timeline and its video after ${span(limits.result_seconds)}` : "";
  $("kept").textContent = `The server deletes a video after its answer${kept}.`;
  $("address").hidden = !limits.urls;
}

/** Take a file; obvious mistakes are found before the upload. */
export function take(file) {
  hideAlerts();
  if (!file.size) {
    return showProblem({ title: "The file is empty", message: `${file.name} has 0 bytes.`, advice: "Choose another file." });
  }
  if (file.size > limits.max_bytes) {
    const message = `${file.name} has ${bytes(file.size)}; this server takes up to ${bytes(limits.max_bytes)}.`;
    return showProblem({ title: "The file is too large", message, advice: "Choose a shorter or smaller video." });
  }
  choose({ name: file.name, file });
}

/** List the examples of the server, if it has some. */
export async function showExamples() {
  const { examples } = await get("v1/examples").catch(() => ({ examples: [] }));
  $("examples").hidden = !examples.length;
  examples.sort((a, b) => Boolean(a.class) - Boolean(b.class)); // first those with several actions
  $("example-list").replaceChildren(...examples.map(exampleItem));
}

function exampleItem({ name, title }) {
  const video = preview(`v1/examples/${encodeURIComponent(name)}`);
  const button = element("button", { class: "example", type: "button", click: () => choose({ name: title, example: name }) },
    video, element("span", { class: "example-name" }, title));
  playWithin(button, video);
  return element("li", {}, button);
}

const fileOf = (transfer) => [...(transfer?.files ?? [])][0];
let depth = 0; // dragenter and dragleave also come from the elements inside

addEventListener("dragenter", (event) => {
  if (event.dataTransfer?.types.includes("Files")) $("curtain").hidden = !++depth;
});
addEventListener("dragleave", () => {
  depth = Math.max(0, depth - 1);
  $("curtain").hidden = !depth;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  $("curtain").hidden = true;
  const file = fileOf(event.dataTransfer);
  if (file) take(file);
});
addEventListener("paste", (event) => {
  const file = fileOf(event.clipboardData);
  if (file) take(file);
});
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) take(file);
  $("file").value = ""; // the same file may be chosen again
});
$("address").addEventListener("submit", (event) => {
  event.preventDefault();
  const url = $("url").value.trim();
  choose({ name: url.split("/").pop().split("?")[0] || url, url });
});
