// The timeline: one lane per class with its probability over time, a ribbon with the most probable class, and the
// play head. Drawn on a canvas, since two hours have thousands of windows. It is a slider for keyboards.

import { $, color, element } from "./dom.js";
import { clock, percent } from "./format.js";
import * as player from "./player.js";

const LANES = 6;
const HUES = 8; // colours of css/base.css
const RIBBON = 30; // heights in CSS pixels; css/video.css has the same
const LANE = 26;
const track = $("track");
let windows = null;
let hues = new Map(); // class -> number of its colour

/** Show windows, those that arrived so far included. */
export function show(shown) {
  windows = shown;
  const names = shown.classes().slice(0, LANES);
  assignHues(names);
  $("lane-names").replaceChildren(
    element("li", { class: "ribbon-name" }, "Most probable"),
    ...names.map((name) => element("li", { title: name, class: `hue-${hues.get(name)}` }, element("span", {}, name))),
  );
  $("timeline").hidden = false;
  draw();
  follow(player.time());
}

/** Give each class a colour that no other one has. A class keeps its colour while windows arrive. */
function assignHues(names) {
  const assigned = new Map(names.filter((name) => hues.has(name)).map((name) => [name, hues.get(name)]));
  for (const name of names) {
    const used = new Set(assigned.values());
    if (!assigned.has(name)) assigned.set(name, [...Array(HUES).keys()].find((hue) => !used.has(hue)));
  }
  hues = new Map(names.map((name) => [name, assigned.get(name)]));
}

/** Forget the windows. */
export function clear() {
  windows = null;
  hues = new Map();
  $("lane-names").replaceChildren();
  draw();
}

/** The number of the colour of a class, or null. */
export const hueOf = (name) => hues.get(name) ?? null;

function draw() {
  const canvas = $("lanes");
  const lanes = [...hues.keys()];
  const [width, height] = [track.clientWidth, RIBBON + lanes.length * LANE];
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const length = player.duration();
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = color("--rail");
  pen.beginPath();
  pen.roundRect(0, 3, width, RIBBON - 8, 6);
  pen.fill();
  drawTicks(length);
  if (!windows || !length) return;
  const stretches = windows.stretches(length);
  pen.save();
  pen.clip(); // the ribbon has round ends
  for (const { from, to, window } of stretches) {
    const best = window.top[0];
    if (!best) continue;
    pen.globalAlpha = 0.35 + 0.65 * best.probability;
    pen.fillStyle = hues.has(best.class) ? color(`--hue-${hues.get(best.class)}`) : color("--soft");
    pen.fillRect((from / length) * width, 3, Math.max(1, ((to - from) / length) * width + 0.5), RIBBON - 8);
  }
  pen.restore();
  lanes.forEach((name, i) => drawLane(pen, stretches, name, { y: RIBBON + i * LANE, width, length }));
}

function drawLane(pen, stretches, name, { y, width, length }) {
  const hue = color(`--hue-${hues.get(name)}`);
  const bottom = y + LANE - 4;
  pen.fillStyle = color("--rail");
  pen.fillRect(0, bottom, width, 1);
  pen.fillStyle = hue;
  for (const { from, to, window } of stretches) {
    const found = window.top.find((entry) => entry.class === name);
    if (!found) continue;
    const high = Math.max(1, found.probability * (LANE - 8));
    pen.globalAlpha = window.top[0] === found ? 0.95 : 0.5;
    pen.fillRect((from / length) * width, bottom - high, Math.max(1, ((to - from) / length) * width + 0.3), high);
  }
  pen.globalAlpha = 1;
}

/** Times below the timeline, about one per 90 pixels, at round numbers. */
function drawTicks(length) {
  const steps = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];
  const step = steps.find((s) => (s / length) * track.clientWidth >= 72) || 14400;
  const ticks = [];
  for (let at = 0; length && at <= length * 0.97; at += step) {
    const tick = element("span", {}, clock(at).replace(/\.0$/, ""));
    tick.style.left = `${(100 * at) / length}%`;
    ticks.push(tick);
  }
  $("ticks").replaceChildren(...ticks);
}

function follow(now) {
  const length = player.duration();
  const share = length ? Math.min(1, now / length) : 0;
  $("head").style.transform = `translateX(${share * track.clientWidth}px)`;
  track.setAttribute("aria-valuemax", length.toFixed(2));
  track.setAttribute("aria-valuenow", now.toFixed(2));
  const best = windows?.at(now)?.top[0];
  track.setAttribute("aria-valuetext", `${clock(now)}${best ? `, ${best.class} ${percent(best.probability)}` : ""}`);
}

function seekTo(event) {
  const box = track.getBoundingClientRect();
  player.seek(((event.clientX - box.left) / box.width) * player.duration());
}

track.addEventListener("pointerdown", (event) => {
  track.setPointerCapture(event.pointerId);
  player.pause();
  seekTo(event);
});
track.addEventListener("pointermove", (event) => event.buttons && seekTo(event));
track.addEventListener("keydown", (event) => {
  const step = windows?.stride() ?? 0.5;
  const [now, length] = [player.time(), player.duration()];
  const targets = {
    ArrowRight: now + step, ArrowUp: now + step, ArrowLeft: now - step, ArrowDown: now - step,
    PageUp: now + length / 10, PageDown: now - length / 10, Home: 0, End: length,
  };
  if (!(event.key in targets)) return;
  event.preventDefault();
  player.pause();
  player.seek(targets[event.key]);
});
player.onTime(follow);
new ResizeObserver(() => (draw(), follow(player.time()))).observe(track);
document.addEventListener("themechange", draw);
