// Language models that were evaluated on the same prompts: what they reach at one KL, over seeds and prompts.

const PROMPTS = DATA.compared; // of a job: at, win, win_reference (a value a prompt), base, kl and rewards (a beta each)
const EVEN = 0.5; // a win rate that tells nothing apart
const GRID = 32; // KLs of a drawn frontier

// The mean over seeds and prompts with its interval, as spo.report.statistics.two_way has it. rows: a seed each, of
// values of the same prompts, null where a job has not sampled one: such prompts are left out.
function twoWay(rows) {
  const known = rows.length ? rows[0].map((_, i) => i).filter((i) => rows.every((row) => finite(row[i]))) : [];
  const K = rows.length, I = known.length;
  if (!I) return null;
  const d = rows.map((row) => known.map((i) => row[i])), seed = d.map(mean), prompt = known.map((_, i) => mean(d.map((row) => row[i]))), m = mean(seed);
  if (I < 2) return { mean: m, se: NaN, low: NaN, high: NaN, seeds: K, prompts: I };
  const spread = (values) => values.reduce((a, v) => a + (v - m) ** 2, 0) / (values.length - 1) / values.length;
  const b = spread(prompt);
  let square = b, degrees = I - 1;
  if (K > 1) {
    const free = (K - 1) * (I - 1), a = spread(seed);
    const c = d.reduce((all, row, k) => all + row.reduce((s, v, i) => s + (v - seed[k] - prompt[i] + m) ** 2, 0), 0) / free / (K * I);
    const doubt = a ** 2 / (K - 1) + b ** 2 / (I - 1) + c ** 2 / free;
    square = Math.max(a, c) + Math.max(b, c) - c;
    if (doubt > 0) degrees = Math.max(Math.floor(square ** 2 / doubt), 1);
  }
  const half = DATA.t[Math.min(degrees, DATA.t.length) - 1] * Math.sqrt(square);
  return { mean: m, se: Math.sqrt(square), low: m - half, high: m + half, seeds: K, prompts: I };
}

const apart = (one, even = 0) => (one === null ? 0 : Number(one.low > even) - Number(one.high < even));
const share = (one) => one && { ...one, low: Math.max(one.low, 0), high: Math.min(one.high, 1) };
const minus = (a, b) => a.map((v, i) => (finite(v) && finite(b[i]) ? v - b[i] : null));
const signedText = (v) => (v > 0 ? "+" : "") + v.toFixed(3);
const intervalText = (one, format = (v) => v.toFixed(3)) => (one === null ? "–" : format(one.mean) + (finite(one.low) ? ` [${format(one.low)}, ${format(one.high)}]` : ""));

function comparedCells() { // [{e, label, under, jobs, reward, difference, win, ...}] of what is chosen; conditions together
  const jobs = shownJobs().filter((job) => PROMPTS.jobs[job] && PROMPTS.jobs[job].at);
  const of = (own, name) => twoWay(own.map((job) => PROMPTS.jobs[job][name]));
  return conditionsOf(jobs).flatMap(({ label: under, jobs: own }) => linesOf(own).map(([e, mine]) => {
    const paired = mine.filter((job) => PROMPTS.jobs[job].base !== null && PROMPTS.jobs[PROMPTS.jobs[job].base].at);
    const baseline = PROMPTS.jobs[mine[0]].baseline;
    const unclear = mine.map((job) => PROMPTS.jobs[job].undetermined).filter(finite);
    return { e, label: BASE.labels[e], under, baseline, unclear, reward: of(mine, "at"), winReference: share(of(mine, "win_reference")),
      difference: twoWay(paired.map((job) => minus(PROMPTS.jobs[job].at, PROMPTS.jobs[PROMPTS.jobs[job].base].at))),
      win: share(of(paired, "win")) };
  })).filter(({ e }) => !hiddenIn(BASE)(e));
}

function comparedWords(cells) {
  const compared = cells.filter((one) => one.difference), told = compared.filter((one) => apart(one.difference));
  const name = (one) => `${one.label}${one.under ? ` (${one.under})` : ""}`;
  const listed = (side) => told.filter((one) => apart(one.difference) === side).map((one) => `${name(one)} by ${intervalText(one.difference, signedText)}`).join(", ");
  const verdict = !compared.length ? "There is no evaluated DPO of the same settings and seed: no differences and no win rates to it."
    : !told.length ? `No method is told apart from DPO at 90%, by its reward at KL ${text(PROMPTS.kl)}.`
      : `At 90%, by reward at KL ${text(PROMPTS.kl)}, ${[listed(1) && `above DPO: ${listed(1)}`, listed(-1) && `below DPO: ${listed(-1)}`].filter(Boolean).join("; ")}; ${compared.length - told.length} of ${compared.length} comparisons are open.`
        + (compared.length > 1 ? ` Where no method differed, about ${text(0.1 * compared.length, 1)} of ${compared.length} would be told apart by chance alone.` : "");
  const wins = compared.filter((one) => one.win && apart(one.win, EVEN));
  const byWins = !compared.length ? "" : wins.length ? ` By win rate against DPO apart from 1/2: ${wins.map((one) => `${name(one)} ${intervalText(one.win)}`).join(", ")}.` : " By win rate against DPO none is apart from 1/2.";
  const lonely = cells.filter((one) => one.reward.seeds === 1);
  const seeds = !lonely.length ? "" : lonely.length === cells.length ? " One seed: the interval is over prompts only." : ` Of ${lonely.map(name).join(", ")} there is one seed: there the interval is over prompts only.`;
  const unclear = cells.filter((one) => one.unclear.length).map((one) => `${name(one)} ${one.unclear.map((z) => z.toFixed(1)).join(" and ")}`).join(", ");
  return verdict + byWins + seeds + (unclear && ` The data do not say which way the index points (z-score below ${PROMPTS.determined}) of ${unclear}.`);
}

let comparedRows = [], fillCompared = null;

function drawMethods(section) {
  const cells = comparedCells();
  comparedRows = cells;
  fillCompared ||= comparedTable(section.root.querySelector("table"));
  fillCompared();
  section.root.querySelector(".verdict").textContent = cells.length ? comparedWords(cells) : "";
  const own = cells.filter((one) => one.difference).slice(0, 2 * MOST_LINES);
  if (!section.begin(own.length, cells.length ? "" : "No job of this choice has samples of a language model that reach this KL.")) return;
  section.legend(BASE, distinct(own.map((one) => one.e)));
  const places_ = own.map((_, i) => own.length - 1 - i), reach = [-0.6, own.length - 0.4];
  const panel = (title, of, even, words, y = {}) => ({ title, traces: [rule([even, even], reach, { line: { color: TRUE, width: 1.2, dash: "solid" } }),
    ...own.flatMap((one, i) => (of(one) ? [interval(one, of(one), places_[i], even)] : []))],
  x: { title: { text: words, standoff: 6, font: { size: 12 } } }, y });
  const names = own.map((one) => `${one.under ? `${one.under} · ` : ""}${one.label}`);
  const ticks = { tickmode: "array", tickvals: places_, ticktext: names.map((one) => escaped(one.length > 30 ? `${one.slice(0, 29)}…` : one)), range: reach, automargin: true, showgrid: false };
  drawPanels(section.plot, [panel("difference of reward", (one) => one.difference, 0, `reward at KL ${text(PROMPTS.kl)}, less DPO's`),
    panel("win rate", (one) => one.win, EVEN, "win rate against DPO", { showticklabels: false })], { xtitle: "", ytitle: "", apart: ["x"], y: ticks, height: 60 + 24 * Math.max(own.length, 2) });
}

function interval(one, found, y, even) { // a mark, filled where the interval lies beside `even`
  const style = styleOf(BASE, one.e), symbol = apart(found, even) ? style.symbol.replace("-open", "") : `${style.symbol.replace("-open", "")}-open`;
  return line(style, [found.mean], [y], { mode: "markers", marker: { color: style.colour, symbol, size: 9, line: { width: 2, color: style.colour } },
    error_x: { ...bars([found.mean], [found.low], [found.high], style.colour), thickness: 2 },
    hovertemplate: `<b>${escaped(one.label)}</b>${one.under ? ` ${escaped(one.under)}` : ""}<br>${intervalText(found)}<br>${found.seeds} seed${found.seeds > 1 ? "s" : ""}, ${found.prompts} prompts<extra></extra>` });
}

function comparedTable(table) {
  const number = (title, of, format) => ({ title, number: true, of: (one) => (of(one) ? of(one).mean : null), cell: (one) => intervalText(of(one), format) });
  const count = (title, name) => ({ title, number: true, of: (one) => one.reward[name], cell: (one) => text(one.reward[name]) });
  return sortable(table, [
    { title: "under", of: (one) => one.under, cell: (one) => one.under || "–" }, { title: "method", of: (one) => one.e, cell: (one) => one.label },
    number(`reward at KL ${text(PROMPTS.kl)}`, (one) => one.reward), number("less DPO's", (one) => one.difference, signedText),
    number("win rate against DPO", (one) => one.win), number("against the reference", (one) => one.winReference), count("seeds", "seeds"), count("prompts", "prompts"),
    { title: "against DPO", of: (one) => apart(one.difference), cell: (one) => (one.baseline ? "baseline" : !one.difference ? "–" : ["below", "open", "above"][apart(one.difference) + 1]) },
  ], () => [...comparedRows]);
}

// ---- frontiers over seeds and prompts ----

const withPaths = (own) => own.every((one) => PROMPTS.jobs[one.job] && PROMPTS.jobs[one.job].rewards);

function pathAt(job, kl) { // of each prompt the reward where the path first crosses this KL, in the root of KL
  const { kl: at, rewards } = PROMPTS.jobs[job];
  const j = at.findIndex((_, i) => i > 0 && root(at[i - 1]) <= root(kl) && root(kl) <= root(at[i]) && at[i] > at[i - 1]);
  const w = (root(kl) - root(at[j - 1])) / (root(at[j]) - root(at[j - 1]));
  return rewards[j].map((v, i) => (finite(v) && finite(rewards[j - 1][i]) ? (1 - w) * rewards[j - 1][i] + w * v : null));
}

function promptLines(style, label, own, banded) { // as far as every seed reaches
  const start = Math.max(...own.map((one) => PROMPTS.jobs[one.job].kl[0])); // 0, but for a truncated reference
  const end = Math.min(...own.map((one) => Math.max(...PROMPTS.jobs[one.job].kl))) * (1 - 1e-9);
  const between = (i) => (root(start) + (i / (GRID - 1)) * (root(end) - root(start))) ** 2;
  const kl = end > start ? Array.from({ length: GRID }, (_, i) => Math.min(end, Math.max(start, between(i)))) : [];
  const found = kl.map((at) => twoWay(own.map((one) => pathAt(one.job, at))));
  const x = kl.map(root), y = found.map((one) => one.mean), low = found.map((one) => one.low), high = found.map((one) => one.high);
  const words = found.map((one, i) => `KL ${text(kl[i], 3)}: reward ${intervalText(one)}<br>${one.seeds} seed${one.seeds > 1 ? "s" : ""}, ${one.prompts} prompts`);
  const main = line(style, x, y, { mode: "lines", text: words, hovertemplate: `<b>${escaped(label)}</b><br>%{text}<extra></extra>` });
  const dots = own.map((one) => { // each seed's betas, which are what was sampled
    const at = one.kl.map((_, i) => i).filter((i) => finite(one.kl[i]) && finite(one.reward[i]));
    return line(style, at.map((i) => root(one.kl[i])), at.map((i) => one.reward[i]), { mode: "markers", opacity: 0.6, marker: { color: style.colour, symbol: style.symbol, size: 6 },
      text: at.map((i) => (one.beta[i] === null ? "reference" : `beta ${text(one.beta[i])}`)), hovertemplate: `<b>${escaped(label)}</b>, job ${DATA.jobs[one.job].job}<br>%{text}: reward %{y:.4g}<extra></extra>` });
  });
  return [...(banded ? [band(style, x, low, high)] : []), main, ...dots];
}

// ---- panels that are ready: ranking, and other ways to sample ----

const drawReady = (name, empty) => (section) => {
  const of = PROMPTS[name], jobs = shownJobs().filter((job) => of[job]);
  const groups = groupsOf(jobs).filter(({ e }) => !hiddenIn(BASE)(e));
  const panels = groups.flatMap((group) => of[group.jobs[0]].map((panel, i) => ({ ...panel, i, title: [group.label, panel.part].filter(Boolean).join(": ") }))).sort(by((panel) => panel.i));
  if (!section.begin(panels.length, empty)) return;
  const shown = section.page(panels), lines = shown.flatMap((panel) => panel.lines.filter((one) => one.label));
  const styles = new Map(lines.map((one) => [one.label, { colour: one.colour, symbol: one.marker, dash: one.dash || "solid" }]));
  section.legend(BASE, [], [...styles].map(([label, style]) => ({ style, label })));
  drawPanels(section.plot, shown.map((panel) => ({ title: panel.title, traces: panel.lines.flatMap(readyLine),
    x: { type: panel.log ? "log" : "linear", showticklabels: Boolean(panel.xtitle), title: { text: panel.xtitle, standoff: 6, font: { size: 12 } } } })),
  { xtitle: "", ytitle: shown[0].ytitle, apart: ["x"], height: 230 });
};

function readyLine(one) {
  const style = { colour: one.colour, symbol: one.marker, dash: one.dash || "solid" };
  const mode = [one.dash && "lines", one.marker && "markers"].filter(Boolean).join("+");
  const ends = (i) => (one.low ? ` [${text(one.low[i], 3)}, ${text(one.high[i], 3)}]` : "");
  const words = one.y.map((v, i) => `${text(one.x[i], 3)}: ${text(v, 3)}${ends(i)}${one.notes ? `<br>${escaped(one.notes[i])}` : ""}`);
  const more = one.label ? { text: words, hovertemplate: `<b>${escaped(one.label)}</b><br>%{text}<extra></extra>` } : { hoverinfo: "skip" };
  const main = line(style, one.x, one.y, { ...more, mode, ...(one.low && !one.band ? { error_y: bars(one.y, one.low, one.high, alpha(one.colour, 0.6)) } : {}) });
  return [...(one.band && one.low ? [band(style, one.x, one.low, one.high)] : []), main];
}
