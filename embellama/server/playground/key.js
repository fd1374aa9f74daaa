// The field for an API key, which appears when the server asks for one.

import { hasKey, useKey } from "./api.js";
import { byId, say } from "./dom.js";

/** Ask for a key when one is wanted; `then` runs when the user has given one. */
export function watchKey(then) {
  const panel = byId("key");
  const field = byId("key-value");
  document.addEventListener("key-wanted", (event) => {
    const isFirst = panel.hidden;
    panel.hidden = false;
    say(byId("key-error"), hasKey() ? event.detail : "");
    if (isFirst) field.focus();
  });
  panel.addEventListener("submit", (event) => {
    event.preventDefault();
    const value = field.value.trim();
    if (!value) {
      say(byId("key-error"), "Type or paste a key first.");
      return;
    }
    useKey(value);
    field.value = "";
    panel.hidden = true;
    then();
  });
}
