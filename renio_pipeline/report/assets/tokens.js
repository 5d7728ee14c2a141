// A response, token by token: shaded by log-ratio, pivotal ones underlined, one of them current.
const STRONGEST = 62; // % of the scale's colour: what is written must stay readable
const DIMMEST = 0.35; // opacity of a token whose factor is 0: it must stay readable too

function shade(ratio, clip) {
  const share = Math.min(Math.abs(ratio), clip) / clip;
  if (!(share > 0.01)) return "";
  return `color-mix(in srgb, var(--${ratio > 0 ? "above" : "below"}) ${Math.round(STRONGEST * share)}%, transparent)`;
}

// Tokens that end in the middle of a character belong to the one that ends it: one span, several positions.
function spansOf(run, sample) {
  const spans = [];
  let waiting = [];
  sample.pieces.forEach((piece, t) => {
    waiting.push(t);
    if (run.reader.pieces.texts[piece] === "" && t + 1 < sample.pieces.length) return;
    spans.push(waiting);
    waiting = [];
  });
  return spans;
}

// How much of a token's writing is left: by its factor, against the largest of the response, or 1 if all are smaller.
function dimming(sample, positions) {
  if (!sample.factors) return 1;
  const largest = sample.factors.reduce((a, b) => Math.max(a, b), 1);
  const share = Math.max(...positions.map((t) => sample.factors[t]), 0) / largest;
  return DIMMEST + (1 - DIMMEST) * share;
}

function tokenSpan(run, sample, positions) {
  const { texts, special } = run.reader.pieces;
  const last = sample.pieces[positions.at(-1)];
  const node = el("span", { className: "token" });
  const strongest = positions.map((t) => sample.ratio[t]).reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
  node.style.backgroundColor = shade(strongest, scaleEnd(run));
  if (positions.some((t) => sample.pivotal.has(t))) node.classList.add("pivotal");
  if (special[last]) node.classList.add("special");
  const opacity = dimming(sample, positions);
  if (opacity < 1) node.style.opacity = opacity.toFixed(2);
  for (const part of texts[last].split(/(\n|\t)/)) {
    if (part === "\n") node.append(el("span", { className: "blank", ariaHidden: "true" }, "⏎"), "\n");
    else if (part) node.append(part);
  }
  return node;
}

function detailOf(run, sample, positions) {
  const { ids, texts } = run.reader.pieces;
  const piece = texts[sample.pieces[positions.at(-1)]];
  const parts = [el("b", {}, JSON.stringify(piece))];
  for (const t of positions) {
    const ratio = sample.ratio[t], sign = ratio > 0 ? "+" : "";
    parts.push(
      ` token ${t + 1} of ${sample.length}, id ${ids[sample.pieces[t]]}` +
      (sample.student ? `: log p student ${number(sample.student[t])}` : "") +
      (sample.teacherLogprobs ? `, teacher ${number(sample.teacherLogprobs[t])}, log-ratio ${sign}${number(ratio)}` : "") +
      `${sample.pivotal.has(t) ? ", pivotal" : ""}` +
      `${sample.factors ? `, factor ${number(sample.factors[t])}` : ""}.`,
    );
  }
  return parts;
}

function responseView(run, sample) {
  const spans = spansOf(run, sample);
  const detail = el("div", { className: "detail" }, sample.length ? "Point at a token." : "The response is empty.");
  detail.setAttribute("aria-live", "polite");
  const ariaLabel = `Response of sample ${sample.id}; arrow keys walk through its tokens`;
  const view = el("div", { className: "response", tabIndex: 0, role: "group", ariaLabel });
  const nodes = spans.map((positions) => tokenSpan(run, sample, positions));
  view.append(...nodes);
  let current = -1;
  const show = (i) => {
    if (i < 0 || i >= nodes.length || i === current) return;
    nodes[current]?.classList.remove("current");
    current = i;
    nodes[i].classList.add("current");
    detail.replaceChildren(...detailOf(run, sample, spans[i]));
  };
  const at = (event) => nodes.indexOf(event.target.closest?.(".token"));
  view.addEventListener("pointerover", (event) => show(at(event)));
  view.addEventListener("click", (event) => show(at(event)));
  view.addEventListener("focus", () => current < 0 && view.matches(":focus-visible") && show(0));
  view.addEventListener("keydown", (event) => {
    const isPivotal = (i) => nodes[i].classList.contains("pivotal");
    const indices = nodes.map((_, i) => i);
    const target = {
      ArrowRight: () => current + 1, ArrowLeft: () => current - 1, Home: () => 0, End: () => nodes.length - 1,
      ArrowDown: () => indices.find((i) => i > current && isPivotal(i)),
      ArrowUp: () => indices.findLast((i) => i < current && isPivotal(i)),
    }[event.key]?.();
    if (target === undefined) return;
    event.preventDefault();
    show(target);
    nodes[current]?.scrollIntoView({ block: "nearest" });
  });
  return [view, detail];
}

// Where the scale ends: a clip at or below 0 gives no scale.
const scaleEnd = (run) => (run.clip > 0 ? run.clip : 1);

function legend(run) {
  const { threshold } = run, clip = scaleEnd(run);
  const stops = [-1, -0.5, 0, 0.5, 1].map((share) => `${shade(share * clip, clip) || "transparent"} ${50 + 50 * share}%`);
  const scale = el("div", { className: "scale" });
  scale.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const tick = (value, text, kind = "") => {
    const node = el("span", { className: kind }, text);
    node.style.left = `${50 + (50 * value) / clip}%`;
    return node;
  };
  const mark = el("i", { title: "threshold" });
  mark.style.left = `${50 + (50 * threshold) / clip}%`;
  scale.append(mark);
  const sample = el("span", { className: "token pivotal" }, "pivotal");
  byId("legend").replaceChildren(
    scale,
    el("div", { className: "ticks" },
      tick(-clip, `−${clip}: teacher surer`, "start"), tick(0, "0"), tick(clip, `+${clip}: student surer`, "end")),
    el("p", {}, "Underlined and bold: ", sample,
      `, log-ratio at or above the threshold, ${threshold} (the line in the scale). `,
      `Weights clip log-ratios above ${run.clip}.`,
      run.reader.steps.some((entry) => entry.factor) ? " Dimmed: tokens that a factor lets count less in the loss." : ""),
  );
}
