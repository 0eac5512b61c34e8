/* Long tables can be sorted: each header becomes a button, which sorts up, then down, then restores the order. */
"use strict";

(() => {
  const FEWEST_ROWS = 5;
  const ABSENT = new Set(["", "–", "—"]);
  // A number at the start of a cell, of which a sign, a unit or an interval may be part: `−0.14 [−0.38, +0.09]`.
  const NUMBER = /^([+−-]?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?=$|[\s%[(,–])/;
  const words = new Intl.Collator("en", { numeric: true }); // C9 before C10

  const textOf = (cell) => cell.textContent.trim();

  function numberOf(text) {
    const found = NUMBER.exec(text);
    if (!found) return NaN;
    return Number((found[1] && found[1] !== "+" ? "-" : "") + found[2].replaceAll(",", "") + (found[3] ?? ""));
  }

  /* One header cell a column: a frame of pandas has a second line for the names of its index. None where cells span. */
  function headersOf(table) {
    if (table.querySelector("[rowspan]:not([rowspan='1']), [colspan]:not([colspan='1'])")) return null;
    const lines = [...(table.tHead?.rows ?? [])];
    const width = lines[0]?.cells.length ?? 0;
    if (!width || lines.some((line) => line.cells.length !== width)) return null;
    return [...lines[0].cells].map((cell, i) => lines.map((line) => line.cells[i]).find(textOf) ?? cell);
  }

  function mayBeSorted(table, rows) {
    if (rows.length < FEWEST_ROWS) return false;
    // Frames that count something (glimpses, epochs) are read from the top down.
    const counts = rows.every((row) => !Number.isNaN(numberOf(textOf(row.cells[0]))));
    return !(table.classList.contains("dataframe") && counts);
  }

  function sorted(rows, column, direction) {
    if (!direction) return rows;
    const texts = new Map(rows.map((row) => [row, textOf(row.cells[column])]));
    const present = rows.filter((row) => !ABSENT.has(texts.get(row)));
    const absent = rows.filter((row) => ABSENT.has(texts.get(row)));
    const numeric = present.every((row) => !Number.isNaN(numberOf(texts.get(row))));
    const compare = numeric ? (a, b) => numberOf(a) - numberOf(b) : words.compare;
    present.sort((a, b) => direction * compare(texts.get(a), texts.get(b)));
    return [...present, ...absent];
  }

  function makeSortable(table) {
    const rows = [...(table.tBodies[0]?.rows ?? [])];
    const headers = headersOf(table);
    if (!headers || !mayBeSorted(table, rows)) return;
    headers.forEach((header, column) => {
      if (!textOf(header)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "" }[header.getAttribute("aria-sort")] ?? "ascending";
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        if (next) header.setAttribute("aria-sort", next);
        table.tBodies[0].append(...sorted(rows, column, { ascending: 1, descending: -1 }[next]));
      });
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("table.numbers, table.ledger, table.dataframe").forEach(makeSortable);
  });
})();
