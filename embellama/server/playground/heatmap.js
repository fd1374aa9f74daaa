// The heat map: a grid of cells, one for each pair of texts.

import { gradient, onSchemeChange, shade } from "./colour.js";
import { byId, cosineText, make, roving, short } from "./dom.js";

/** More would be cells too small to tell apart; search and map have all texts. */
export const MOST_LINES = 64;

let shown = null;

/** Show cosines of texts. */
export function showHeat(texts, values) {
  const count = Math.min(texts.length, MOST_LINES);
  shown = { texts: texts.slice(0, count), values, count, ...range(values, count) };
  byId("heat-empty").hidden = true;
  byId("heat-full").hidden = false;
  byId("scale").hidden = false;
  const grid = byId("heat");
  grid.style.setProperty("--n", count);
  grid.replaceChildren(headings(), ...shown.texts.map(row));
  const cut = texts.length > count;
  byId("heat-help").textContent =
    "Point at a cell, or walk with the arrow keys, to read its pair." +
    (cut ? ` The first ${count} of ${texts.length} texts are drawn.` : "");
  paint();
  readMost();
}

function headings() {
  const empty = make("span", { role: "columnheader", class: "corner", "aria-label": "text" });
  const numbers = shown.texts.map((_, index) =>
    make("span", { role: "columnheader", class: "column", "data-column": index }, String(index + 1)));
  return make("div", { role: "row" }, empty, ...numbers);
}

function row(text, index) {
  const head = make(
    "span",
    { role: "rowheader", class: "head", "data-line": index },
    make("span", { class: "number" }, String(index + 1)),
    make("span", { class: "text", dir: "auto" }, text),
  );
  const cells = shown.texts.map((_, column) => cell(index, column));
  return make("div", { role: "row" }, head, ...cells);
}

function cell(index, column) {
  const value = shown.values[index][column];
  const own = index === column;
  const name = own
    ? `text ${index + 1} with itself: ${cosineText(value)}`
    : `${cosineText(value)}: ${short(shown.texts[index], 60)} – ${short(shown.texts[column], 60)}`;
  return make(
    "span",
    {
      role: "gridcell", class: own ? "cell own" : "cell", tabindex: index + column ? -1 : 0,
      "data-row": index, "data-column": column, "data-value": value, "aria-label": name,
    },
    make("span", { "aria-hidden": "true" }, own ? "" : brief(value)),
  );
}

/** A cosine in a narrow place: .82, −.03. */
function brief(value) {
  const written = Math.abs(value).toFixed(2);
  const sign = value < 0 && Number(written) > 0 ? "−" : "";
  return sign + (written.startsWith("0") ? written.slice(1) : written);
}

/** The least and the most of the cosines of different texts. */
function range(values, count) {
  let least = Infinity;
  let most = -Infinity;
  let pair = null;
  for (let i = 0; i < count; i += 1) {
    for (let j = 0; j < i; j += 1) {
      least = Math.min(least, values[i][j]);
      if (values[i][j] > most) [most, pair] = [values[i][j], [j, i]];
    }
  }
  return pair ? { least, most, pair } : { least: 0, most: 1, pair };
}

function bounds() {
  if (document.querySelector("input[name=scale]:checked").value === "whole") return [0, 1];
  // nearly equal cosines are not to look as if they were worlds apart
  const spread = Math.max(shown.most - shown.least, 0.05);
  return [shown.most - spread, shown.most];
}

/** The share of the scale at which a cosine is, from 0 to 1. */
export function shareOf(value) {
  if (!shown) return value;
  const [low, high] = bounds();
  return (value - low) / (high - low);
}

function paint() {
  if (!shown) return;
  for (const each of byId("heat").querySelectorAll(".cell:not(.own)")) {
    const { fill, ink } = shade(shareOf(Number(each.dataset.value)));
    each.style.backgroundColor = fill;
    each.style.color = ink;
  }
  const [low, high] = bounds();
  byId("ramp").style.background = gradient();
  byId("ticks").replaceChildren(
    ...[low, (low + high) / 2, high].map((tick) => make("span", {}, tick.toFixed(2).replace("-", "\u2212"))),
  );
}

function readMost() {
  const readout = byId("readout");
  if (!shown.pair) {
    readout.textContent = "One text has nothing to be compared with; add another line.";
    return;
  }
  read(...shown.pair, "most alike");
}

function read(index, column, word = "") {
  const value = shown.values[index][column];
  const text = (at) => make(
    "span", { class: "of" },
    make("span", { class: "number" }, String(at + 1)),
    make("span", { class: "text", dir: "auto" }, short(shown.texts[at], 160)),
  );
  const figure = make("strong", {}, cosineText(value));
  if (word) figure.append(make("span", { class: "tag" }, word));
  byId("readout").replaceChildren(figure, text(index), text(column));
}

function mark(target) {
  const grid = byId("heat");
  for (const old of grid.querySelectorAll(".crossed")) old.classList.remove("crossed");
  if (!target) return;
  const { row: index, column } = target.dataset;
  const heads = `.head[data-line="${index}"], .column[data-column="${column}"]`;
  for (const head of grid.querySelectorAll(heads)) head.classList.add("crossed");
  read(Number(index), Number(column));
}

/** Make the heat map answer to the pointer and the keyboard. */
export function watchHeat() {
  const grid = byId("heat");
  grid.addEventListener("pointerover", (event) => {
    const target = event.target.closest(".cell");
    if (target) mark(target);
  });
  grid.addEventListener("focusin", (event) => mark(event.target.closest(".cell")));
  grid.addEventListener("pointerleave", () => {
    const focused = grid.querySelector(".cell:focus");
    mark(focused);
    if (!focused && shown) readMost();
  });
  roving(grid, ".cell", (key, index) => {
    const n = shown.count;
    const [line, column] = [Math.floor(index / n), index % n];
    const steps = {
      ArrowRight: [line, Math.min(column + 1, n - 1)], ArrowLeft: [line, Math.max(column - 1, 0)],
      ArrowDown: [Math.min(line + 1, n - 1), column], ArrowUp: [Math.max(line - 1, 0), column],
      Home: [line, 0], End: [line, n - 1],
    };
    return key in steps ? steps[key][0] * n + steps[key][1] : undefined;
  });
  byId("scale").addEventListener("change", paint);
  onSchemeChange(paint);
  // figures in cells only where they fit
  new ResizeObserver(() => {
    const wide = grid.querySelector(".cell")?.getBoundingClientRect().width ?? 0;
    grid.classList.toggle("tiny", wide < 27);
    grid.classList.toggle("minute", wide < 16);
  }).observe(grid);
}
