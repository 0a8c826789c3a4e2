// One video from its choice to all of its results. The server keeps nothing, so each request sends the video again.

import { hideAlerts, showProblem } from "./alerts.js";
import { events, get, getBlob, pause, post, request } from "./api.js";
import * as bars from "./bars.js";
import * as details from "./details.js";
import { $, announce, wantsLessMotion } from "./dom.js";
import * as downloads from "./downloads.js";
import { percent } from "./format.js";
import * as heat from "./heat.js";
import * as history from "./history.js";
import * as player from "./player.js";
import * as timeline from "./timeline.js";
import { Windows } from "./windows.js";

let current = null; // {source, model, abort, job}
let server = { models: [], limits: {} };

export const setServer = (answer) => (server = answer);

/**
 * Show a video and request its results.
 * @param {{name: string, file?: Blob, example?: string, url?: string}} source
 */
export async function analyze(source) {
  begin(source);
  const run = current;
  try {
    await showVideo(run);
    run.result = await predict(run);
    showResult(run);
    history.add(run);
    await followTimeline(run);
  } catch (problem) {
    if (run !== current || problem.name === "AbortError") return;
    if (!run.result) close(); // back to the start: there is nothing to show
    details.setJob(null);
    announce("");
    showProblem(problem);
  }
}

/** Show the results that the history has, without a request. */
export async function reopen(entry) {
  begin(entry.source);
  Object.assign(current, { model: entry.model, result: entry.result, windows: entry.windows, job: null });
  const run = current;
  downloads.clear("The files of earlier videos are not kept. Analyze the video again to create them.");
  showResult(run);
  if (run.windows.list.length) timeline.show(run.windows);
  details.showSegments(entry.segments);
  details.setJob(null);
  try {
    await showVideo(run);
  } catch (problem) {
    showProblem(problem);
  }
}

/** Analyze the same video with the chosen model. */
export function again() {
  if (current?.source.file || current?.source.example || current?.source.url) analyze(current.source);
}

/** Return to the choice of a video. */
export function close() {
  current?.abort.abort();
  cancelJob(current);
  current = null;
  player.unload();
  $("work").hidden = true;
  $("start").hidden = false;
}

function begin(source) {
  current?.abort.abort();
  cancelJob(current);
  current = { source, model: $("model").value, abort: new AbortController(), windows: new Windows(), job: null };
  hideAlerts();
  player.unload();
  timeline.clear();
  bars.clear();
  heat.clear();
  downloads.clear();
  details.clear(source.name);
  $("start").hidden = true;
  $("work").hidden = false;
  $("subject-name").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

async function showVideo({ source, abort }) {
  const { signal } = abort;
  const file = source.file ?? (source.example && (await getBlob(`v1/examples/${encodeURIComponent(source.example)}`, { signal })));
  if (!file) return details.showUnplayable(source.url ? "The server fetched this video; the page has no copy." : "The video is not kept when the page is loaded again.");
  const isPlayable = await player.load(file);
  signal.throwIfAborted();
  if (!isPlayable) details.showUnplayable("This browser cannot play this format. The frames and the results are shown.");
  else if (!wantsLessMotion()) player.play();
}

function form({ source, model }, fields = {}) {
  const data = new FormData();
  if (model) data.append("model", model);
  for (const [name, value] of Object.entries(fields)) data.append(name, value);
  if (source.file) data.append("file", source.file, source.name);
  else if (source.example) data.append("example", source.example);
  else data.append("url", source.url);
  return data;
}

function options({ abort }, activity) {
  return {
    signal: abort.signal,
    onUpload: (share) => details.setJob(share, share < 1 ? `Uploading, ${Math.round(100 * share)} %` : activity),
    onWait: (seconds) => details.setJob(null, `The server is busy. The page tries again in ${seconds} s.`),
  };
}

async function predict(run) {
  details.setJob(null, "Sending the video");
  announce(`Classifying ${run.source.name}.`);
  return post("v1/predict", form(run, { thumbnails: "true", top: 5 }), options(run, "Classifying the video"));
}

function showResult(run) {
  const { result, source } = run;
  player.setFacts(result);
  details.showResult(source.name, result);
  bars.show(result.predictions, run.windows);
  const [best] = result.predictions;
  if (best) announce(`${best.class}, ${percent(best.probability)}, for the whole video.`);
  const model = server.models.find((each) => each.name === result.model);
  if (model?.can_explain !== false && hasVideo(source)) {
    heat.offer(result.predictions.map((entry) => entry.class), (name) => explain(run, name));
  }
}

const hasVideo = (source) => Boolean(source.file || source.example || source.url);

async function explain(run, name) {
  try {
    return await post("v1/explain", form(run, { class: name }), { signal: run.abort.signal });
  } catch (problem) {
    showProblem(problem);
    throw problem;
  }
}

/** Start the job of the sliding windows, and show the windows while they arrive. */
async function followTimeline(run) {
  details.setJob(0, "Preparing the timeline");
  run.job = await post("v1/timeline", form(run), options(run, "Reading the windows"));
  details.setCancel(() => cancelJob(run));
  for (run.failures = 0; run.failures < 5 && !run.isFinished; run.failures++) {
    try {
      await listen(run);
    } catch (error) {
      if (error.status || error.name === "AbortError" || error.isFinal) throw error; // of the server; others are lost connections
    }
    if (!run.isFinished) await pause(1, run.abort.signal);
  }
  const path = `v1/jobs/${run.job.id}`;
  const state = await get(path, { signal: run.abort.signal });
  details.setJob(null);
  if (state.state !== "done") return;
  const answer = await get(`${path}/result.json`, { signal: run.abort.signal });
  run.segments = answer.segments;
  details.showSegments(run.segments);
  downloads.offer(run.source.name, path, run.result);
  history.update(run);
}

async function listen(run) {
  for await (const { event, data } of events(`v1/jobs/${run.job.id}/events`, { signal: run.abort.signal })) {
    run.failures = 0; // a proxy may end connections of long jobs
    if (event === "progress" && data.total) details.setJob(data.done / data.total, `Window ${data.done} of ${data.total}`);
    if (event === "windows") {
      run.windows.list.length = data.first; // a new connection sends all windows again
      run.windows.add(data.windows);
      timeline.show(run.windows);
      bars.show(run.result.predictions, run.windows);
    }
    if (event === "done") return (run.isFinished = true);
    if (event === "problem") {
      run.isFinished = true;
      throw Object.assign(new Error(data.detail || data.title), { title: data.title, advice: data.advice, isFinal: true });
    }
  }
}

/** Cancel the job of a video; the windows that arrived stay. */
function cancelJob(run) {
  if (!run?.job || run.isFinished) return;
  run.isFinished = true;
  request(`v1/jobs/${run.job.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
}
addEventListener("pagehide", () => cancelJob(current));
