// The tables that sort by a click, and the failed jobs.


function sortable(table, columns, rowsOf) { // columns: {title, of: row -> value, cell: row -> text or node, number}
  let order = null;
  const heads = columns.map((column, i) => {
    const button = element("button", { type: "button" }, column.title), head = element("th", { "aria-sort": "none", class: column.number ? "number" : null }, button);
    button.onclick = () => {
      order = order && order.i === i ? { i, down: !order.down } : { i, down: false };
      heads.forEach((one, j) => one.setAttribute("aria-sort", j !== i ? "none" : order.down ? "descending" : "ascending"));
      fill();
    };
    return head;
  });
  const body = element("tbody");
  table.replaceChildren(element("thead", {}, element("tr", {}, ...heads)), body);
  const fill = () => {
    const rows = rowsOf();
    if (order) {
      const of = columns[order.i].of, known = rows.filter((row) => of(row) !== null), unknown = rows.filter((row) => of(row) === null);
      known.sort(by(of));
      if (order.down) known.reverse();
      rows.splice(0, rows.length, ...known, ...unknown);
    }
    body.replaceChildren(...rows.map((row) => element("tr", {}, ...columns.map((column) => element("td", { class: column.number ? "number" : null }, column.cell(row))))));
  };
  return fill;
}

const SIGNS = { ok: "✓", failed: "✗", interrupted: "‖", running: "▸", queued: "·" };

function statusCell(job) { return element("span", { class: `status ${job.status}` }, `${SIGNS[job.status] || ""} ${job.status}`); }

function makeRuns() {
  const job = (i) => DATA.jobs[i], plain = (of, format = (v) => text(v)) => ({ of, cell: (i) => format(of(i)), number: true });
  const link = (i) => element("a", { href: `${encodeURI(job(i).href).replace(/#/g, "%23").replace(/\?/g, "%3F")}/` , title: job(i).folder }, String(job(i).job));
  const columns = [{ title: "job", of: (i) => job(i).job, cell: link, number: true }, { title: "status", of: (i) => job(i).status, cell: (i) => statusCell(job(i)) }];
  KEYS.forEach((key, k) => columns.push({ title: key.name, number: Boolean(key.numbers), of: (i) => job(i).k[k], cell: (i) => key.values[job(i).k[k]] }));
  DATA.metrics.forEach((name, m) => {
    if (name.endsWith("_se") && DATA.metrics.includes(name.slice(0, -3))) return;
    const se = DATA.metrics.indexOf(`${name}_se`);
    columns.push({ title: metricTitle(name), number: true, of: (i) => job(i).m[m], cell: (i) => plusMinus(job(i).m[m], se < 0 ? null : job(i).m[se]) });
  });
  columns.push({ title: "time (s)", ...plain((i) => job(i).seconds) }, { title: "attempts", ...plain((i) => job(i).attempts) });
  return sortable(document.getElementById("runs"), columns, shownJobs);
}

let pairs = [], fillPairTable = null;

function fillPairs(table, rows) {
  pairs = rows;
  const number = (title, j) => ({ title, of: (row) => row[j], cell: (row) => text(row[j], 3), number: true });
  fillPairTable ||= sortable(table, [
    { title: "compared", of: (row) => row[0], cell: (row) => row[0] }, { title: "under", of: (row) => row[1], cell: (row) => row[1] },
    { title: "s", of: (row) => (row[2] === "all" ? Infinity : row[2]), cell: (row) => (row[2] === "all" ? "all" : text(row[2])), number: true },
    { title: "difference", of: (row) => row[3], cell: (row) => signed(row[3], row[4]), number: true },
    number("90% from", 5), number("to", 6), { title: "pairs", of: (row) => row[7], cell: (row) => text(row[7]), number: true },
    { title: "against 0", of: (row) => Number(row[5] > 0) - Number(row[6] < 0), cell: (row) => (row[5] > 0 ? "above 0" : row[6] < 0 ? "below 0" : finite(row[5]) ? "open" : "one pair") },
  ], () => pairs);
  fillPairTable();
  table.parentElement.hidden = !rows.length;
}

const signed = (v, se) => (v > 0 ? "+" : "") + plusMinus(v, se);

function fillFailed() {
  const place = document.getElementById("failed");
  if (!place) return;
  const kept = new Set(shownJobs());
  const bad = DATA.jobs.filter((job, i) => job.tail !== undefined && kept.has(i));
  place.replaceChildren(...bad.map((job, n) => {
    const told = KEYS.map((key, k) => `${key.name}=${key.values[job.k[k]]}`).join(" ");
    const facts = [`exit code ${job.exit_code ?? "unknown"}`, `${job.attempts} attempt${job.attempts === 1 ? "" : "s"}`].join(", ");
    return element("details", { class: "failure", ...(n < 5 ? { open: "" } : {}) },
      element("summary", {}, `job ${job.job}, `, element("b", {}, told || job.folder), ` (${facts})`, job.message ? `: ${job.message}` : ""),
      element("pre", {}, element("code", {}, job.tail || "The job left no log.txt.")));
  }));
  const none = document.getElementById("no-failed");
  if (none) none.hidden = bad.length > 0;
}
