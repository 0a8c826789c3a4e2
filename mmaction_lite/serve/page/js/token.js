// The token of a server that wants one. It stays in this tab: other pages and later sessions do not see it.

import { $ } from "./dom.js";

const KEY = "mmaction-lite token";
let asking = null;

export const readToken = () => sessionStorage.getItem(KEY) || "";

/** Ask for a token; requests that fail together share one question. Return whether one was entered. */
export function askForToken() {
  asking ??= ask().finally(() => (asking = null));
  return asking;
}

function ask() {
  const dialog = $("token-dialog");
  $("token-error").textContent = readToken() ? "The server does not accept this token." : "";
  $("token").value = "";
  dialog.returnValue = "cancel"; // also after the Escape key
  $("token-cancel").onclick = () => dialog.close("cancel"); // a second submit button would be that of the Enter key
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const isGiven = dialog.returnValue === "ok";
        if (isGiven) sessionStorage.setItem(KEY, $("token").value.trim());
        resolve(isGiven);
      },
      { once: true },
    );
  });
}
