// The sample reader: which step, which samples, in which order.
const AT_A_TIME = 20;
const MARKS = { correct: "✓", incorrect: "✗", unfinished: "…", none: "–" };
const strongest = (sample) => sample.ratio.reduce((a, b) => Math.max(a, b), -Infinity);
const ORDERS = {
  "weight, heaviest first": (a, b) => b.weight - a.weight,
  "weight, lightest first": (a, b) => a.weight - b.weight,
  "strongest log-ratio first": (a, b) => strongest(b) - strongest(a),
  "longest first": (a, b) => b.length - a.length,
  "shortest first": (a, b) => a.length - b.length,
  "verdict": (a, b) => data.verdicts.indexOf(a.verdict) - data.verdicts.indexOf(b.verdict),
  "sample id": (a, b) => a.id - b.id,
};

function card(run, sample, heaviest) {
  const key = verdictKey(sample.verdict);
  const fill = el("div", { className: "fill" });
  fill.style.width = `${heaviest > 0 ? (100 * sample.weight) / heaviest : 0}%`;
  const about = [
    `sample ${sample.id}`, `row ${sample.row}`, `${sample.length} tokens${sample.teacherLogprobs ? `, ${sample.pivotal.size} pivotal` : ""}`,
    sample.stop === "length" ? "cut at max_response_tokens" : "", sample.raw !== null && `raw weight ${number(sample.raw)}`,
    sample.reward !== null && `reward ${number(sample.reward)}, advantage ${number(sample.advantage)}`,
    `version ${sample.version}`, sample.generator && `generator ${sample.generator}`, sample.teacher && `teacher ${sample.teacher}`,
  ].filter(Boolean).join(" · ");
  const track = el("span", { className: "track", ariaHidden: "true" }, fill);
  const node = el("article", { className: "card" },
    el("div", { className: "top" },
      el("span", { className: `badge ${key}` }, `${MARKS[key]} ${verdictName(sample.verdict)}`),
      el("span", { className: "weight" }, `weight ${number(sample.weight)}`, track),
      el("span", { className: "about" }, about)),
    el("p", { className: "problem" }, sample.problem));
  if (sample.text) node.append(el("p", { className: "problem text" }, sample.text));
  node.append(...responseView(run, sample));
  node.dataset.sample = sample.id;
  return node;
}

function reader(state) {
  const controls = byId("reader-controls");
  let run = null, step = null, shown = AT_A_TIME;
  const again = () => { shown = AT_A_TIME; draw(); };
  const order = picker(controls, "sort by", Object.keys(ORDERS), again);
  const verdicts = [verdictKey, verdictName].map((of) => ["any", ...data.verdicts.map(of)]);
  const verdict = picker(controls, "verdict", verdicts[0], again, verdicts[1]);
  const search = el("input", { type: "search", placeholder: "in problem or response", oninput: again });
  controls.append(el("label", { className: "wide" }, "Search ", search));
  byId("more").onclick = () => { shown += AT_A_TIME; draw(); };

  function matching() {
    const entry = run.reader.steps[Number(step.value)];
    if (!entry) return [[], null];
    const all = samplesOf(run, entry), text = search.value.toLowerCase();
    const wanted = all.filter((s) => (verdict.value === "any" || verdictKey(s.verdict) === verdict.value) &&
      (!text || s.problem.toLowerCase().includes(text) || s.written.toLowerCase().includes(text)));
    return [wanted.sort(ORDERS[order.value]), all];
  }

  function draw() {
    if (run !== state.run) {
      run = state.run;
      legend(run);
      step?.parentElement.remove();
      const entries = run.reader.steps;
      step = picker(controls, "step", entries.map((_, i) => i), again, entries.map((entry) => entry.step));
      controls.prepend(step.parentElement);
      if (entries.length) step.value = String(entries.length - 1);
    }
    const [wanted, all] = matching();
    const heaviest = all ? all.reduce((most, s) => Math.max(most, s.weight), 0) : 0;
    byId("cards").replaceChildren(...wanted.slice(0, shown).map((sample) => card(run, sample, heaviest)));
    byId("more").hidden = wanted.length <= shown;
    byId("reader-count").textContent = all
      ? `${Math.min(shown, wanted.length)} of ${wanted.length} samples shown, ${all.length} in the step`
      : "This run has no samples to read.";
  }
  draw();
  return draw;
}
