(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const charts = read("charts");
  const templates = read("templates");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)").matches;
  const template = () => (dark.matches ? templates.dark : templates.light);
  const options = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  const draw = (id) => {
    const { data, layout } = charts[id];
    // On a touch screen a drag scrolls the page instead of zooming the chart.
    const dragmode = coarse ? false : "zoom";
    // The tool bar would cover a small chart.
    const wide = document.getElementById(id).clientWidth > 600;
    const displayModeBar = wide && !coarse ? "hover" : false;
    const dressed = { ...layout, dragmode, template: template() };
    return Plotly.newPlot(id, data, dressed, { ...options, displayModeBar });
  };
  for (const id of Object.keys(charts)) {
    draw(id).catch((error) => {
      const box = document.getElementById(id);
      box.className = "empty";
      box.textContent = `This chart could not be drawn: ${error.message}`;
    });
  }
  dark.addEventListener("change", () => Object.keys(charts).forEach(draw));
  // A sheet of paper is narrower than most windows: charts shrink on it, as pictures do.
  const drawings = () => document.querySelectorAll(".chart .main-svg");
  window.addEventListener("beforeprint", () => {
    for (const one of drawings()) {
      one.setAttribute("viewBox", `0 0 ${one.getAttribute("width")} ${one.getAttribute("height")}`);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const one of drawings()) one.removeAttribute("viewBox");
  });
})();
