// Weight against verdict.
function weightChart(state) {
  const controls = byId("weights-controls");
  const redraw = () => drawn.forEach((draw) => draw.id === "weights" && draw());
  const kind = picker(controls, "of", ["weight", "raw"], redraw, ["weight", "raw weight, before normalising"]);
  let run = null, step = null;
  plot("plot-weights", () => {
    if (run !== state.run) {
      run = state.run;
      const { weight, raw, verdict } = run.weights;
      run.weights.decoded ??= { weight: floats(weight), raw: floats(raw), verdict: bytes(verdict) };
      step?.parentElement.remove();
      const steps = run.weights.steps;
      step = picker(controls, "step", ["all", ...steps], redraw, [`all ${steps.length}`, ...steps]);
    }
    const groups = weightGroups(run, kind.value, step.value);
    byId("weights-values").textContent = weightValues(run, groups, step.value);
    const traces = groups.map(({ verdict, values }) => ({
      type: "box", x: values, name: verdictName(verdict), orientation: "h", hoverinfo: "x", boxmean: true,
      boxpoints: values.length > 2000 ? "suspectedoutliers" : "all", jitter: 0.6, pointpos: 0, fillcolor: "rgba(0,0,0,0)",
      marker: { color: colour(verdictKey(verdict)), size: 4, opacity: 0.55 }, line: { color: colour(verdictKey(verdict)) },
    }));
    const raw = kind.value === "raw";
    const xaxis = raw ? axis("raw weight", { type: "log", dtick: 1 }) : axis("weight", { rangemode: "tozero" });
    const yaxis = { ...axis(""), autorange: "reversed" };
    return { traces, layout: { hovermode: "closest", margin: { l: 84, r: 12, t: 8, b: 40 }, xaxis, yaxis } };
  });
  drawn.at(-1).id = "weights";
}

function weightGroups(run, kind, step) {
  const { steps, counts, decoded } = run.weights;
  const at = step === "all" ? -1 : steps.indexOf(Number(step));
  const start = at < 0 ? 0 : counts.slice(0, at).reduce((sum, n) => sum + n, 0);
  const end = at < 0 ? decoded[kind].length : start + counts[at];
  const values = Array.from(decoded[kind].subarray(start, end));
  return data.verdicts
    .map((verdict, code) => ({ verdict, values: values.filter((_, i) => decoded.verdict[start + i] === code) }))
    .filter((group) => group.values.length);
}

function weightValues(run, groups, step) {
  const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
  const parts = groups.map((g) => `${g.values.length} ${verdictName(g.verdict)}, mean ${number(mean(g.values), 3)}`);
  if (step !== "all") {
    const at = run.steps.indexOf(Number(step));
    const metric = (name) => number(run.metrics[`weights/${name}`][at], 3);
    if (at >= 0) parts.push(`AUROC ${metric("auroc")}`, `effective sample size ${metric("effective_sample_size")}`);
  } else {
    const all = run.facts.find(([name]) => name.startsWith("AUROC"));
    if (all) parts.push(`AUROC ${all[1]}`);
  }
  return parts.length ? parts.join("; ") : "No samples were kept.";
}
