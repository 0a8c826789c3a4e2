// What stands beside the player: facts, verdict, frames, times, actions.

import { $, element } from "./dom.js";
import { clock, milliseconds, percent } from "./format.js";
import * as player from "./player.js";
import { hueOf } from "./timeline.js";

const STAGES = [["upload", "Upload"], ["decode", "Decode"], ["queue", "Wait"], ["network", "Network"]];

/** Empty everything for a new video. */
export function clear(name) {
  $("subject-name").textContent = name;
  $("subject-facts").textContent = " ";
  $("work").setAttribute("aria-busy", "true");
  for (const id of ["verdict-class", "verdict-score", "protocol", "frames", "stages", "timing", "segment-list"]) {
    $(id).replaceChildren();
  }
  $("segments").hidden = true;
  $("unplayable").hidden = true;
}

/** Say why there is no video to play. */
export function showUnplayable(text) {
  $("unplayable").textContent = text;
  $("unplayable").hidden = false;
}

/** Show the answer to a prediction. */
export function showResult(name, result) {
  const { size, fps, duration_seconds: seconds, predictions, protocol, frames, timing_ms: timing } = result;
  $("work").removeAttribute("aria-busy");
  const facts = [clock(seconds), size && `${size[1]} × ${size[0]}`, fps && `${+fps.toFixed(2)} frames per second`];
  $("subject-facts").textContent = facts.filter(Boolean).join(" · ");
  const [best] = predictions;
  $("verdict-class").textContent = best?.class ?? "No class";
  $("verdict-score").textContent = best ? percent(best.probability) : "";
  $("protocol").textContent = protocol;
  $("frames").replaceChildren(...frames.map(frameItem));
  showTiming(timing);
}

function frameItem(frame) {
  const hasTime = frame.seconds !== null;
  const label = hasTime ? `Go to frame ${frame.index}, ${clock(frame.seconds)}` : `Frame ${frame.index}`;
  const picture = frame.thumbnail ? element("img", { src: frame.thumbnail, alt: "", loading: "lazy" }) : null;
  const jump = () => (player.pause(), player.seek(frame.seconds));
  return element("li", {}, element("button", { type: "button", "aria-label": label, disabled: !hasTime, click: jump }, picture, hasTime ? clock(frame.seconds) : `${frame.index}`));
}

function showTiming(timing) {
  const known = STAGES.filter(([key]) => timing[key] !== undefined && timing[key] !== null);
  const total = known.reduce((sum, [key]) => sum + timing[key], 0) || 1;
  $("stages").replaceChildren(
    ...known.map(([key]) => {
      const part = element("span", { class: `stage-${key}` });
      part.style.width = `${(100 * timing[key]) / total}%`;
      return part;
    }),
  );
  $("timing").replaceChildren(
    ...known.map(([key, name]) =>
      element("div", {}, element("dt", { class: `stage-${key}` }, name), element("dd", {}, milliseconds(timing[key]))),
    ),
  );
}

/** List the actions that the job found; a click moves the play head. */
export function showSegments(segments) {
  $("segments").hidden = !segments.length;
  $("segment-list").replaceChildren(
    ...segments.map((segment) => {
      const { start, end, class: name, probability } = segment;
      const hue = hueOf(name);
      const jump = () => (player.pause(), player.seek(start));
      return element(
        "li", { class: hue === null ? "" : `hue-${hue}` },
        element("button", { type: "button", click: jump },
          element("span", { class: "segment-time" }, `${clock(start)} – ${clock(end)}`),
          element("span", { class: "segment-name" }, name),
          element("span", { class: "segment-score" }, percent(probability)),
        ),
      );
    }),
  );
}

/** Show what the server does: a share, or null if it is unknown; no text hides the line. */
export function setJob(share, text = "") {
  $("job").hidden = !text;
  $("job-text").textContent = text;
  if (share === null) $("job-progress").removeAttribute("value");
  else $("job-progress").value = share;
  if (!text) setCancel(null);
}

/** Offer to cancel the job. */
export function setCancel(cancel) {
  $("job-cancel").hidden = !cancel;
  $("job-cancel").onclick = cancel;
}
