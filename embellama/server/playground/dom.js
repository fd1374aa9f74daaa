// Making and finding elements. Texts come in as text alone: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** Make an element: attributes by name, children that are nodes or texts. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/** Show a text in a place that is hidden while there is none. */
export function say(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

/** Cut a text for a small place. */
export function short(text, length) {
  const letters = [...text];
  return letters.length <= length ? text : `${letters.slice(0, length - 1).join("").trimEnd()}…`;
}

/** Let arrow keys walk among elements of which one alone is in the tab order.
 *  `to(key, index, count)` says where a key leads; undefined: nowhere. */
export function roving(container, selector, to) {
  container.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...container.querySelectorAll(selector)];
    const index = all.indexOf(event.target.closest(selector));
    if (index < 0) return;
    const next = to(event.key, index, all.length);
    if (next === undefined) return;
    event.preventDefault();
    all[next]?.focus();
  });
  container.addEventListener("focusin", (event) => {
    const now = event.target.closest(selector);
    if (!now) return;
    for (const each of container.querySelectorAll(`${selector}[tabindex="0"]`)) {
      each.setAttribute("tabindex", "-1");
    }
    now.setAttribute("tabindex", "0");
  });
}

/** Where a key leads in a row: around at its ends. */
export function inARow(key, index, count) {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  if (key in steps) return (index + steps[key] + count) % count;
  return { Home: 0, End: count - 1 }[key];
}

/** Write a number with thin groups: 12 345. */
export function grouped(number) {
  return Math.round(number).toLocaleString("en").replaceAll(",", "\u202f");
}

/** Write a cosine: three digits, and a minus as long as a plus. */
export const cosineText = (value) => value.toFixed(3).replace("-", "\u2212");

export function counted(number, one, many = `${one}s`) {
  return `${grouped(number)} ${number === 1 ? one : many}`;
}
