"use strict";
// The page's data, and small helpers. Text from runs becomes text nodes only, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const floats = (text) => new Float32Array(bytes(text).buffer);
const integers = (text) => new Uint32Array(bytes(text).buffer);

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);
const plainText = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;"); // plotly reads tags in its labels
const verdictName = (verdict) => verdict ?? "no verdict";
const verdictKey = (verdict) => verdict ?? "none";

function picker(parent, name, values, onChange, labels = values) {
  const select = el("select", { name, onchange: () => onChange(select.value) });
  values.forEach((value, i) => select.append(el("option", { value: String(value) }, String(labels[i]))));
  parent.append(el("label", {}, `${name[0].toUpperCase()}${name.slice(1)} `, select));
  return select;
}

// The samples of one step of the reader, each with its tokens' numbers.
function samplesOf(run, entry) {
  if (entry.decoded) return entry.decoded;
  const factors = entry.factor && floats(entry.factor); // of the tokens in the loss; null: all are 1
  const tokens = integers(entry.tokens), student = entry.student && floats(entry.student), teacher = entry.teacher_logprob && floats(entry.teacher_logprob); // null: nobody computed them
  let start = 0;
  entry.decoded = entry.sample.map((id, i) => {
    const end = start + entry.length[i];
    const sample = {
      id, row: entry.row[i], problem: run.reader.problems[entry.problem[i]], verdict: data.verdicts[entry.verdict[i]],
      weight: entry.weight[i], raw: entry.raw[i], stop: entry.stop[i], version: entry.version[i], generator: entry.generator[i],
      teacher: entry.teacher[i], length: entry.length[i], pivotal: new Set(entry.pivotal[i]),
      pieces: tokens.subarray(start, end),
      factors: factors && factors.subarray(start, end),
      reward: entry.reward && entry.reward[i], advantage: entry.advantage && entry.advantage[i],
      student: student && student.subarray(start, end), teacherLogprobs: teacher && teacher.subarray(start, end), text: entry.text && entry.text[i],
    };
    start = end;
    sample.ratio = Array.from(sample.pieces, (_, t) => (sample.student && sample.teacherLogprobs ? sample.student[t] - sample.teacherLogprobs[t] : 0));
    const { texts, special } = run.reader.pieces;
    sample.written = sample.text ?? Array.from(sample.pieces, (p) => (special[p] ? "" : texts[p])).join("");
    return sample;
  });
  return entry.decoded;
}
