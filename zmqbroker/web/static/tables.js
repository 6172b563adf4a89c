// Tables, which on a phone are a card for each row: there a style sheet takes their roles away, so each says its own.

import { h } from "./dom.js";

/** A column: its title, how wide it is (the name of a style), and whether numbers stand in it. */
export function column(title, width = "name") {
  return { title, width, isNumber: width === "number" || width === "time" };
}

/** Return a section with a heading and a table; `rows` have a key, cells, and perhaps the name of a style. */
export function tableSection(id, heading, columns, rows, { empty, note = null, controls = null, more = null }) {
  return h(
    "section",
    { "data-key": id, "aria-labelledby": `${id}-heading` },
    h(
      "div",
      { class: "heading" },
      h("h2", { id: `${id}-heading` }, heading),
      note && h("span", { class: "quiet" }, note),
    ),
    controls,
    rows.length ? table(id, columns, rows) : h("p", { class: "quiet empty" }, empty),
    more,
  );
}

function table(id, columns, rows) {
  return h(
    "table",
    { role: "table", "aria-labelledby": `${id}-heading` },
    h(
      "colgroup",
      {},
      columns.map((one) => h("col", { class: `w-${one.width}` })),
    ),
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        columns.map((one) =>
          h("th", { scope: "col", role: "columnheader", class: one.isNumber ? "number" : null }, one.title),
        ),
      ),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map((row) => tableRow(columns, row)),
    ),
  );
}

function tableRow(columns, row) {
  return h(
    "tr",
    { role: "row", "data-key": row.key, class: row.style ?? null },
    row.cells.map((cell, place) => {
      const { title, isNumber, width } = columns[place];
      const attributes = { "data-title": title, class: [isNumber ? "number" : "", `is-${width}`].join(" ").trim() };
      return place
        ? h("td", { role: "cell", ...attributes }, cell)
        : h("th", { scope: "row", role: "rowheader", ...attributes }, cell);
    }),
  );
}

/** Return a list of facts: pairs of a term and what is to be said of it; null: nothing. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter((pair) => pair && pair[1] !== null)
      .map(([term, said]) => h("div", {}, h("dt", {}, term), h("dd", {}, said))),
  );
}

/** Return a word in a frame. */
export function badge(text, style = "") {
  return h("span", { class: `badge ${style}`.trim() }, text);
}
