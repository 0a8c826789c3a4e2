// Line charts in SVG, with the values under the pointer.

import { element, svg } from "./dom.js";
import { number } from "./format.js";

const HEIGHT = 220;
const MARGIN = { left: 52, right: 14, top: 12, bottom: 26 };
const MOST_POINTS = 600; // a line with more has the same pixels

/**
 * Create a chart.
 * @param {string} title
 * @param {{name: string, hue: number, points: [number, number][]}[]} series - points in the order of their x.
 * @param {{format?: (value: number) => string, xName?: string, zero?: boolean}} options - `zero`: the axis begins at 0.
 * @returns {HTMLElement} a figure; call its `redraw()` when its width has changed.
 */
export function chart(title, series, { format = number, xName = "epoch", zero = false } = {}) {
  const shown = series.filter(({ points }) => points.length);
  const latest = shown.map(({ name, hue, points }) =>
    element("li", { class: `hue-${hue}` }, element("span", { class: "key", "aria-hidden": "true" }), `${name} `, element("strong", {}, format(points.at(-1)[1]))),
  );
  const plot = element("div", { class: "plot", "aria-hidden": "true" });
  const figure = element("figure", { class: "card chart" },
    element("figcaption", {}, element("h2", {}, title), element("ul", { class: "keys" }, ...latest)), plot);
  figure.redraw = () => draw(plot, shown, { format, xName, zero });
  return figure;
}

function draw(plot, series, { format, xName, zero }) {
  const width = plot.clientWidth;
  plot.replaceChildren();
  if (!width || !series.length) return;
  const all = series.flatMap(({ points }) => points);
  const x = scale(0, Math.max(...all.map((p) => p[0]), 1e-9), MARGIN.left, width - MARGIN.right);
  const values = all.map((p) => p[1]).filter(Number.isFinite);
  let [low, high] = [zero ? 0 : Math.min(...values), Math.max(...values)];
  if (!(high > low)) [low, high] = [low - 0.5, low + 0.5];
  const y = scale(low - (zero ? 0 : 0.04 * (high - low)), high + 0.04 * (high - low), HEIGHT - MARGIN.bottom, MARGIN.top);
  const root = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, class: "lines" });
  for (const value of ticks(y.from, y.to, 4)) {
    root.append(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }));
    root.append(svg("text", { class: "tick", x: MARGIN.left - 9, y: y(value) + 4, "text-anchor": "end" }, format(value)));
  }
  for (const value of ticks(0, x.to, Math.max(2, Math.floor(width / 110)))) {
    root.append(svg("text", { class: "tick", x: x(value), y: HEIGHT - 6, "text-anchor": "middle" }, number(value)));
  }
  for (const { points, hue } of series) {
    const path = thin(points).map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ");
    root.append(svg("polyline", { class: `line hue-${hue}`, points: path }));
    if (points.length === 1) root.append(svg("circle", { class: `dot hue-${hue}`, cx: x(points[0][0]), cy: y(points[0][1]), r: 3 }));
  }
  plot.append(root);
  addReadout(plot, root, series, { x, y, width, format, xName });
}

/** Show the values of all lines at the pointer. */
function addReadout(plot, root, series, { x, y, width, format, xName }) {
  const rule = svg("line", { class: "rule", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
  const box = element("p", { class: "readout", hidden: true });
  plot.append(box);
  const leave = () => (rule.remove(), (box.hidden = true), root.querySelectorAll(".mark-dot").forEach((dot) => dot.remove()));
  root.addEventListener("pointerleave", leave);
  root.addEventListener("pointermove", (event) => {
    leave();
    const at = x.inverse(event.clientX - root.getBoundingClientRect().left);
    const found = series.map(({ name, hue, points }) => ({ name, hue, point: nearest(points, at) }));
    const [px] = found[0].point;
    rule.setAttribute("x1", x(px));
    rule.setAttribute("x2", x(px));
    root.append(rule, ...found.map(({ hue, point }) => svg("circle", { class: `dot mark-dot hue-${hue}`, cx: x(point[0]), cy: y(point[1]), r: 3.5 })));
    box.textContent = [`${xName} ${number(px)}`, ...found.map(({ name, point }) => `${name} ${format(point[1])}`)].join(" · ");
    box.hidden = false;
    box.classList.toggle("left", x(px) > width / 2);
  });
}

function scale(from, to, start, end) {
  const place = (value) => start + ((value - from) / (to - from)) * (end - start);
  return Object.assign(place, { from, to, inverse: (pixel) => from + ((pixel - start) / (end - start)) * (to - from) });
}

/** Round numbers between two values, about `count`. */
function ticks(from, to, count) {
  const raw = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const list = [];
  for (let i = Math.ceil(from / step); i * step <= to * (1 + 1e-9); i++) list.push(i * step);
  return list;
}

const nearest = (points, at) => points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));

function thin(points) {
  const finite = points.filter(([, value]) => Number.isFinite(value));
  const stride = Math.ceil(finite.length / MOST_POINTS);
  return stride > 1 ? finite.filter((_, i) => i % stride === 0 || i === finite.length - 1) : finite;
}
