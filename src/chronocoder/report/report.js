"use strict";
// Draws the figures and, for the crosscoder chosen, its tables and features. All text goes in as text nodes.

const data = JSON.parse(document.getElementById("document").textContent);
const PAGE = 10;
const LEVELS = 9;
const NARROW_PX = 600;
const LEGEND_LINE_PX = 24;
const SEPARATOR = /^<[^<>\s]+>$/;
const SETTINGS = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] };
const byId = (id) => document.getElementById(id);
let shownCards = PAGE;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made[name] = value;
  made.append(...children);
  return made;
}

function fill(select, labels) {
  select.replaceChildren(...labels.map((label, place) => new Option(label, place)));
}

function inWords(name) {
  return name.replaceAll("_", " ");
}

function number(value, digits = 3) {
  if (value === null) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

function percent(value) {
  return value === null ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
}

function table(heads, rows) {
  const cell = (content, place) =>
    element("td", { className: heads[place].numeric ? "number" : "" }, ...[content].flat());
  const head = heads.map(({ text, numeric }) => element("th", { className: numeric ? "number" : "" }, text));
  const body = rows.map((row) => element("tr", {}, ...row.map(cell)));
  return [element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)];
}

function scrolling(label, content) {
  const box = element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: label });
  box.append(element("table", {}, ...content));
  return box;
}

// Figures

function draw(container, figures) {
  const boxes = figures.map(() => element("div"));
  const captioned = ({ title }, place) => element("figure", {}, element("figcaption", {}, title), boxes[place]);
  container.replaceChildren(...figures.map(captioned));
  figures.forEach(({ data: traces, layout }, place) => {
    const entries = traces.filter(({ name, showlegend }) => name && showlegend !== false).length;
    const extra = container.clientWidth < NARROW_PX ? entries * LEGEND_LINE_PX : 0;
    Plotly.newPlot(boxes[place], traces, { ...layout, height: layout.height + extra }, SETTINGS);
  });
  return boxes;
}

function followPoints(boxes) {
  const others = (box) => boxes.filter((other) => other !== box);
  for (const box of boxes) {
    box.on("plotly_hover", ({ points, event }) => {
      if (!event) return; // A hover set by the lines below has no pointer event.
      const { curveNumber, pointNumber } = points[0];
      others(box).forEach((other) => Plotly.Fx.hover(other, [{ curveNumber, pointNumber }]));
    });
    box.on("plotly_unhover", () => others(box).forEach((other) => Plotly.Fx.unhover(other)));
  }
}

function drawSelections() {
  for (const container of document.querySelectorAll("[data-figures]")) {
    const choices = data.figures[container.dataset.figures];
    const labels = Object.keys(choices);
    const select = document.querySelector(`[data-choice="${container.dataset.figures}"]`);
    draw(container, choices[labels[0]]);
    if (!select) continue;
    fill(select, labels);
    select.addEventListener("change", () => draw(container, choices[labels[select.value]]));
  }
}

// Tables of a run

function classTable(run) {
  const heads = [{ text: "Task" }, ...data.classes.map((text) => ({ text, numeric: true }))];
  const part = (value) => element("span", { className: "part" }, ` (${percent(value)})`);
  const entry = ([count, value]) => (count ? [String(count), part(value)] : "–");
  const rows = run.counts.map((counts, task) => [inWords(run.tasks[task]), ...counts.map(entry)]);
  return table(heads, rows);
}

function featureLink(run, feature, task) {
  const link = element("button", { type: "button", className: "link" }, String(feature));
  link.addEventListener("click", () => {
    byId("task").value = run.tasks.indexOf(task);
    byId("class").value = "";
    byId("feature").value = feature;
    showFeatures();
    byId("top").scrollIntoView();
  });
  return link;
}

function effectBar(values, largest) {
  const place = (value) => 50 + (50 * value) / largest;
  const span = (name, from, to) => {
    const part = element("i", { className: name });
    part.style.left = `${Math.min(place(from), place(to))}%`;
    part.style.width = `${Math.abs(place(to) - place(from))}%`;
    return part;
  };
  const sign = values.effect < 0 ? "value harms" : "value";
  return element("span", { className: "bar" }, span(sign, 0, values.effect), span("whisker", values.low, values.high));
}

function labelledBar(values, largest) {
  const bar = effectBar(values, largest);
  bar.title = `${number(values.low)} to ${number(values.high)}`;
  return [bar, ` ${number(values.effect)}`];
}

function effectAt(run, task, checkpoint, place) {
  const [effect, low, high] = ["effect", "low", "high"].map((name) => run[name][task][checkpoint][place]);
  return { effect, low, high };
}

function contrastRows(run, features, checkpoint, contrast) {
  const tasks = [contrast.surface, contrast.conflicting].map((task) => run.tasks.indexOf(task));
  const values = features.map((feature) =>
    tasks.map((task) => effectAt(run, task, checkpoint, run.features.indexOf(feature))),
  );
  const largest = Math.max(...values.flat().flatMap(({ low, high }) => [-low, high]), 1e-9);
  return features.map((feature, row) => [
    featureLink(run, feature, contrast.conflicting),
    ...values[row].map((value) => labelledBar(value, largest)),
    (run.words[feature] ?? []).join(", ") || "no examples stored",
  ]);
}

function contrastTable(run, title, [features, total], checkpoint, contrast, note = () => "") {
  const box = element("div", {}, element("h3", {}, title));
  if (!features.length) {
    box.append(element("p", { className: "note" }, "None."));
    return box;
  }
  const heads = [
    { text: "Feature" },
    { text: `IE: ${inWords(contrast.surface)}` },
    { text: `IE: ${inWords(contrast.conflicting)}` },
    { text: "Most active on" },
    { text: "" },
  ];
  const rows = contrastRows(run, features, checkpoint, contrast).map((row, place) => [...row, note(features[place])]);
  box.append(scrolling(title, table(heads, rows)));
  if (total > features.length) box.append(element("p", { className: "note" }, `And ${total - features.length} weaker.`));
  return box;
}

function showContrast() {
  const run = data.runs[byId("run").value];
  const place = byId("contrast").value;
  const contrast = data.contrasts[place];
  const found = run.contrasts[place];
  followPoints(draw(byId("contrast-figures"), data.contrastFigures[byId("run").value][place]));
  const helps = inWords(contrast.surface);
  const other = inWords(contrast.conflicting);
  const last = run.checkpoints.length - 1;
  const surface = found.surface.map((features, checkpoint) => {
    const title = `At ${run.checkpoints[checkpoint]}: help ${helps}, harm ${other}`;
    return contrastTable(run, title, features, checkpoint, contrast);
  });
  const note = (feature) => (found.changedSides.includes(feature) ? "harmed it before" : "");
  const title = `Took over: emerged, and help ${other} at ${run.checkpoints[last]}`;
  const later = contrastTable(run, title, found.tookOver, last, contrast, note);
  byId("contrast-tables").replaceChildren(...surface, later);
}

// Features of a run

function exampleLine([places, levels, [peak]]) {
  const tokens = places.map((place, position) => {
    const text = position ? data.vocabulary[place] : data.vocabulary[place].trimStart();
    if (SEPARATOR.test(text)) return [element("span", { className: "separator", title: text }, " ¶ ")];
    if (!levels[position]) return [text];
    const space = text.match(/^\s*/)[0];
    const mark = element("mark", { className: position === peak ? "peak" : "" }, text.slice(space.length));
    mark.style.background = `rgb(0 114 178 / ${(0.55 * levels[position]) / LEVELS})`;
    return [space, mark];
  });
  return element("li", {}, ...tokens.flat());
}

function effectTable(run, task, place, largest) {
  const heads = [{ text: "Checkpoint" }, { text: "IE (logits)" }, { text: "RelIE", numeric: true }, { text: "RelDec", numeric: true }];
  const rows = run.checkpoints.map((checkpoint, at) => [
    checkpoint,
    labelledBar(effectAt(run, task, at, place), largest),
    number(run.share[task][at][place], 2),
    number(run.norm[at][place], 2),
  ]);
  return scrolling("Effect at each checkpoint", table(heads, rows));
}

function card(run, task, place, largest) {
  const feature = run.features[place];
  const examples = run.examples[feature];
  const onset = run.onset[task][place];
  const facts = [
    data.classes[run.class[task][place]],
    ...(onset ? [`onset ${onset}`] : []),
    `active in ${percent(run.frequency[task][place])} of pairs`,
    ...(examples ? [`on ${percent(examples.frequency)} of tokens`] : []),
  ];
  const head = element("h3", {}, `Feature ${feature}`, element("small", {}, facts.join(" · ")));
  const lines = examples
    ? element("ol", { className: "examples" }, ...examples.rows.map(exampleLine))
    : element("p", { className: "note" }, "No examples stored.");
  const columns = element("div", { className: "columns" }, effectTable(run, task, place, largest), lines);
  return element("article", { className: "card" }, head, columns);
}

function chosenFeatures(run, task) {
  const wanted = byId("feature").value.split(/[\s,]+/).filter(Boolean);
  const kind = byId("class").value;
  const size = (place) => Math.max(...run.effect[task].map((row) => Math.abs(row[place])));
  return run.features
    .map((feature, place) => ({ feature, place, size: size(place) }))
    .filter(({ feature, size: of }) => (wanted.length ? wanted.includes(String(feature)) : of > 0))
    .filter(({ place }) => kind === "" || run.class[task][place] === Number(kind))
    .sort((a, b) => b.size - a.size);
}

function showFeatures() {
  const run = data.runs[byId("run").value];
  const task = Number(byId("task").value);
  const chosen = chosenFeatures(run, task);
  const shown = chosen.slice(0, shownCards);
  const ends = shown.flatMap(({ place }) => run.checkpoints.flatMap((_, at) => [-run.low[task][at][place], run.high[task][at][place]]));
  const largest = Math.max(...ends, 1e-9);
  byId("cards").replaceChildren(...shown.map(({ place }) => card(run, task, place, largest)));
  byId("found").textContent = chosen.length
    ? `${shown.length} of ${chosen.length} features for ${inWords(run.tasks[task])}, ${run.label}.`
    : "No feature that the report holds fits; the stores have all features.";
  byId("more").hidden = shown.length === chosen.length;
}

function showRun() {
  const place = byId("run").value;
  const run = data.runs[place];
  const task = byId("task").value;
  draw(byId("share-figures"), data.shares[place]);
  byId("classes").replaceChildren(...classTable(run));
  fill(byId("task"), run.tasks.map(inWords));
  byId("task").value = task || 0;
  shownCards = PAGE;
  if (data.contrasts.length) showContrast();
  showFeatures();
}

function start() {
  drawSelections();
  fill(byId("run"), data.runs.map((run) => run.label));
  byId("run").value = data.first;
  fill(byId("class"), data.classes);
  byId("class").prepend(new Option("any", "", true, true));
  byId("run").addEventListener("change", showRun);
  for (const id of ["task", "class", "feature"]) {
    byId(id).addEventListener("input", () => {
      shownCards = PAGE;
      showFeatures();
    });
  }
  byId("more").addEventListener("click", () => {
    shownCards += PAGE;
    showFeatures();
  });
  if (data.contrasts.length) {
    fill(byId("contrast"), data.contrasts.map(({ surface, conflicting }) => `${inWords(surface)} / ${inWords(conflicting)}`));
    byId("contrast").addEventListener("change", showContrast);
  }
  showRun();
}

start();
