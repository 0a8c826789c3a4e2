// The player: a <video>, or a clock with still frames where the browser cannot play the format.

import { $, setIcon } from "./dom.js";
import { clock } from "./format.js";

const video = $("video");
const listeners = new Set();
let address = null; // of the blob
let knownSeconds = 0; // from the interface: recordings of MediaRecorder do not state their duration
let virtual = { time: 0, isPlaying: false, last: 0 }; // null with a playable video
let stills = [];

/** Call `listener(seconds)` whenever the play head moves. */
export const onTime = (listener) => listeners.add(listener);

export const duration = () => (!virtual && Number.isFinite(video.duration) && video.duration) || knownSeconds;
export const time = () => (virtual ? virtual.time : video.currentTime);
export const isPlaying = () => (virtual ? virtual.isPlaying : !video.paused);

/** Show a video in place of the still frames, after `unload`. Return whether the browser can play it. */
export async function load(blob) {
  address = URL.createObjectURL(blob);
  const isPlayable = await new Promise((resolve) => {
    video.onloadedmetadata = () => resolve(video.videoWidth > 0); // 0: only the sound can be played
    video.onerror = () => resolve(false);
    video.src = address;
  });
  if (!isPlayable) return false;
  virtual = null;
  setShape(video.videoWidth / video.videoHeight);
  video.playbackRate = Number($("rate").value);
  showVideo(true);
  return true;
}

function showVideo(isShown) {
  video.hidden = $("sound").hidden = !isShown;
  $("still").hidden = isShown;
  changed();
}

/** Forget the video. Until the next one is loaded, the play head moves over the still frames. */
export function unload() {
  video.onloadedmetadata = video.onerror = null;
  video.removeAttribute("src");
  video.load();
  if (address) URL.revokeObjectURL(address);
  [address, stills, knownSeconds] = [null, [], 0];
  virtual = { time: 0, isPlaying: false, last: 0 };
  $("still").removeAttribute("src");
  showVideo(false);
}

/** Narrow pictures would need a player higher than the screen: they get black borders instead. */
const setShape = (ratio) => ($("stage").style.aspectRatio = Math.max(1.2, ratio));

/** Give the facts that the interface answered: duration, size, and frames {seconds, thumbnail}. */
export function setFacts({ duration_seconds: seconds, size: [height, width], frames }) {
  knownSeconds = seconds;
  setShape(width / height);
  stills = frames.filter((frame) => frame.thumbnail && frame.seconds !== null);
  changed();
}

/** Move the play head. */
export function seek(seconds) {
  const target = Math.min(Math.max(0, seconds), duration());
  if (virtual) virtual.time = target;
  else video.currentTime = target;
  changed(target);
}

export function play() {
  if (virtual) {
    Object.assign(virtual, { isPlaying: true, last: performance.now() });
    if (virtual.time >= knownSeconds) virtual.time = 0;
  } else {
    video.play().catch(() => {}); // the browser may refuse to play without a click
  }
  changed();
}

export function pause() {
  if (virtual) virtual.isPlaying = false;
  else video.pause();
  changed();
}

const toggle = () => (isPlaying() ? pause() : play());

/** The rectangle of the picture inside the stage: {x, y, width, height} in CSS pixels. */
export function pictureBox() {
  const shown = virtual ? $("still") : video;
  const [width, height] = virtual ? [shown.naturalWidth, shown.naturalHeight] : [video.videoWidth, video.videoHeight];
  const stage = $("stage");
  if (!width) return { x: 0, y: 0, width: stage.clientWidth, height: stage.clientHeight };
  const scale = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  const [w, h] = [width * scale, height * scale];
  return { x: (stage.clientWidth - w) / 2, y: (stage.clientHeight - h) / 2, width: w, height: h };
}

function changed(now = time()) {
  $("now").textContent = clock(now);
  $("end").textContent = duration() ? ` / ${clock(duration())}` : "";
  setIcon($("play"), isPlaying() ? "pause" : "play");
  $("play").setAttribute("aria-label", isPlaying() ? "Pause" : "Play");
  if (virtual && stills.length) {
    const nearest = stills.reduce((a, b) => (Math.abs(b.seconds - now) < Math.abs(a.seconds - now) ? b : a));
    if ($("still").src !== nearest.thumbnail) $("still").src = nearest.thumbnail;
  }
  for (const listener of listeners) listener(now);
}

let wasPlaying = false; // the last frame of the clock is shown too

function frame(stamp) {
  if (virtual?.isPlaying) {
    virtual.time += ((stamp - virtual.last) / 1000) * Number($("rate").value);
    virtual.last = stamp;
    if (virtual.time >= knownSeconds) Object.assign(virtual, { time: knownSeconds, isPlaying: false });
  }
  if (isPlaying() || wasPlaying) changed();
  wasPlaying = isPlaying();
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);

for (const name of ["play", "pause", "seeked", "timeupdate", "durationchange"]) {
  video.addEventListener(name, () => changed());
}
video.addEventListener("click", toggle);
$("play").addEventListener("click", toggle);
$("rate").addEventListener("change", () => (video.playbackRate = Number($("rate").value)));
$("sound").addEventListener("click", () => {
  video.muted = !video.muted;
  setIcon($("sound"), video.muted ? "muted" : "sound");
  $("sound").setAttribute("aria-pressed", String(!video.muted));
});
document.addEventListener("keydown", (event) => {
  const isFree = !event.target.closest("button, input, select, textarea, a, dialog, summary");
  if (event.key === " " && isFree && !$("work").hidden && !$("view-video").hidden) {
    event.preventDefault();
    toggle();
  }
});
