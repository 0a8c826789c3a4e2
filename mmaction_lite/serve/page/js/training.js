// Run mode: the curves of a training, live while it runs.

import { showProblem } from "./alerts.js";
import { events, get, pause } from "./api.js";
import { chart } from "./chart.js";
import { $, announce, element } from "./dom.js";
import { number, percent, share } from "./format.js";

const NOT_METRICS = new Set(["step", "epoch", "loss", "videos", "unreadable", "split", "protocol"]);
const STATES = { waiting: "Waiting for the first step", training: "Training", stopped: "Stopped", finished: "Finished" };
const NAMES = { top1: "Top-1 accuracy", top5: "Top-5 accuracy", mean_class: "Mean class accuracy" };
const RETRY_SECONDS = 3;
let run = null; // {name, state, recipe, training, validation}
let watching = null; // AbortController while the view is shown
let drawing = 0;

/** Whether the server has a run to show. */
export async function isOffered() {
  run = await get("v1/run").catch(() => null);
  return Boolean(run);
}

export function show() {
  if (watching) return;
  watching = new AbortController();
  draw();
  watch(watching.signal).catch(showProblem);
}

export function hide() {
  watching?.abort();
  watching = null;
}

/** Follow the events of the run; a lost connection is opened again. */
async function watch(signal) {
  for (;;) {
    run.training = run.validation = []; // a new connection sends all rows again
    try {
      for await (const { event, data } of events("v1/run/events", { signal })) {
        if (event === "run") merge(data);
      }
    } catch (error) {
      if (error.name === "AbortError" || error.status) throw error;
    }
    await pause(RETRY_SECONDS, signal);
  }
}

/** Add the new rows of an event; a resumed training writes some rows again. */
function merge({ training, validation, is_reset: isReset, ...rest }) {
  const known = isReset ? { training: [], validation: [] } : run;
  run = { ...rest, training: [...known.training, ...training], validation: [...known.validation, ...validation] };
  drawSoon();
}

/** Draw at most once per frame: events arrive in bursts. */
function drawSoon() {
  drawing ||= requestAnimationFrame(() => ((drawing = 0), draw()));
}

function draw() {
  const { training: train, validation: val } = run;
  const charts = allCharts(train, val);
  $("run").replaceChildren(heading(val), tiles(train, val), element("div", { class: "charts" }, ...charts));
  if (!train.length) $("run").append(element("p", { class: "card soft" }, "No steps have been recorded yet. The curves appear here by themselves."));
  charts.forEach((figure) => figure.redraw());
}

function heading(val) {
  const state = STATES[run.state] ?? run.state;
  if (heading.last && heading.last !== state) announce(`Training: ${state}.`);
  heading.last = state;
  const protocol = val.at(-1)?.protocol;
  return element("div", { class: "run-heading" },
    element("p", {}, element("strong", {}, run.name), " ", element("span", { class: `badge ${run.state}` }, state)),
    element("p", { class: "soft small-text" }, [run.recipe, protocol && `validation: ${protocol}`].filter(Boolean).join("; ")));
}

function tiles(train, val) {
  const [last, lastVal] = [train.at(-1), val.at(-1)];
  const metric = Object.keys(lastVal ?? {}).find((key) => isMetric(lastVal, key));
  const best = metric && Math.max(...val.map((row) => row[metric]));
  const list = [
    ["Epoch", last && number(last.epoch, 3)],
    ["Loss", last && number(last.loss, 3)],
    [`Best ${NAMES[metric] ?? metric}`, metric && percent(best)],
    ["Learning rate", last && number(last.lr, 3)],
    ["Time per step", last?.iteration_seconds && `${number(1000 * last.iteration_seconds, 3)} ms`],
    ["Waiting for data", last?.iteration_seconds && percent(last.data_seconds / last.iteration_seconds)],
  ];
  return element("dl", { class: "tiles" },
    ...list.filter(([, value]) => value).map(([name, value]) => element("div", { class: "card" }, element("dt", {}, name), element("dd", {}, value))));
}

const isMetric = (row, key) => typeof row[key] === "number" && !NOT_METRICS.has(key);
const line = (rows, key) => rows.filter((row) => typeof row[key] === "number").map((row) => [row.epoch, row[key]]);

function allCharts(train, val) {
  const figures = [
    chart("Loss", [{ name: "train", hue: 0, points: line(train, "loss") }, { name: "val", hue: 1, points: line(val, "loss") }]),
  ];
  for (const key of new Set(val.flatMap((row) => Object.keys(row).filter((key) => isMetric(row, key))))) {
    const lines = [{ name: "train", hue: 0, points: line(train, key) }, { name: "val", hue: 1, points: line(val, key) }];
    figures.push(chart(NAMES[key] ?? key, lines, { format: share, zero: true }));
  }
  figures.push(chart("Learning rate", [{ name: "lr", hue: 2, points: line(train, "lr") }], { zero: true }));
  const times = [["step", "iteration_seconds", 3], ["waiting for data", "data_seconds", 4]];
  figures.push(chart("Time per step", times.map(([name, key, hue]) => ({ name, hue, points: line(train, key) })), { zero: true, format: (s) => `${number(1000 * s, 3)} ms` }));
  return train.length ? figures : [];
}

new ResizeObserver(() => $("run").querySelectorAll(".chart").forEach((figure) => figure.redraw?.())).observe($("run"));
