// Small videos of lists: they load when they come into view, and play under the pointer or with the focus.

import { address, getBlob } from "./api.js";
import { element, wantsLessMotion } from "./dom.js";
import { readToken } from "./token.js";

/**
 * Create a silent preview of a video of the server.
 * @param {string} path - path of the video.
 * @param {{part?: string, retry?: string}} options - media fragment such as "#t=1,2"; a path for browsers that cannot
 *   play the first one.
 */
export function preview(path, { part = "", retry = null } = {}) {
  const video = element("video", { playsinline: true, tabindex: "-1", "aria-hidden": "true", preload: "metadata" });
  [video.muted, video.loop] = [true, !part];
  video.addEventListener("error", () => {
    if (retry) [path, retry] = [retry, null]; // once
    else return video.classList.add("broken");
    setSource(video, path, part);
  });
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    setSource(video, path, part);
  });
  observer.observe(video);
  return video;
}

const fetched = new Map(); // video -> URL of its blob

/** A <video> cannot send the token, so with a token the whole file is fetched first. */
async function setSource(video, path, part) {
  if (!readToken()) return (video.src = address(path) + part);
  for (const [old, url] of fetched) {
    if (!old.isConnected) URL.revokeObjectURL(url), fetched.delete(old); // of an earlier page of a list
  }
  const blob = await getBlob(path).catch(() => null);
  if (!blob) return video.dispatchEvent(new Event("error"));
  fetched.set(video, URL.createObjectURL(blob));
  video.src = fetched.get(video) + part;
}

/** Let a button play the preview that it contains. */
export function playWithin(button, video) {
  const play = () => wantsLessMotion() || video.play().catch(() => {});
  for (const name of ["pointerenter", "focus"]) button.addEventListener(name, play);
  for (const name of ["pointerleave", "blur"]) button.addEventListener(name, () => video.pause());
}
