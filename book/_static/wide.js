/* What is wider than its box: a box that scrolls says so (class "wide"), and a line of code that wraps keeps its indent. */
"use strict";

(() => {
  const SCROLLING = ".bd-article :is(.pst-scrollable-table-container, .text_html, .cell_output, figure, mjx-container[display])";

  const watch = new ResizeObserver((boxes) => boxes.forEach(({ target: box }) => {
    const scrolls = getComputedStyle(box).overflowX === "auto" && box.scrollWidth > box.clientWidth + 1;
    (box.matches("mjx-container") ? box.parentElement : box).classList.toggle("wide", scrolls);
  }));
  const look = () => document.querySelectorAll(SCROLLING).forEach((box) => watch.observe(box));

  /* Pygments ends its spans with each line. Where it did not, the code stays as it is. */
  function hang(pre) {
    const lines = pre.innerHTML.replace(/\n$/, "").split("\n");
    if (lines.some((line) => line.split("<span").length !== line.split("</span>").length)) return;
    pre.innerHTML = lines.map((line) => {
      const indent = line.replace(/<[^>]*>/g, "").search(/\S|$/) + 4;
      return `<span class="hanging" style="--in: ${indent}ch">${line}\n</span>`;
    }).join("");
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".bd-article div.highlight pre").forEach(hang);
  });
  addEventListener("load", () => {
    look();
    window.MathJax?.startup?.promise?.then(look);
  });
})();
