// The texts with their tokens, and a mark where one was cut.

import { byId, counted, grouped, make } from "./dom.js";

/** The texts in the field: one a line, empty lines left out. */
export function readLines() {
  return byId("lines").value.split(/\r\n|\r|\n/).filter((line) => line.trim());
}

/** Say how many there are. */
export function countLines() {
  byId("line-count").textContent = counted(readLines().length, "text");
}

/** Show the tokens of each text, against the model's limit. */
export function showTokens({ texts, reports, limit }) {
  const most = Math.max(...reports.map((report) => report.n_tokens - report.n_dropped), 1);
  const nCut = reports.filter((report) => report.n_dropped > 0).length;
  const sum = reports.reduce((all, report) => all + report.n_tokens - report.n_dropped, 0);
  byId("tokens").hidden = false;
  byId("token-sum").textContent = counted(sum, "token") + (nCut ? `, ${grouped(nCut)} cut` : "");
  byId("token-lines").replaceChildren(
    ...texts.map((text, index) => line(text, reports[index], index, limit ?? most)),
  );
}

function line(text, report, index, limit) {
  const used = report.n_tokens - report.n_dropped;
  const isCut = report.n_dropped > 0;
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("span"));
  bar.firstChild.style.width = `${Math.max(1.5, (100 * used) / limit)}%`;
  const words = isCut
    ? `cut: the first ${grouped(used)} of ${counted(report.n_tokens, "token")} count`
    : counted(used, "token");
  const made = make(
    "li",
    { class: isCut ? "line cut" : "line", "data-line": index },
    make("span", { class: "number", "aria-hidden": "true" }, String(index + 1)),
    make("span", { class: "text", dir: "auto" }, text),
    make("span", { class: "count" }, words),
    bar,
  );
  if (report.cached) made.querySelector(".count").append(make("span", { class: "tag" }, "cached"));
  return made;
}
