// Where the time went.
const stageColour = (stage) => colour(`stage-${data.spent.indexOf(stage)}`);

function timeline(state) {
  const controls = byId("timeline-controls");
  const slider = el("input", { type: "range", min: 0, step: 1, "aria-label": "Step of the timeline", id: "timeline-step" });
  const shown = el("output", {});
  const move = (by) => { slider.value = Number(slider.value) + by; slider.oninput(); };
  const back = el("button", { type: "button", "aria-label": "Previous step", onclick: () => move(-1) }, "‹");
  const on = el("button", { type: "button", "aria-label": "Next step", onclick: () => move(1) }, "›");
  controls.append(el("label", { className: "wide" }, "Step ", slider, shown), back, on);
  let run = null;
  plot("plot-timeline", () => {
    if (run !== state.run) {
      run = state.run;
      slider.max = run.steps.length - 1;
      slider.value = run.steps.length - 1;
    }
    const at = Number(slider.value), found = run.timeline[at], total = run.metrics["time/step"][at];
    shown.textContent = String(run.steps[at]);
    slider.setAttribute("aria-valuetext", `step ${run.steps[at]}`);
    back.disabled = at === 0;
    on.disabled = at === run.steps.length - 1;
    const stages = data.stages.filter((stage) => found[stage]);
    byId("timeline-values").textContent = stages
      .map((stage) => `${stage} ${found[stage].map(([a, b]) => `${number(a, 3)} to ${number(b, 3)} s`).join(" and ")}`)
      .concat(`step ${number(total, 3)} s`).join("; ");
    const traces = stages.map((stage) => ({
      type: "bar", orientation: "h", name: stage, y: found[stage].map(() => stage),
      base: found[stage].map(([start]) => start), x: found[stage].map(([start, end]) => end - start),
      marker: { color: stageColour(stage) }, hovertemplate: "%{y}: %{x:.3g} s, from %{base:.3g} s<extra></extra>",
    }));
    return {
      traces, layout: {
        hovermode: "closest", barmode: "overlay", bargap: 0.35, margin: { l: 70, r: 12, t: 8, b: 40 },
        xaxis: axis("seconds since the step began", { zerolinewidth: 2 }),
        yaxis: { ...axis(""), autorange: "reversed", categoryorder: "array", categoryarray: stages },
        shapes: [{
          type: "line", x0: total, x1: total, yref: "paper", y0: 0, y1: 1,
          line: { color: colour("quiet"), dash: "dot", width: 1 },
        }],
      },
    };
  });
  slider.oninput = () => drawn.forEach((draw) => draw.id === "timeline" && draw());
  drawn.at(-1).id = "timeline";
}

function spentPanel(parent, state) {
  const values = el("p", { className: "values" });
  const drawing = el("div", { className: "plot", id: "plot-spent" });
  parent.append(el("div", { className: "panel" }, el("h3", {}, "What each step waited for"), drawing, values));
  plot("plot-spent", () => {
    const { steps, spent } = state.run;
    const sums = Object.fromEntries(data.spent.map((name) => [name, spent[name].reduce((sum, x) => sum + x, 0)]));
    const all = Object.values(sums).reduce((sum, x) => sum + x, 0);
    const names = data.spent.filter((name) => sums[name] >= 0.001 * all);
    values.textContent = `Of ${number(all, 3)} s: ${names.map((name) => `${name} ${percent(sums[name] / all)}`).join(", ")}. ` +
      "generate: until the last response; score: from then until the last score; other: evaluation, checkpoints, pauses.";
    const traces = names.map((name) => ({
      type: "bar", x: steps, y: spent[name], name, marker: { color: stageColour(name), line: { width: 0 } },
      hovertemplate: "%{y:.3g} s",
    }));
    return {
      traces, layout: {
        barmode: "stack", bargap: steps.length > 60 ? 0 : 0.15, showlegend: true, margin: { l: 52, r: 12, t: 48, b: 40 },
        xaxis: axis("step", { hoverformat: "d" }), yaxis: axis("seconds"),
      },
    };
  });
}
