// Tables of results: a press on a column's head sorts the rows by it, another press turns their order round.

// What is sorted by: the number with which a cell begins ("99.55 ± 0.04 %", "9,404"), or else its text (a date, a name).
function key(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = text.match(/^[\d,.]+(?=$| )/);
  return number ? Number(number[0].replaceAll(",", "")) : text;
}

function compare(one, other) {
  if (typeof one === typeof other) return one < other ? -1 : Number(one > other);
  return typeof one === "number" ? -1 : 1;
}

function sort(table, head) {
  const column = head.cellIndex;
  const order = head.ariaSort === "ascending" ? "descending" : "ascending";
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((one, other) => compare(key(one, column), key(other, column)));
  body.append(...(order === "ascending" ? rows : rows.reverse()));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.ariaSort = order;
}

for (const table of document.querySelectorAll(".sortable table")) {
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
  }
}

// What the theme leaves out for screen readers and voice control: the search button is named by its text, and what folds
// the navigation has a name.
for (const button of document.querySelectorAll(".search-button-field")) button.removeAttribute("aria-label");
for (const summary of document.querySelectorAll(".bd-links summary")) {
  summary.ariaLabel = `Pages below ${summary.closest("li").querySelector("a").textContent.trim()}`;
}
