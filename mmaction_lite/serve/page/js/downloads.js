// Files with the results.

import { showProblem } from "./alerts.js";
import { getBlob } from "./api.js";
import { $, element, icon } from "./dom.js";

const FILES = [
  ["csv", "CSV", "Table of the actions"],
  ["json", "JSON", "Windows and actions"],
  ["srt", "SRT", "Subtitles"],
  ["vtt", "VTT", "Subtitles for the web"],
  ["mp4", "Video", "Annotated video"],
];

/** Offer the files of a finished job, and the answer for the whole video, which the page has already. */
export function offer(name, path, result) {
  const stem = name.replace(/\.[^.]*$/, "") || "video";
  $("downloads").replaceChildren(
    ...FILES.map(([kind, label, title]) => button(label, title, (self) => download(self, `${path}/result.${kind}`, `${stem}.${kind}`))),
  );
  const text = JSON.stringify(result, null, 2);
  $("downloads").append(button("Answer", "Answer of the REST interface for the whole video", () => save(new Blob([text], { type: "application/json" }), `${stem}.predict.json`)));
}

/** Offer no files, and say why. */
export function clear(reason = "Available when the timeline is complete.") {
  $("downloads").replaceChildren(element("p", { class: "soft small-text" }, reason));
}

function button(label, title, action) {
  const self = element("button", { class: "quiet", type: "button", title, "aria-label": `Download: ${title}` }, icon("download"), label);
  self.addEventListener("click", () => action(self));
  return self;
}

async function download(self, path, name) {
  self.disabled = true;
  self.setAttribute("aria-busy", "true");
  try {
    save(await getBlob(path), name);
  } catch (problem) {
    showProblem(problem);
  } finally {
    self.disabled = false;
    self.removeAttribute("aria-busy");
    self.focus();
  }
}

function save(blob, name) {
  const href = URL.createObjectURL(blob);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000); // a slow disk may still read it
}
