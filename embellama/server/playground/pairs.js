// The heat map's numbers as a table, for those who hear it or copy it. Made when first opened.

import { byId, cosineText, make, short } from "./dom.js";
import { MOST_LINES } from "./heatmap.js";

let latest = null;

export function showPairs(texts, values) {
  latest = { texts: texts.slice(0, MOST_LINES), values };
  byId("pairs-table").replaceChildren();
  if (byId("pairs").open) fill();
}

function fill() {
  if (!latest || byId("pairs-table").firstChild) return;
  const { texts, values } = latest;
  const heads = texts.map((text, index) =>
    make("th", { scope: "col" }, make("abbr", { title: short(text, 80) }, String(index + 1))));
  const rows = texts.map((text, index) => make(
    "tr", {},
    make("th", { scope: "row", dir: "auto" }, `${index + 1} ${short(text, 40)}`),
    ...texts.map((_, column) => make("td", {}, cosineText(values[index][column]))),
  ));
  byId("pairs-table").append(make(
    "table", {},
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "text"), ...heads)),
    make("tbody", {}, ...rows),
  ));
}

export function watchPairs() {
  byId("pairs").addEventListener("toggle", fill);
}
