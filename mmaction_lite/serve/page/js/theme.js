// Light and dark: as in the system, or as chosen with the button.

import { $, setIcon } from "./dom.js";

const KEY = "mmaction-lite theme";
const NEXT = { system: "light", light: "dark", dark: "system" };
const TEXTS = { system: "Theme: as in the system", light: "Theme: light", dark: "Theme: dark" };

function apply(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setIcon($("theme"), theme === "system" ? "theme" : theme);
  $("theme").setAttribute("aria-label", TEXTS[theme]);
  $("theme").title = TEXTS[theme];
  document.dispatchEvent(new Event("themechange")); // canvases draw again
}

let theme = localStorage.getItem(KEY);
theme = theme in NEXT ? theme : "system";
apply(theme);
$("theme").addEventListener("click", () => {
  theme = NEXT[theme];
  localStorage.setItem(KEY, theme);
  apply(theme);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(theme));
