// Plots: how they look, and the curves over steps.
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const runColour = (i) => colour(`run-${i % 6}`);
const drawn = []; // redrawn when the theme or the run changes

function plot(id, make) {
  const draw = () => {
    const { traces, layout } = make();
    const node = byId(id);
    const coarse = matchMedia("(pointer: coarse)").matches; // where dragging scrolls the page
    Plotly.react(node, traces, { ...base(), ...layout, dragmode: coarse ? false : "zoom" }, {
      responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    });
  };
  drawn.push(draw);
  draw();
}

function base() {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 52, r: 12, t: 8, b: 40 },
    font: { color: colour("text"), family: "system-ui, sans-serif", size: 12 }, hovermode: "x unified",
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("text") } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } }, showlegend: false,
    modebar: { color: colour("quiet"), activecolor: colour("link"), bgcolor: "rgba(0,0,0,0)" },
  };
}

const axis = (title, more = {}) => ({
  title: { text: title, standoff: 6 }, gridcolor: colour("grid"), zerolinecolor: colour("line"), linecolor: colour("line"),
  automargin: true, ...more,
});

// One line a run and metric; evaluations, where there are any, as points with their interval.
function curveTraces(curve, runs) {
  const traces = [];
  runs.forEach(({ run, index }) => {
    curve.metrics.forEach((metric, m) => {
      const several = curve.metrics.length > 1;
      const name = curve.names[m] && (several || data.runs.length === 1) ? curve.names[m] : run.label;
      const paint = several ? colour(`stage-${[0, 3, 4][m]}`) : runColour(index);
      traces.push({
        x: run.steps, y: run.metrics[metric], name: plainText(name), mode: run.steps.length > 1 ? "lines" : "markers",
        line: { color: paint, width: 2, dash: DASHES[(several ? m : index) % 6] }, marker: { color: paint, size: 8 },
        hovertemplate: curve.percent ? "%{y:.1%}" : "%{y:.4g}",
      });
    });
    if (curve.evaluations) traces.push(evaluationTrace(curve, run, index));
  });
  return traces;
}

function evaluationTrace(curve, run, index) {
  const found = run.evaluations.filter((e) => curve.evaluations in e);
  const bounds = curve.evaluations === "accuracy" && found.every((e) => "low" in e && "high" in e);
  const prefix = data.runs.length > 1 ? `${run.label}, ` : "";
  return {
    x: found.map((e) => e.step), y: found.map((e) => e[curve.evaluations]), mode: "markers",
    name: plainText(prefix + data.evaluated[curve.evaluations]), showlegend: data.runs.length === 1,
    marker: { color: runColour(index), size: 8, symbol: "diamond", line: { color: colour("text"), width: 1 } },
    hovertemplate: curve.percent ? "%{y:.1%}" : "%{y:.4g}",
    error_y: bounds ? {
      type: "data", symmetric: false, color: runColour(index), thickness: 1.5,
      array: found.map((e) => e.high - e.accuracy), arrayminus: found.map((e) => e.accuracy - e.low),
    } : { visible: false },
  };
}

function curvePanel(parent, curve, runs) {
  const id = `plot-${curve.id}`;
  const values = el("p", { className: "values" });
  parent.append(el("div", { className: "panel" }, el("h3", {}, curve.title), el("div", { className: "plot", id }), values));
  plot(id, () => {
    const shown = runs();
    const lasts = shown.flatMap(({ run }) => curve.metrics.map((metric, m) => lastValue(curve, run, metric, m)));
    if (curve.evaluations && data.runs.length > 1) lasts.push(`diamonds: ${data.evaluated[curve.evaluations]}`);
    values.textContent = lasts.join("; ");
    byId(id).setAttribute("role", "img");
    byId(id).setAttribute("aria-label", `${curve.title} over steps. ${values.textContent}`);
    const traces = curveTraces(curve, shown);
    const many = traces.length > 1;
    return {
      traces, layout: {
        showlegend: many, margin: { l: 52, r: 12, t: many ? 30 : 8, b: 40 }, xaxis: axis("step", { hoverformat: "d" }),
        yaxis: axis(curve.axis, { tickformat: curve.percent ? ".0%" : "", rangemode: "tozero" }),
      },
    };
  });
}

function lastValue(curve, run, metric, m) {
  const column = run.metrics[metric];
  const at = column.findLastIndex((value) => value !== null);
  const several = curve.metrics.length > 1;
  const name = [data.runs.length > 1 ? run.label : "", several ? curve.names[m] : ""].filter(Boolean).join(", ");
  const written = curve.percent ? percent : number;
  const value = at < 0 ? "not measured" : `${written(column[at])} in step ${run.steps[at]}`;
  return name ? `${name}: ${value}` : value;
}
