// Panels of lines: one drawing function for every figure, with common styles, axes, legend and pages.

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]; // Okabe and Ito
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const TRUE = "#000000", TEACHER = "#5a5a5a", GREY = "#9aa0a6";
const MOST_PANELS = 12, MOST_LINES = 24; // of one page of a figure; of one panel
const CROWD = 6; // lines; of more the bands would hide one another, and bars or nothing are drawn
const CONFIG = { displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
const FONT = { family: "system-ui, sans-serif", size: 12, color: "#1d2330" };

function styleOf(estimators, e) {
  if (estimators.references[e]) return { colour: TRUE, symbol: "circle-open", dash: "dash" };
  const i = estimators.references.slice(0, e).filter((one) => !one).length;
  const round = Math.floor(i / COLOURS.length);
  return { colour: COLOURS[i % COLOURS.length], symbol: SYMBOLS[i % SYMBOLS.length], dash: DASHES[round % DASHES.length] };
}

const alpha = (colour, a) => `rgba(${[1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)).join()},${a})`;

function line(style, x, y, more = {}) {
  const marked = x.length <= 40;
  return {
    type: "scatter", x, y, mode: marked ? "lines+markers" : "lines", showlegend: false, connectgaps: false,
    line: { color: style.colour, dash: style.dash, width: 2 },
    marker: { color: style.colour, symbol: style.symbol, size: 6 }, ...more,
  };
}

function band(style, x, low, high) { // where both ends are known
  const at = x.map((_, i) => i).filter((i) => finite(low[i]) && finite(high[i]));
  return {
    type: "scatter", mode: "lines", fill: "toself", hoverinfo: "skip", showlegend: false, line: { width: 0 },
    fillcolor: alpha(style.colour, 0.16),
    x: [...at.map((i) => x[i]), ...at.map((i) => x[i]).reverse()],
    y: [...at.map((i) => high[i]), ...at.map((i) => low[i]).reverse()],
  };
}

const bars = (values, low, high, colour) => ({
  type: "data", symmetric: false, thickness: 1.3, width: 0, color: colour,
  array: values.map((v, i) => (finite(high[i]) ? high[i] - v : 0)),
  arrayminus: values.map((v, i) => (finite(low[i]) ? v - low[i] : 0)),
});

const rule = (x, y, more = {}) => ({
  type: "scatter", mode: "lines", x, y, hoverinfo: "skip", showlegend: false, line: { color: GREY, width: 1, dash: "dot" }, ...more,
});

// ---- axes ----

const MARGIN = { l: 58, r: 14, t: 30, b: 46 };
const GAP = { x: 56, y: 64 }; // pixels between panels
const BREAK = 6.4; // pixels of a letter of a title

function arrange(count, width, height) { // columns, and where each panel lies, in shares of the drawing
  const columns = count <= 3 ? count : count === 4 ? 2 : 3, rows = Math.ceil(count / columns);
  const inner = { w: width - MARGIN.l - MARGIN.r, h: rows * height + (rows - 1) * GAP.y };
  const w = (inner.w - (columns - 1) * GAP.x) / columns;
  const spots = Array.from({ length: count }, (_, i) => {
    const left = (i % columns) * (w + GAP.x), top = Math.floor(i / columns) * (height + GAP.y);
    return { x: [left / inner.w, (left + w) / inner.w], y: [1 - (top + height) / inner.h, 1 - top / inner.h] };
  });
  return { columns, spots, panel: w, total: inner.h + MARGIN.t + MARGIN.b };
}

// panels: [{title, traces, x, y}]; x, y: axis settings of that panel over those of all; apart: axes with their own ranges
function drawPanels(place, panels, { xtitle, ytitle, x = {}, y = {}, height = 250, alone = 360, apart = [] }) {
  const width = place.clientWidth || 1000;
  const { columns, spots, panel, total } = arrange(panels.length, width, panels.length === 1 ? Math.max(height, alone) : height);
  const layout = {
    width, height: total, margin: MARGIN, font: FONT, paper_bgcolor: "#fff", plot_bgcolor: "#fff", annotations: [],
    hovermode: "closest", hoverlabel: { font: { size: 12 }, align: "left" }, showlegend: false, shapes: [],
  };
  const traces = [];
  panels.forEach((one, i) => {
    const id = i ? String(i + 1) : "", last = i + columns >= panels.length, first = i % columns === 0;
    const common = { gridcolor: "#e6e6e6", zeroline: false, automargin: false, ticks: "outside", ticklen: 3, linecolor: "#5b6472" };
    const title = (words) => ({ text: words, standoff: 6, font: { size: 12 } });
    const own = one.ytitle ?? (first || apart.includes("y") ? ytitle : "");
    layout[`xaxis${id}`] = { ...common, domain: spots[i].x, anchor: `y${id}`, ...(apart.includes("x") || !i ? {} : { matches: "x" }),
      title: title(last || apart.includes("x") ? xtitle : ""), ...x, ...one.x };
    layout[`yaxis${id}`] = { ...common, domain: spots[i].y, anchor: `x${id}`, ...(apart.includes("y") || !i ? {} : { matches: "y" }),
      title: title(own), ...y, ...one.y };
    const most = Math.floor(panel / BREAK);
    const words = one.title.length > most ? `${one.title.slice(0, most - 1)}…` : one.title;
    layout.annotations.push({ text: `<b>${escaped(words)}</b>`, showarrow: false, xref: "paper", yref: "paper", x: spots[i].x[0], y: spots[i].y[1],
      xanchor: "left", yanchor: "bottom", yshift: 4, font: { size: 12 }, hovertext: one.title });
    for (const trace of one.traces) traces.push({ ...trace, xaxis: `x${id}`, yaxis: `y${id}` });
  });
  Plotly.react(place, traces, layout, CONFIG);
}

const escaped = (words) => words.replace(/&/g, "&amp;").replace(/</g, "&lt;");

// ---- legend ----

const PATHS = { // of a marker, around 0
  circle: "M4,0A4,4 0 1,1 -4,0A4,4 0 1,1 4,0Z", "circle-open": "M4,0A4,4 0 1,1 -4,0A4,4 0 1,1 4,0Z", square: "M-3.5,-3.5H3.5V3.5H-3.5Z",
  "triangle-up": "M0,-4.5L4.5,3.5H-4.5Z", "triangle-down": "M0,4.5L4.5,-3.5H-4.5Z", diamond: "M0,-5L5,0L0,5L-5,0Z",
  cross: "M-1.5,-4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5V-1.5H-1.5Z", x: "M-4,-2.5L-2.5,-4L0,-1.5L2.5,-4L4,-2.5L1.5,0L4,2.5L2.5,4L0,1.5L-2.5,4L-4,2.5L-1.5,0Z",
};
const STROKES = { solid: "", dash: "6 3", dot: "2 2", dashdot: "6 2 2 2" };

function swatch({ colour, symbol, dash }) {
  const marker = symbol ? `<path transform="translate(17,6)" d="${PATHS[symbol]}" fill="${symbol.endsWith("open") ? "#fff" : colour}" stroke="${colour}"/>` : "";
  return `<svg width="34" height="12" aria-hidden="true"><line x1="0" y1="6" x2="34" y2="6" stroke="${colour}" stroke-width="2" stroke-dasharray="${STROKES[dash]}"/>${marker}</svg>`;
}

// others: [{style, label}] that are no estimators, such as the true link
function drawLegend(place, estimators, shown, others = []) {
  place.replaceChildren();
  for (const e of shown.slice(0, MOST_LINES)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "entry";
    button.setAttribute("aria-pressed", String(!state.hidden.has(estimators.labels[e])));
    button.title = "hide or show it in every figure";
    button.innerHTML = `${swatch(styleOf(estimators, e))}<span></span>`;
    button.querySelector("span").textContent = estimators.labels[e];
    button.onclick = () => { toggle(state.hidden, estimators.labels[e]); refresh(); };
    place.append(button);
  }
  if (shown.length > MOST_LINES) place.append(`and ${text(shown.length - MOST_LINES)} more `);
  for (const { style, label } of others) {
    const entry = document.createElement("span");
    entry.className = "entry";
    entry.innerHTML = `${swatch(style)}<span></span>`;
    entry.querySelector("span").textContent = label;
    place.append(entry);
  }
}

function toggle(set, value) { if (!set.delete(value)) set.add(value); }
