// The page: what happens when, and who is told.

import { Refusal, embed, load } from "./api.js";
import { byId, counted, grouped, say } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { showHeat, watchHeat } from "./heatmap.js";
import { watchKey } from "./key.js";
import { countLines, readLines, showTokens } from "./lines.js";
import { watchLive } from "./live.js";
import { showMap, watchMap } from "./map.js";
import { chosen, named, refreshModels, showFacts } from "./models.js";
import { showPairs, watchPairs } from "./pairs.js";
import { searchAgain, watchSearch } from "./search.js";
import { showSnippets, watchSnippets } from "./snippets.js";
import { cosines, decoded } from "./vectors.js";

let last = null;
let running = null;
let example = 0;

/** Embed the texts and show everything about them; null where that was refused. */
function run() {
  running ??= embedAll().finally(() => {
    running = null;
    byId("run").removeAttribute("aria-busy");
  });
  return running;
}

async function embedAll() {
  const texts = readLines();
  let model = chosen();
  say(byId("run-error"), "");
  const lacking = !model ? "There is no model to run." : !texts.length ? "Type a text first." : "";
  if (lacking) {
    say(byId("run-error"), lacking);
    return null;
  }
  byId("run").setAttribute("aria-busy", "true");
  const lines = byId("lines").value;
  try {
    if (!model.prompts) {
      byId("timing").textContent = `Loading ${model.id}…`;
      await load(model);
      await refreshModels();
      model = named(model.id) ?? model;
    }
    const began = performance.now();
    const reply = await embed(model, texts, { kind: "document" });
    const took = (performance.now() - began) / 1000;
    const vectors = reply.data.map((each) => decoded(each.embedding));
    last = { texts, vectors, model, lines };
    show(reply, took);
    return last;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    say(byId("run-error"), error.message);
    byId("timing").textContent = "";
    return null;
  }
}

function show(reply, took) {
  const { texts, vectors, model } = last;
  const values = cosines(vectors);
  showTokens({ texts, reports: reply.embellama.texts, limit: model.n_ctx });
  showHeat(texts, values);
  showPairs(texts, values);
  showMap(texts, vectors);
  checkStale();
  searchAgain(async () => last);
  const inside = reply.embellama.timings.total_s;
  byId("timing").textContent = `${counted(texts.length, "text")}, `
    + `${counted(reply.usage.total_tokens, "token")} in ${seconds(took)} `
    + `(${seconds(inside)} in the engine): ${grouped(texts.length / took)} texts/s`;
}

const seconds = (value) => (value < 1 ? `${(1000 * value).toFixed(0)} ms` : `${value.toFixed(2)} s`);

/** Say when what is shown is no longer what is typed. */
function checkStale() {
  const same = last && last.lines === byId("lines").value && last.model.id === byId("model").value;
  byId("stale").hidden = !last || same;
  byId("results").classList.toggle("old", Boolean(last) && !same);
}

function edited() {
  countLines();
  checkStale();
  showSnippets(byId("model").value || "MODEL", readLines()[0] ?? "Hello");
}

/** Mark a text wherever it is shown, when it is pointed at in one place. */
function watchLines() {
  const mark = (event) => {
    const line = event.target.closest?.("[data-line]")?.dataset.line;
    for (const old of document.querySelectorAll(".lit")) old.classList.remove("lit");
    if (line === undefined) return;
    for (const each of document.querySelectorAll(`[data-line="${line}"]`)) each.classList.add("lit");
  };
  document.addEventListener("pointerover", mark);
  document.addEventListener("focusin", mark);
}

function watchKeys() {
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    if (event.key === "Enter") {
      event.preventDefault();
      run();
    } else if (event.key.toLowerCase() === "k") {
      event.preventDefault();
      byId("query").focus();
      byId("query").select();
    }
  });
}

function nextExample() {
  byId("lines").value = EXAMPLES[example % EXAMPLES.length].join("\n");
  example += 1;
  edited();
}

function start() {
  byId("run-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("example").addEventListener("click", nextExample);
  byId("lines").addEventListener("input", edited);
  byId("model").addEventListener("change", () => {
    showFacts();
    edited();
  });
  watchHeat();
  watchPairs();
  watchMap();
  watchSnippets();
  watchLines();
  watchKeys();
  watchSearch(async () => last ?? run());
  nextExample();
  const refresh = () => refreshModels().then(edited);
  const poll = watchLive(refresh);
  watchKey(() => Promise.all([refresh(), poll()]));
  refresh();
}

start();
