// What `renio probe` found, if the run's directory has a probe.
function probed(state) {
  const { probe } = state.run;
  byId("probe-section").hidden = byId("probe-link").hidden = !probe;
  if (!probe) return;
  const tables = Object.entries(probe.tables).map(([title, [heading, ...rows]]) => {
    const cells = (tag, row) => el("tr", {}, ...row.map((text) => el(tag, {}, text)));
    const table = el("table", {}, el("thead", {}, cells("th", heading)), el("tbody", {}, ...rows.map((row) => cells("td", row))));
    return el("div", { className: "panel wide" }, el("h3", {}, title), table);
  });
  const notes = probe.notes.map((note) => el("p", { className: "note" }, note));
  const advice = el("div", { className: "panel wide" }, el("h3", {}, "Advice"), el("pre", {}, probe.advice));
  byId("probe-body").replaceChildren(el("p", {}, probe.label), advice, ...tables, ...notes);
}
