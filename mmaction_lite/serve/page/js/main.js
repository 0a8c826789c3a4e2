// Start the page: the models of the server, the views that it offers, and the choice of a video.

import { hideAlerts, showProblem } from "./alerts.js";
import * as analysis from "./analysis.js";
import { get } from "./api.js";
import * as camera from "./camera.js";
import * as dataset from "./dataset.js";
import { $, element } from "./dom.js";
import * as history from "./history.js";
import * as intake from "./intake.js";
import * as training from "./training.js";

const VIEWS = { video: null, data: dataset, run: training };
const offered = new Set(["video"]);

async function start() {
  intake.start(analysis.analyze);
  camera.start(intake.take);
  history.start(analysis.reopen);
  $("another").addEventListener("click", () => (analysis.close(), $("choose").focus()));
  $("model").addEventListener("change", analysis.again);
  addEventListener("hashchange", route);
  try {
    const answer = await get("v1/models");
    showModels(answer.models);
    if (!answer.models.length) withdraw("video"); // a training without weights
    intake.setLimits(answer.limits);
    analysis.setServer(answer);
    const wanted = [["data", dataset], ["run", training]].filter(([name]) => answer.views[name]);
    await Promise.all([intake.showExamples(), ...wanted.map(([name, view]) => offer(name, view))]);
  } catch (problem) {
    showProblem(problem);
  }
  route();
}

function showModels(models) {
  const best = models.find((model) => model.default) ?? models[0];
  $("model").replaceChildren(
    ...models.map((model) => element("option", { value: model.name, selected: model === best }, `${model.name} (${model.num_classes} classes)`)),
  );
  $("model").disabled = models.length < 2;
}

/** Show the tab of a view. */
async function offer(name, view) {
  if (!(await view.isOffered())) return;
  offered.add(name);
  $("tabs").hidden = false;
  $("tabs").querySelector(`[href="#/${name}"]`).hidden = false;
}

function withdraw(name) {
  offered.delete(name);
  $("tabs").querySelector(`[href="#/${name}"]`).hidden = true;
}

function route() {
  const wanted = location.hash.slice(2);
  // In the order of the tabs: views are offered in the order in which their answers arrive.
  const name = offered.has(wanted) ? wanted : Object.keys(VIEWS).find((each) => offered.has(each)) ?? "video";
  for (const [each, view] of Object.entries(VIEWS)) {
    $(`view-${each}`).hidden = each !== name;
    const tab = $("tabs").querySelector(`[href="#/${each}"]`);
    if (each === name) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
    if (each === name) view?.show();
    else view?.hide();
  }
  $("model").parentElement.hidden = name !== "video";
  hideAlerts();
}

start();
