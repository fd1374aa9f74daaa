"use strict";

// The page is complete without this: it adds sorting and quicker tooltips.

document.documentElement.classList.add("with-script");

for (const table of document.querySelectorAll("table.sortable")) {
  const rows = table.tBodies[0];
  const heads = [...table.querySelectorAll("th.sort")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = now === first ? other : first;
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      sortRows(rows, column, order === "ascending" ? 1 : -1);
    });
  });
}

function sortRows(body, column, sign) {
  // What was not measured stays at the end either way round.
  const value = (row) => Number.parseFloat(row.cells[column].dataset.sort ?? "NaN");
  const compare = (a, b) => {
    if (Number.isNaN(value(a)) || Number.isNaN(value(b))) {
      return Number.isNaN(value(a)) - Number.isNaN(value(b));
    }
    return sign * (value(a) - value(b));
  };
  body.append(...[...body.rows].sort(compare));
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);

for (const title of document.querySelectorAll("svg title")) {
  const mark = title.parentNode;
  const told = title.textContent;
  title.remove();
  mark.addEventListener("pointermove", (event) => {
    tip.textContent = told;
    tip.hidden = false;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const above = event.clientY - tip.offsetHeight - 14;
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, room))}px`;
    tip.style.top = `${above < 8 ? event.clientY + 20 : above}px`;
  });
  mark.addEventListener("pointerleave", () => { tip.hidden = true; });
}
