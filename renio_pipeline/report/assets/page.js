// Puts the page together.
function summary(state) {
  const notes = state.run.notes.map((note) => el("p", { className: "note" }, note));
  const list = el("dl", { className: "facts" });
  for (const [name, value] of state.run.facts) list.append(el("dt", {}, name), el("dd", {}, value));
  byId("summary").replaceChildren(el("div", { className: "panel" }, el("h3", {}, state.run.label), list), ...notes);
}

function themes(redraw) {
  const select = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const set = () => { document.documentElement.dataset.theme = select.value || (system.matches ? "dark" : "light"); };
  try {
    select.value = localStorage.getItem("renio-report-theme") ?? "";
  } catch { /* a browser may refuse storage to files */ }
  set();
  select.onchange = () => {
    set();
    try { localStorage.setItem("renio-report-theme", select.value); } catch { /* as above */ }
    redraw();
  };
  system.addEventListener("change", () => { set(); redraw(); });
}

function main() {
  const state = { run: data.runs[0] };
  let readAgain = () => {};
  themes(() => drawn.forEach((draw) => draw()));
  const runs = byId("run");
  data.runs.forEach((run, i) => runs.append(el("option", { value: String(i) }, run.label)));
  byId("run-label").hidden = data.runs.length === 1;
  runs.onchange = () => {
    state.run = data.runs[Number(runs.value)];
    summary(state);
    probed(state);
    drawn.forEach((draw) => draw());
    readAgain();
  };
  const every = () => data.runs.map((run, index) => ({ run, index }));
  const chosen = () => [{ run: state.run, index: data.runs.indexOf(state.run) }];
  summary(state);
  probed(state);
  data.curves.forEach((curve) => curvePanel(byId("curve-grid"), curve, every));
  timeline(state);
  byId("time-grid").classList.add("two");
  spentPanel(byId("time-grid"), state);
  curvePanel(byId("time-grid"), data.idle, chosen);
  weightChart(state);
  curvePanel(byId("weights-grid"), data.auroc, every);
  readAgain = reader(state);
}

main();
