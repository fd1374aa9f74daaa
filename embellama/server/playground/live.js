// What the server does right now, asked again and again while somebody can see it.

import { ask } from "./api.js";
import { byId, draw, grouped } from "./dom.js";

const EVERY_MS = 1500;
const KEPT = 80;

let before = null;
let timer = 0;
let turn = 0;
let states = "";
const history = [];

/** Begin. `onChange` runs when a model was loaded or unloaded. */
export function watchLive(onChange) {
  const next = async () => {
    clearTimeout(timer);
    turn += 1;
    const mine = turn;
    if (document.visibilityState !== "visible") return;
    try {
      const now = await ask("playground/stats");
      if (mine !== turn) return; // asked once more meanwhile
      show(now, onChange);
      timer = setTimeout(next, EVERY_MS);
    } catch (error) {
      if (mine !== turn) return;
      rest();
      // without a key it would be refused again and again
      if (error.status !== 401) timer = setTimeout(next, 4 * EVERY_MS);
    }
  };
  document.addEventListener("visibilitychange", () => {
    before = null;
    next();
  });
  next();
  return next;
}

function show(now, onChange) {
  byId("live").classList.remove("away");
  const seconds = before ? now.at_s - before.at_s : 0;
  // counts begin anew where a model was unloaded
  const rate = (name) => (seconds > 0 ? Math.max(0, now[name] - before[name]) / seconds : 0);
  const texts = rate("n_texts");
  history.push(texts);
  history.splice(0, history.length - KEPT);
  byId("live-texts").textContent = figure(texts);
  byId("live-tokens").textContent = figure(rate("n_tokens"));
  byId("live-requests").textContent = grouped(now.n_requests);
  byId("live-queue").textContent = grouped(now.n_waiting_texts);
  byId("live-wait").textContent = now.wait_s < 10 ? `${now.wait_s.toFixed(1)} s` : `${grouped(now.wait_s)} s`;
  spark();
  before = now;
  const found = JSON.stringify(now.models);
  if (states && found !== states) onChange();
  states = found;
}

const figure = (rate) => (rate > 0 && rate < 10 ? rate.toFixed(1) : grouped(rate));

function rest() {
  before = null;
  byId("live").classList.add("away");
  for (const name of ["texts", "tokens", "requests", "queue", "wait"]) {
    byId(`live-${name}`).textContent = "–";
  }
}

function spark() {
  const most = Math.max(...history, 1);
  const spots = history.map((rate, i) => {
    const x = 120 - ((history.length - 1 - i) * 120) / (KEPT - 1);
    return `${x.toFixed(1)},${(29 - (26 * rate) / most).toFixed(1)}`;
  });
  const first = spots[0].split(",")[0];
  byId("spark").replaceChildren(
    draw("polygon", { class: "under", points: `${first},30 ${spots.join(" ")} 120,30` }),
    draw("polyline", { class: "over", points: spots.join(" ") }),
  );
}
