// The figures of what training did: curves, links, the index, reliability. Each draws what is chosen into its section.

const BASE = new Estimators();
const FEW_SEEDS = 5; // below it a band is the least and the largest seed, from it on an interval of the mean
const hiddenIn = (estimators) => (e) => state.hidden.has(estimators.labels[e]);

function linesOf(jobs, estimators = BASE) { // [[estimator, jobs]] in order, hidden ones too
  return [...grouped(jobs, (job) => estimators.of(job))].sort(by(([e]) => e));
}

// ---- curves ----

const curveOf = (job, metric) => (DATA.curves.jobs[job] || {})[metric];

function drawCurves(section) {
  const metrics = section.chosen("metrics").map((name) => DATA.curves.names.indexOf(name));
  const jobs = shownJobs().filter((job) => metrics.some((metric) => curveOf(job, metric)));
  const conditions = conditionsOf(jobs);
  const panels = metrics.flatMap((metric) => conditions.map((condition) => ({ metric, ...condition })));
  if (!section.begin(panels.length, "No job of this choice has logged any of these metrics.")) return;
  const drawn = section.page(panels).map(({ metric, label, jobs: own }) => {
    const lines = linesOf(own.filter((job) => curveOf(job, metric))).filter(([e]) => !hiddenIn(BASE)(e));
    section.crowd(lines.length, "left out");
    const traces = lines.slice(0, MOST_LINES).flatMap(([e, of]) => seedBand(e, of, metric, lines.length));
    const name = DATA.curves.names[metric];
    return { title: conditions.length > 1 ? `${name}, ${label}` : name, traces };
  });
  section.legend(BASE, linesOf(jobs).map(([e]) => e));
  drawPanels(section.plot, drawn, { xtitle: "optimizer step", ytitle: "", apart: ["y"] });
}

function seedBand(e, jobs, metric, lines) { // mean over jobs, and their band; of one job that of its replicates
  const style = styleOf(BASE, e), points = new Map();
  for (const job of jobs) {
    const [number, values, low, high] = curveOf(job, metric);
    DATA.curves.steps[number].forEach((step, i) => {
      if (!finite(values[i])) return;
      if (!points.has(step)) points.set(step, { values: [], low: [], high: [] });
      const at = points.get(step);
      at.values.push(values[i]);
      if (low && finite(low[i]) && finite(high[i])) { at.low.push(low[i]); at.high.push(high[i]); }
    });
  }
  const steps = [...points.keys()].sort((a, b) => a - b);
  const found = steps.map((step) => spreadAt(points.get(step)));
  const label = BASE.labels[e], several = jobs.length > 1 ? ` (${jobs.length} jobs)` : "";
  const hover = found.map((f) => (finite(f.low) ? ` [${text(f.low)}, ${text(f.high)}]` : ""));
  const main = line(style, steps, found.map((f) => f.mean), {
    text: hover, hovertemplate: `<b>${escaped(label)}</b>${several}<br>step %{x}: %{y:.4g}%{text}<extra></extra>` });
  if (steps.length > 12) main.mode = "lines";
  const wide = lines <= CROWD && found.some((f) => finite(f.low));
  return [...(wide ? [band(style, steps, found.map((f) => f.low), found.map((f) => f.high))] : []), main];
}

function spreadAt({ values, low, high }) {
  if (low.length === values.length && low.length) return { mean: mean(values), low: mean(low), high: mean(high) };
  if (values.length >= FEW_SEEDS) return summary(values);
  return { mean: mean(values), low: values.length > 1 ? Math.min(...values) : NaN, high: values.length > 1 ? Math.max(...values) : NaN };
}

// ---- links and index over time: a panel a group, of its first job ----

function groupsOf(jobs) { // [{e, label, jobs}] by condition, then estimator
  return conditionsOf(jobs).flatMap((condition) => linesOf(condition.jobs).map(([e, own]) => (
    { e, jobs: own, label: [BASE.labels[e], condition.label].filter((one) => one && one !== ALL).join(", ") || ALL })));
}

const upTo = (records, step) => records.filter((one) => one.step <= step).pop() || null;

function historyPanels(section, histories, empty) {
  const jobs = shownJobs().filter((job) => histories[job]);
  const groups = groupsOf(jobs).filter(({ e }) => !hiddenIn(BASE)(e));
  if (!section.begin(groups.length, empty)) return null;
  section.steps(distinct(jobs.flatMap((job) => histories[job].map((one) => one.step))).sort((a, b) => a - b));
  return section.page(groups).map((group) => ({ ...group, job: group.jobs[0], records: histories[group.jobs[0]] }));
}

const panelName = (group, record) => `${group.label}${record ? ` · step ${record.step}` : ": none yet"}`;

function drawLinks(section) {
  const groups = historyPanels(section, DATA.links, "No job of this choice has fitted a link.");
  if (groups === null) return;
  const known = groups.some((group) => group.records.some((one) => one.scale));
  const placeable = (record) => record && (!known || record.scale); // on an axis of u
  const panels = groups.map((group) => {
    const record = upTo(group.records, state.step), first = group.records[0], style = styleOf(BASE, group.e);
    const traces = [...(record !== first && placeable(first) ? linkLines(first, style, true) : []), ...(placeable(record) ? linkLines(record, style, false) : [])];
    return { title: panelName(group, record) + (record && !placeable(record) ? ": nobody knows where on t the true link lies" : ""), traces: traces.length ? traces : [rule([0], [0.5])] };
  });
  section.legend(BASE, distinct(groups.map((group) => group.e)).sort((a, b) => a - b), [
    { style: { colour: TRUE, dash: "dash" }, label: "true link" }, { style: { colour: GREY, dash: "dot" }, label: "best logistic" },
    { style: { colour: "#c3c9d1", dash: "solid" }, label: "first fit" }]);
  const x = known ? { range: [-3.2, 3.2] } : {};
  drawPanels(section.plot, panels, { xtitle: known ? "u = t / c: reward difference that t stands for (sd)" : "index t (nats)",
    ytitle: "P(response 1 preferred)", x, y: { range: [0, 1] }, height: 230, apart: known ? [] : ["x"] });
}

function linkLines(record, style, faint) {
  const n = record.p.length, t = record.p.map((_, i) => record.reach * (2 * i / (n - 1) - 1)); // an even grid
  const x = t.map((value) => value / (record.scale || 1));
  const name = (words) => ({ hovertemplate: `${words}, step ${record.step}<br>%{x:.3g}: %{y:.3f}<extra></extra>`, mode: "lines" });
  if (faint) return [line({ ...style, colour: "#c3c9d1" }, x, record.p, { ...name("first fit"), line: { color: "#c3c9d1", width: 2 } })];
  const best = t.map((value) => 1 / (1 + Math.exp(-record.slope * value)));
  const lines = [line({ colour: GREY, dash: "dot" }, x, best, name("best logistic"))];
  if (record.true) lines.push(line({ colour: TRUE, dash: "dash" }, x, record.true, name("true link")));
  return [...lines, line(style, x, record.p, { ...name("fitted link"), line: { color: style.colour, width: 2.6 } })];
}

function drawIndex(section) {
  const groups = historyPanels(section, DATA.indices, "No job of this choice has an index history: none reached its first validation.");
  if (groups === null) return;
  const panels = groups.map((group) => {
    const record = upTo(group.records, state.step), style = styleOf(BASE, group.e);
    const flat = record && record.counts.filter((count) => count > 0).length < 2;
    return { title: panelName(group, record) + (flat ? ": every t is 0" : ""), traces: record && !flat ? [histogram(record, style)] : [rule([0], [0])] };
  });
  section.legend(BASE, distinct(groups.map((group) => group.e)).sort((a, b) => a - b));
  drawPanels(section.plot, panels, { xtitle: "index t (nats)", ytitle: "density", height: 190, apart: ["y", "x"], y: { rangemode: "tozero" } });
}

function histogram(record, style) {
  const n = record.counts.length, width = (record.high - record.low) / n, total = record.counts.reduce((a, b) => a + b, 0);
  const x = record.counts.flatMap((_, i) => [record.low + i * width, record.low + (i + 1) * width]);
  const y = record.counts.flatMap((count) => [count, count].map((c) => c / total / width));
  return { type: "scatter", mode: "lines", x, y, fill: "tozeroy", fillcolor: alpha(style.colour, 0.45), line: { color: style.colour, width: 1 },
    showlegend: false, hovertemplate: "t %{x:.3g}: density %{y:.3g}<extra></extra>" };
}

// ---- reliability ----

function drawReliability(section) {
  const jobs = shownJobs().filter((job) => DATA.reliability[job]);
  const conditions = conditionsOf(jobs);
  if (!section.begin(conditions.length, "No job of this choice has a link and held-out rows.")) return;
  const panels = section.page(conditions).map(({ label, jobs: own }) => {
    const lines = linesOf(own).filter(([e]) => !hiddenIn(BASE)(e));
    section.crowd(lines.length, "left out");
    return { title: label || "held-out rows", traces: [rule([0, 1], [0, 1]), ...lines.slice(0, MOST_LINES).map(([e, of]) => shares(e, of, lines.length))] };
  });
  section.legend(BASE, linesOf(jobs).map(([e]) => e), [{ style: { colour: GREY, dash: "dot" }, label: "predicted = observed" }]);
  drawPanels(section.plot, panels, { xtitle: "predicted P(response 1 preferred)", ytitle: "observed share", x: { range: [-0.02, 1.02] }, y: { range: [-0.02, 1.02] }, height: 300 });
}

function shares(e, jobs, lines) { // the rows of all seeds together
  const style = styleOf(BASE, e), bins = DATA.reliability[jobs[0]].map((_, i) => [0, 1, 2].map((j) => jobs.reduce((a, job) => a + DATA.reliability[job][i][j], 0)));
  const found = bins.filter(([w]) => w >= DATA.fewest_rows).map(([w, p, z]) => ({ w, p: p / w, z: z / w, ends: wilson(z / w, w) }));
  const y = found.map((one) => one.z);
  const more = lines <= CROWD ? { error_y: bars(y, found.map((one) => one.ends[0]), found.map((one) => one.ends[1]), alpha(style.colour, 0.6)) } : {};
  return line(style, found.map((one) => one.p), y, { ...more, text: found.map((one) => text(one.w)),
    hovertemplate: `<b>${escaped(BASE.labels[e])}</b><br>predicted %{x:.3f}, observed %{y:.3f}<br>%{text} rows<extra></extra>` });
}
