// The map: each text a point, placed by the two directions in which they differ most.

import { byId, draw, inARow, make, roving, short } from "./dom.js";
import { placed } from "./labels.js";
import { mapped } from "./vectors.js";

const RADIUS = 6;
const LINE = 17;
const MARGIN = 22;
const MOST_POINTS = 200;

let shown = null;

export function showMap(texts, vectors) {
  const few = vectors.length < 2;
  byId("map").toggleAttribute("hidden", few); // SVG has no such property
  byId("map-empty").hidden = !few;
  byId("map-readout").hidden = few;
  byId("map-note").textContent = "";
  shown = null;
  if (few) return;
  shown = { texts: texts.slice(0, MOST_POINTS), ...mapped(vectors.slice(0, MOST_POINTS)) };
  const [x, y] = shown.shares.map((share) => `${Math.round(100 * share)} %`);
  const left = texts.length - shown.texts.length;
  byId("map-note").textContent = `shows ${x} + ${y} of the variance`
    + (left ? `; the first ${MOST_POINTS} texts` : "");
  redraw();
}

function redraw() {
  const map = byId("map");
  const width = map.parentElement.clientWidth - paddings(map.parentElement);
  if (!shown || width <= 0) return;
  const height = Math.round(Math.min(440, Math.max(260, 0.58 * width)));
  map.setAttribute("viewBox", `0 0 ${width} ${height}`);
  map.setAttribute("height", height);
  const spots = fitted(shown.points, width, height);
  const lengths = width < 480 ? [18, 10] : [30, 16];
  const written = shown.texts.map((text, i) => [
    ...lengths.map((length) => `${i + 1} ${short(text, length)}`), `${i + 1}`,
  ]);
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = getComputedStyle(map).font;
  const wanted = spots.map(([x, y], i) => ({
    x, y, widths: written[i].map((each) => pen.measureText(each).width + 4), height: LINE,
  }));
  const boxes = placed(wanted, { width, height }, RADIUS + 1);
  map.replaceChildren(...boxes.map((box, i) => point(i, spots[i], box, written[i][box?.choice])));
  const none = boxes.filter((box) => !box).length;
  byId("map-readout").textContent = none
    ? "Some labels found no room: point at a dot, or walk with the arrow keys, to read its text."
    : "Point at a dot, or walk with the arrow keys, to read its whole text.";
}

function paddings(element) {
  const style = getComputedStyle(element);
  return Number.parseFloat(style.paddingLeft) + Number.parseFloat(style.paddingRight);
}

/** Scale points into a frame, both axes alike, so that distances mean the same in all directions. */
function fitted(points, width, height) {
  const bounds = [0, 1].map((axis) => {
    const parts = points.map((each) => each[axis]);
    return [Math.min(...parts), Math.max(...parts)];
  });
  const [spanX, spanY] = bounds.map(([low, high]) => high - low);
  const scale = Math.min(
    (width - 2 * MARGIN) / (spanX || 1e-9), (height - 2 * MARGIN) / (spanY || 1e-9), 1e9,
  );
  const [midX, midY] = bounds.map(([low, high]) => (low + high) / 2);
  const isFlat = spanX < 1e-6 && spanY < 1e-6;
  return points.map(([x, y]) => (isFlat
    ? [width / 2, height / 2]
    : [width / 2 + (x - midX) * scale, height / 2 - (y - midY) * scale]));
}

function point(index, [x, y], box, written) {
  const group = draw("g", {
    class: "point", "data-line": index, role: "img", tabindex: index ? -1 : 0,
    "aria-label": `${index + 1}: ${shown.texts[index]}`, "data-x": x, "data-y": y,
  });
  if (box) {
    const middle = (box.top + box.bottom) / 2;
    const near = x < box.left ? box.left + 2 : x > box.right ? box.right - 2 : x;
    group.append(draw("line", { class: "leader", x1: x, y1: y, x2: near, y2: middle }));
    group.append(draw("text", { x: box.left + 2, y: middle, dy: "0.34em" }, written));
  }
  group.append(
    draw("circle", { class: "reach", cx: x, cy: y, r: 13 }),
    draw("circle", { class: "dot", cx: x, cy: y, r: RADIUS }),
  );
  return group;
}

function tell(target) {
  if (!target) return;
  const index = Number(target.dataset.line);
  byId("map-readout").replaceChildren(make(
    "span", { class: "of" },
    make("span", { class: "number" }, String(index + 1)),
    make("span", { class: "text", dir: "auto" }, short(shown.texts[index], 200)),
  ));
}

export function watchMap() {
  const map = byId("map");
  map.addEventListener("pointerover", (event) => tell(event.target.closest(".point")));
  map.addEventListener("focusin", (event) => tell(event.target.closest(".point")));
  roving(map, ".point", inARow);
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    redraw();
  }).observe(map.parentElement);
}
