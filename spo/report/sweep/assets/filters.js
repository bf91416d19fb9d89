// The menus that choose jobs by the keys in which they differ.


const RANGE_FROM = 13; // values of a key of numbers; from so many on it is filtered by its ends

function menu(label, options, get, set) { // options: [value, words]; null chosen: all
  const summary_ = element("summary", {}), boxes = options.map(([id, words]) => {
    const box = element("input", { type: "checkbox", value: id });
    box.checked = true;
    box.onchange = () => {
      const on = options.filter((_, i) => boxes[i].checked).map(([one]) => one);
      set(on.length === options.length ? null : new Set(on));
      show();
      refresh();
    };
    return box;
  });
  const show = () => {
    const chosen = get();
    const words = chosen === null ? "all" : chosen.size === 0 ? "none" : options.filter(([id]) => chosen.has(id)).map(([, one]) => one).join(", ");
    summary_.replaceChildren(`${label}: `, element("b", {}, words.length > 26 ? `${chosen.size} of ${options.length}` : words));
    summary_.parentElement.classList.toggle("active", chosen !== null);
    options.forEach(([id], i) => { boxes[i].checked = chosen === null || chosen.has(id); });
  };
  const every = (on) => {
    const button = element("button", { type: "button" }, on ? "all" : "none");
    button.onclick = () => { set(on ? null : new Set()); show(); refresh(); };
    return button;
  };
  const made = element("details", { class: "menu", "data-filter": label }, summary_, element("div", { class: "choices" },
    element("div", { class: "every" }, every(true), every(false)), ...boxes.map((box, i) => element("label", {}, box, options[i][1]))));
  show();
  made.reset = () => { set(null); show(); };
  return made;
}

function range(label, i) { // of a key with many numbers
  const numbers = KEYS[i].numbers, ends = { low: Math.min(...numbers), high: Math.max(...numbers) };
  const box = (end) => {
    const input = element("input", { type: "number", step: "any", value: ends[end], "aria-label": `${label}, ${end}est` });
    input.onchange = () => { state.keys[i] = { ...(state.keys[i] || ends), [end]: Number(input.value) }; refresh(); };
    return input;
  };
  const low = box("low"), high = box("high"), made = element("span", { class: "menu range", "data-filter": label }, `${label}: `, low, " to ", high);
  made.reset = () => { state.keys[i] = null; low.value = ends.low; high.value = ends.high; };
  return made;
}

function makeFilters() {
  const place = document.getElementById("filters");
  const made = KEYS.map((key, i) => (key.numbers && key.values.length >= RANGE_FROM ? range(key.name, i)
    : menu(key.name, key.values.map((of, v) => [v, of]), () => state.keys[i], (chosen) => { state.keys[i] = chosen; })));
  const statuses = distinct(DATA.jobs.map((job) => job.status));
  if (statuses.length > 1) made.push(menu("status", statuses.map((one) => [one, one]), () => state.statuses, (chosen) => { state.statuses = chosen; }));
  const shifts = distinct(ROWS.s.filter(finite)).sort((a, b) => a - b);
  if (shifts.length > 1 && !places("shift").length) made.push(menu("shift s", shifts.map((s) => [s, text(s)]), () => state.shifts, (chosen) => { state.shifts = chosen; }));
  const reset = element("button", { type: "button", id: "reset" }, "reset");
  reset.onclick = () => { made.forEach((one) => one.reset()); state.hidden.clear(); refresh(); };
  place.append(...made, reset, element("span", { id: "shown", role: "status" }));
  document.addEventListener("click", (event) => document.querySelectorAll("details.menu[open]").forEach((one) => { if (!one.contains(event.target)) one.open = false; }));
}
