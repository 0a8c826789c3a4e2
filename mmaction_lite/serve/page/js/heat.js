// The Grad-CAM overlay: the map of the frame nearest to the play head, drawn over the picture.

import { $, announce, element } from "./dom.js";
import * as player from "./player.js";

// Transparent, violet, red, orange, yellow: [share, red, green, blue, opacity].
const COLORS = [
  [0, 40, 10, 90, 0], [0.25, 84, 20, 140, 0.35], [0.5, 200, 40, 90, 0.55], [0.75, 250, 130, 30, 0.65], [1, 255, 240, 120, 0.75],
];
const canvas = $("heat");
let maps = []; // {seconds, picture}
let box = [0, 0, 1, 1];
let fetchMaps = null; // asks the interface for the maps of a class
let loaded = null; // class of `maps`

/**
 * Offer the overlay for a video.
 * @param {string[]} classes - the classes to choose from, the most probable one first.
 * @param {(name: string) => Promise<object>} fetcher - requests the maps of a class.
 */
export function offer(classes, fetcher) {
  clear();
  fetchMaps = fetcher;
  $("overlay").hidden = false;
  $("heat-class").replaceChildren(...classes.map((name) => element("option", { value: name }, name)));
}

/** Hide the overlay and forget its maps. */
export function clear() {
  [maps, loaded, fetchMaps] = [[], null, null];
  turn(false);
  $("overlay").hidden = true;
}

const isOn = () => $("heat-switch").getAttribute("aria-checked") === "true";

function turn(on) {
  $("heat-switch").setAttribute("aria-checked", String(on));
  $("heat-class").hidden = canvas.hidden = !on;
}

async function update() {
  if (!isOn()) return turn(false);
  turn(true);
  const name = $("heat-class").value;
  if (loaded === name) return draw(player.time());
  maps = [];
  draw(0);
  $("overlay").setAttribute("aria-busy", "true");
  const fetcher = fetchMaps;
  try {
    const answer = await fetcher(name);
    if (fetcher !== fetchMaps || name !== $("heat-class").value) return; // another video or class by now
    maps = answer.maps.map((map) => ({ seconds: map.seconds ?? 0, picture: paint(map) }));
    [box, loaded] = [answer.box, name];
    announce(`Grad-CAM of ${name} is shown over the player.`);
    draw(player.time());
  } catch {
    turn(false); // the caller shows the problem
  } finally {
    $("overlay").removeAttribute("aria-busy");
  }
}

/** Turn the values of a map, 0 to 255, into a small picture. */
function paint({ width, height, values }) {
  const levels = Uint8Array.from(atob(values), (char) => char.charCodeAt(0));
  const picture = element("canvas", { width, height });
  const data = new ImageData(width, height);
  levels.forEach((level, i) => data.data.set(shade(level / 255), 4 * i));
  picture.getContext("2d").putImageData(data, 0, 0);
  return picture;
}

function shade(share) {
  const next = Math.max(1, COLORS.findIndex(([at]) => at >= share));
  const [a, b] = [COLORS[next - 1], COLORS[next]];
  const part = (share - a[0]) / (b[0] - a[0]);
  const mix = (i) => a[i] + part * (b[i] - a[i]);
  return [mix(1), mix(2), mix(3), 255 * mix(4)];
}

function draw(now) {
  if (canvas.hidden) return;
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
  if (canvas.width !== Math.round(width)) canvas.width = Math.round(width);
  if (canvas.height !== Math.round(height)) canvas.height = Math.round(height);
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!maps.length) return;
  const nearest = maps.reduce((a, b) => (Math.abs(b.seconds - now) < Math.abs(a.seconds - now) ? b : a));
  const picture = player.pictureBox();
  const [x, y, w, h] = [
    picture.x + box[0] * picture.width, picture.y + box[1] * picture.height, box[2] * picture.width, box[3] * picture.height,
  ].map((value) => value * ratio);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(nearest.picture, x, y, w, h);
  pen.strokeStyle = "rgb(255 255 255 / 0.55)"; // the region that the network saw
  pen.lineWidth = ratio;
  pen.strokeRect(x + ratio / 2, y + ratio / 2, w - ratio, h - ratio);
}

$("heat-switch").addEventListener("click", () => {
  turn(!isOn());
  update();
});
$("heat-class").addEventListener("change", update);
player.onTime(draw);
new ResizeObserver(() => draw(player.time())).observe(canvas);
