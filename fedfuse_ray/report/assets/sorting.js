(() => {
  const arrows = { ascending: "\u25b2", descending: "\u25bc", none: "\u2195" };
  const value = (row, column) => {
    const cell = row.cells[column];
    const key = cell.dataset.sort;
    return key === undefined ? cell.textContent.trim() : key === "" ? null : Number(key);
  };
  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number"
      ? one - other
      : String(one).localeCompare(String(other), undefined, { numeric: true });
  const sort = (table, column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    rows.sort(([one], [other]) => {
      // What a trial did not come to stands last, whichever way the rest is sorted.
      if (one === null || other === null) return (one === null) - (other === null);
      return sign * compare(one, other);
    });
    body.append(...rows.map(([, row]) => row));
  };
  for (const table of document.querySelectorAll(".sortable table")) {
    const heads = [...table.tHead.rows[0].cells];
    const show = (head, direction) => {
      if (direction === "none") head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", direction);
      head.querySelector("span").textContent = arrows[direction];
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      const arrow = document.createElement("span");
      arrow.setAttribute("aria-hidden", "true");
      button.type = "button";
      button.append(...head.childNodes, arrow);
      head.append(button);
      show(head, "none");
      button.addEventListener("click", () => {
        const rises = head.getAttribute("aria-sort") === "ascending";
        const direction = rises ? "descending" : "ascending";
        heads.forEach((one) => show(one, one === head ? direction : "none"));
        sort(table, column, direction);
      });
    });
  }
})();
