// Search among the texts of the last run.

import { Refusal, embed } from "./api.js";
import { shade } from "./colour.js";
import { byId, cosineText, counted, make, say } from "./dom.js";
import { shareOf } from "./heatmap.js";
import { cosine, decoded } from "./vectors.js";

const PAUSE_MS = 350;
const MOST_HITS = 25;

let asking = null;
let waiting = 0;

/** Rank the texts of the last run by a query. `lastRun` gives that run, or makes one. */
export function watchSearch(lastRun) {
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search(lastRun);
  });
  byId("query").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(lastRun), PAUSE_MS);
  });
}

/** Search again, among other texts. */
export function searchAgain(lastRun) {
  byId("hits").replaceChildren();
  if (byId("query").value.trim()) search(lastRun);
}

async function search(lastRun) {
  clearTimeout(waiting);
  // the newest question alone is of interest; the server drops what nobody waits for
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const query = byId("query").value.trim();
  say(byId("search-error"), "");
  if (!query) {
    byId("hits").replaceChildren();
    byId("search-note").textContent = "";
    return;
  }
  try {
    const run = await lastRun();
    if (!run || asking !== mine) return;
    const began = performance.now();
    const reply = await embed(run.model, [query], { kind: "query", signal: mine.signal });
    const vector = decoded(reply.data[0].embedding);
    show(run, run.vectors.map((each) => cosine(vector, each)), performance.now() - began);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Refusal)) throw error;
    say(byId("search-error"), error.message);
  }
}

function show(run, scores, tookMs) {
  const order = scores.map((_, index) => index).sort((a, b) => scores[b] - scores[a]);
  const best = order.slice(0, MOST_HITS);
  const more = order.length - best.length;
  byId("search-note").textContent =
    `${counted(order.length, "text")} ranked in ${tookMs.toFixed(0)} ms` +
    (more ? `; the best ${MOST_HITS} are shown` : "");
  byId("hits").replaceChildren(...best.map((index) => hit(run.texts[index], scores[index], index)));
}

function hit(text, score, index) {
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("span"));
  bar.firstChild.style.width = `${Math.max(0, 100 * score)}%`;
  bar.firstChild.style.setProperty("--fill", shade(Math.max(0.45, shareOf(score))).fill);
  return make(
    "li",
    { "data-line": index, "data-score": score },
    make("span", { class: "score" }, cosineText(score)),
    bar,
    make("span", { class: "text", dir: "auto" }, text),
  );
}
