"use strict";
// Draws the figures and, for the crosscoder chosen, its tables and features. All text goes in as text nodes.

const data = JSON.parse(document.getElementById("document").textContent);
const PAGE = 10;
const LEVELS = 9;
const NARROW_PX = 600;
const LEGEND_LINE_PX = 24;
const HELPS = "0 114 178";
const HARMS = "213 94 0";
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

function effectBar({ effect, low, high, band, exact }, largest) {
  const place = (value) => 50 + (50 * value) / largest;
  const span = (name, from, to) => {
    const part = element("i", { className: name });
    part.style.left = `${Math.min(place(from), place(to))}%`;
    part.style.width = `${Math.abs(place(to) - place(from))}%`;
    return part;
  };
  const value = span(effect < 0 ? "value harms" : "value", 0, effect);
  const parts = [span("band", -band, band), value, span("whisker", low, high)];
  if (exact !== null) parts.push(span("exact", exact, exact));
  return element("span", { className: "bar" }, ...parts);
}

function labelledBar(values, largest) {
  const { effect, low, high, band, exact, measurable } = values;
  const bar = effectBar(values, largest);
  const facts = [`${number(low)} to ${number(high)}`, `null band ±${number(band)}`];
  bar.title = [...facts, ...(exact === null ? [] : [`exact ${number(exact)}`])].join("; ");
  return [bar, measurable ? number(effect) : `(${number(effect)})`];
}

function effectAt(run, task, checkpoint, place) {
  const names = ["effect", "low", "high", "band", "measurable"];
  const values = Object.fromEntries(names.map((name) => [name, run[name][task][checkpoint][place]]));
  const { features, exact } = run.ablations[task];
  return { ...values, exact: exact[checkpoint][features.indexOf(run.features[place])] ?? null };
}

function reach(values) {
  return Math.max(...values.flatMap(({ low, high, band, exact }) => [-low, high, band, Math.abs(exact)]), 1e-9);
}

function contrastRows(run, features, checkpoint, contrast) {
  const tasks = [contrast.surface, contrast.conflicting].map((task) => run.tasks.indexOf(task));
  const values = features.map((feature) =>
    tasks.map((task) => effectAt(run, task, checkpoint, run.features.indexOf(feature))),
  );
  const largest = reach(values.flat());
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
  const title = `Took over: emerged or reversed, and help ${other} at ${run.checkpoints[last]}`;
  const later = contrastTable(run, title, found.tookOver, last, contrast, note);
  byId("contrast-tables").replaceChildren(...surface, later);
}

function showTrust() {
  const run = data.runs[byId("run").value];
  const { sentences, rows } = data.trust[byId("run").value];
  byId("trust-sentences").replaceChildren(...sentences.map((text) => element("li", {}, text)));
  const heads = [{ text: "" }, ...run.checkpoints.map((text) => ({ text }))];
  const cell = ([value, note]) => [value, ...(note ? [element("span", { className: "part" }, ` (${note})`)] : [])];
  const lines = rows.map(([label, cells]) => [label, ...cells.map(cell)]);
  byId("trust-table").replaceChildren(...table(heads, lines));
}

function showCurves() {
  draw(byId("curve-figures"), data.trust[byId("run").value].curves[byId("curve-task").value]);
}

function showCourses() {
  const { figures, counts } = data.courses[byId("run").value];
  draw(byId("course-figures"), figures);
  const heads = ["Cluster", "Features", ...data.decided].map((text) => ({ text, numeric: true }));
  const rows = counts.map((of, cluster) => [cluster + 1, ...of].map(String));
  const text = "None here: courses need three checkpoints, and features of decided class.";
  const none = element("p", { className: "note" }, text);
  byId("course-counts").replaceChildren(rows.length ? scrolling("Classes by cluster", table(heads, rows)) : none);
}

// Features of a run

function tokenText(place, position) {
  const text = position ? data.vocabulary[place] : data.vocabulary[place].trimStart();
  if (SEPARATOR.test(text)) return [" ", element("span", { className: "separator", title: text }, "¶"), " "];
  const space = text.match(/^\s*/)[0];
  return [space, text.slice(space.length), ""];
}

function tinted(content, colour, strength, attributes) {
  if (!strength) return content;
  const mark = element("mark", attributes, content);
  mark.style.background = `rgb(${colour} / ${0.55 * strength})`;
  return mark;
}

function exampleLine([places, levels, [peak]]) {
  const tokens = places.map((place, position) => {
    const [before, text, after] = tokenText(place, position);
    const className = position === peak ? "peak" : "";
    return [before, tinted(text, HELPS, levels[position] / LEVELS, { className }), after];
  });
  return element("li", {}, ...tokens.flat());
}

function actsLine([places, right, wrong], effects, largest) {
  const tokens = effects.map((effect, position) => {
    const [before, text, after] = tokenText(places[position], position);
    const title = `${number(effect)} logits`;
    return [before, tinted(text, effect < 0 ? HARMS : HELPS, Math.abs(effect) / largest, { title }), after];
  });
  const answers = ["→ ", element("strong", {}, right.trim()), " / ", element("s", {}, wrong.trim())];
  return element("li", {}, ...tokens.flat(), " ", element("span", { className: "answers" }, ...answers));
}

function whereItActs(run, task, feature) {
  const { features, strongest, outcomes, clean, actsBy, acts, prefixes } = run.ablations[task];
  const place = features.indexOf(feature);
  if (place < 0) return [];
  const at = strongest[place];
  const [accuracy, difference, logProbability] = outcomes.map((values) => values[at][place]);
  const [cleanAccuracy, cleanDifference] = clean.map((values) => values[at]);
  const change = (from, to) => `${number(from, 2)} → ${number(to, 2)}`;
  const text =
    `Ablated exactly at ${run.checkpoints[at]}: accuracy ${change(cleanAccuracy, accuracy)}, logit difference` +
    ` ${change(cleanDifference, difference)}; log-probability of the right answer changed by` +
    ` ${number(logProbability)}.`;
  const block = [element("p", { className: "note" }, text)];
  const lines = acts[feature] ?? [];
  if (!lines.length) return block;
  const largest = Math.max(...lines.flatMap(([, effects]) => effects.map(Math.abs)), 1e-9);
  const list = lines.map(([example, effects]) => actsLine(prefixes[example], effects, largest));
  const title = `${actsBy[0].toUpperCase()}${actsBy.slice(1)}, at ${run.checkpoints[at]}:`;
  return [...block, element("p", { className: "note" }, title), element("ol", { className: "examples" }, ...list)];
}

function effectTable(run, task, place, largest) {
  const heads = ["Checkpoint", "IE (logits)", "Exact", "RelIE", "RelDec"].map((text, at) => ({ text, numeric: at > 1 }));
  const rows = run.checkpoints.map((checkpoint, at) => {
    const values = effectAt(run, task, at, place);
    return [
      checkpoint,
      labelledBar(values, largest),
      number(values.exact),
      number(run.share[task][at][place], 2),
      number(run.norm[at][place], 2),
    ];
  });
  return scrolling("Effect at each checkpoint", table(heads, rows));
}

function courseFacts(run, task, place) {
  const name = data.classes[run.class[task][place]];
  const resamples = `${percent(run.support[task][place])} of resamples`;
  const said = {
    "no effect": "no measurable effect",
    uncertain: `uncertain (commonest course in ${resamples})`,
  };
  const facts = [said[name] ?? `${name} (${resamples})`];
  if (run.reverses[task][place]) facts.push("its effect reverses");
  if (run.checkpoints.length < 3) return facts;
  for (const moment of ["onset", "peak"]) {
    if (run[moment][task][place]) facts.push(`${moment} ${run[moment][task][place]}`);
  }
  return run.kept[task][place] ? [...facts, "kept to the end"] : facts;
}

function card(run, task, place, largest) {
  const feature = run.features[place];
  const examples = run.examples[feature];
  const facts = [
    ...courseFacts(run, task, place),
    `active in ${percent(run.frequency[task][place])} of pairs`,
    ...(examples ? [`on ${percent(examples.frequency)} of tokens`] : []),
  ];
  const head = element("h3", {}, `Feature ${feature}`, element("small", {}, facts.join(" · ")));
  const lines = examples
    ? element("ol", { className: "examples" }, ...examples.rows.map(exampleLine))
    : element("p", { className: "note" }, "No examples stored.");
  const effects = element("div", {}, effectTable(run, task, place, largest), ...whereItActs(run, task, feature));
  const columns = element("div", { className: "columns" }, effects, lines);
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
  const largest = reach(shown.flatMap(({ place }) => run.checkpoints.map((_, at) => effectAt(run, task, at, place))));
  byId("cards").replaceChildren(...shown.map(({ place }) => card(run, task, place, largest)));
  byId("found").textContent = chosen.length
    ? `${shown.length} of ${chosen.length} features for ${inWords(run.tasks[task])}, ${run.label}.`
    : "No feature that the report holds fits; the stores have all features.";
  byId("more").hidden = shown.length === chosen.length;
}

function showRun() {
  const place = byId("run").value;
  const run = data.runs[place];
  draw(byId("share-figures"), data.shares[place]);
  byId("classes").replaceChildren(...classTable(run));
  for (const select of [byId("task"), byId("curve-task")]) {
    const chosen = select.value || 0;
    fill(select, run.tasks.map(inWords));
    select.value = chosen;
  }
  shownCards = PAGE;
  if (byId("courses")) showCourses();
  if (data.contrasts.length) showContrast();
  showTrust();
  showCurves();
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
  byId("curve-task").addEventListener("change", showCurves);
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
