"use strict";
// Draws the figures and, for the crosscoder chosen, its tables and features. All text goes in as text nodes.

const data = JSON.parse(document.getElementById("document").textContent);
const PAGE = 10;
const LEVELS = 9;
const SHOWN_EFFECT = 0.005;
const SCORED = {
  next_token: "the right answer",
  continuation: "the continuation after the right beginning",
  sentence: "the right sentence",
};
const NARROW_PX = 600;
const LEGEND_ROOM_PX = 40;
const LEGEND_ENTRY_PX = 190;
const LEGEND_GAP_PX = 10;
const LEGEND_LINE_PX = 15;
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

function taskLabel(name) {
  return data.warnings[name] ? `▲ ${inWords(name)}` : inWords(name);
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

function wholly(label, content) {
  const box = scrolling(label, content);
  box.classList.add("whole");
  return box;
}

// Figures

function legendHeight(traces, width) {
  const entries = traces.filter(({ name, showlegend }) => name && showlegend !== false);
  const lines = Math.max(0, ...entries.map(({ name }) => name.split("<br>").length));
  const inRow = width < NARROW_PX ? 1 : Math.floor(width / LEGEND_ENTRY_PX);
  return Math.ceil(entries.length / inRow) * (LEGEND_GAP_PX + lines * LEGEND_LINE_PX);
}

function draw(container, figures) {
  const boxes = figures.map(() => element("div"));
  const captioned = ({ title }, place) => element("figure", {}, element("figcaption", {}, title), boxes[place]);
  container.replaceChildren(...figures.map(captioned));
  figures.forEach(({ data: traces, layout }, place) => {
    const extra = Math.max(0, legendHeight(traces, boxes[place].clientWidth) - LEGEND_ROOM_PX);
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

// Choices may be nested: one level for each select, in the order of the page; a level without a select has one choice.
function drawSelections() {
  for (const container of document.querySelectorAll("[data-figures]")) {
    const choices = data.figures[container.dataset.figures];
    const selects = [...document.querySelectorAll(`[data-choice="${container.dataset.figures}"]`)];
    const show = () => {
      let figures = choices;
      for (let level = 0; !Array.isArray(figures); level += 1) figures = Object.values(figures)[selects[level]?.value ?? 0];
      draw(container, figures);
    };
    let labelled = choices;
    for (const select of selects) {
      const labels = Object.keys(labelled);
      fill(select, labels);
      if ("last" in select.dataset) select.value = labels.length - 1;
      select.addEventListener("change", show);
      labelled = Object.values(labelled)[0];
    }
    show();
  }
}

// Tables of a run

function classesBeside(label, { heads, classes }) {
  const head = element("tr", {}, ...["Class", ...heads].map((text) => element("th", {}, text)));
  const bodies = classes.map(([name, lines]) => {
    const rows = lines.map(([cells, beyond], place) => {
      const first = place ? [] : [element("th", { rowSpan: lines.length }, name)];
      return element("tr", { className: beyond ? "beyond" : "" }, ...first, ...cells.map((text) => element("td", {}, text)));
    });
    return element("tbody", {}, ...rows);
  });
  return wholly(label, [element("thead", {}, head), ...bodies]);
}

function showControls() {
  const { differ, tasks } = data.controls[byId("run").value];
  const { tested, bases, conditions, reversals } = tasks[byId("control-task").value];
  byId("control-tested").textContent = tested;
  byId("control-differ").textContent = differ;
  byId("control-reversals").textContent = reversals;
  byId("control-bases").replaceChildren(classesBeside("Classes by basis", bases));
  byId("control-conditions").replaceChildren(classesBeside("Classes by condition", conditions));
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

function effectBar({ effect, low, high, level, exact }, largest) {
  const place = (value) => 50 + (50 * value) / largest;
  const span = (name, from, to) => {
    const part = element("i", { className: name });
    part.style.left = `${Math.min(place(from), place(to))}%`;
    part.style.width = `${Math.abs(place(to) - place(from))}%`;
    return part;
  };
  const value = span(effect < 0 ? "value harms" : "value", 0, effect);
  const parts = [span("level", -level, level), value, span("whisker", low, high)];
  if (exact !== null) parts.push(span("exact", exact, exact));
  return element("span", { className: "bar" }, ...parts);
}

function labelledBar(values, largest) {
  const { effect, low, high, level, exact, q, measurable } = values;
  const bar = effectBar(values, largest);
  const facts = [`${number(low)} to ${number(high)}`];
  if (level !== null) facts.push(`random directions ±${number(level)}`);
  if (q !== undefined) facts.push(`q ${number(q)}`);
  if (exact !== null) facts.push(`exact ${number(exact)}`);
  bar.title = facts.join("; ");
  return [bar, measurable ? number(effect) : `(${number(effect)})`];
}

function effectAt(run, task, checkpoint, place) {
  const names = ["effect", "low", "high", "level", "q", "measurable"];
  const values = Object.fromEntries(names.map((name) => [name, run[name][task][checkpoint][place]]));
  const { features, exact } = run.ablations[task];
  const measured = run.isExact ? null : (exact[checkpoint][features.indexOf(run.features[place])] ?? null);
  return { ...values, exact: measured };
}

function effectIn(run, task, condition, checkpoint, place) {
  const names = ["effect", "low", "high", "level", "q", "measurable"];
  const own = run.conditions[task];
  const values = Object.fromEntries(names.map((name) => [name, own[name][condition][checkpoint][place]]));
  const { features, exactOfConditions } = run.ablations[task];
  const exact = run.isExact ? null : (exactOfConditions[condition][checkpoint][features.indexOf(run.features[place])] ?? null);
  return { ...values, exact };
}

function effectsOf(run, task, place) {
  const of = (effect) => run.checkpoints.map((_, checkpoint) => effect(checkpoint));
  const whole = of((checkpoint) => effectAt(run, task, checkpoint, place));
  const parts = run.conditions[task].names.map((_, condition) =>
    of((checkpoint) => effectIn(run, task, condition, checkpoint, place)),
  );
  return [whole, ...parts];
}

function reach(values) {
  return Math.max(...values.flatMap(({ low, high, level, exact }) => [-low, high, level, Math.abs(exact)]), 1e-9);
}

function contrastTable(run, { checkpoints, rows }, contrast) {
  const title = `Features that help ${inWords(contrast.surface)} and harm ${inWords(contrast.conflicting)} at ${checkpoints[0]}`;
  const note = rows.length
    ? "Chosen on one half of the prefixes; here, their effects on the second task in the other half."
    : "None exceeds random directions.";
  const box = element("div", {}, element("h3", {}, title), element("p", { className: "note" }, note));
  if (!rows.length) return box;
  const heads = ["Feature", "Condition", ...checkpoints.map((name) => `IE at ${name}`), "", "Most active on"];
  const values = ({ effect, low, high, level }) =>
    effect.map((value, at) => {
      const ends = { low: low[at], high: high[at], level: level[at] };
      const measurable = (ends.low > 0 || ends.high < 0) && Math.abs(value) > ends.level;
      return { effect: value, ...ends, exact: null, measurable };
    });
  const largest = reach(rows.flatMap(values));
  const lines = rows.map((row, place) => {
    const again = rows[place - 1]?.feature === row.feature;
    return [
      again ? "" : featureLink(run, row.feature, contrast.conflicting),
      row.condition,
      ...values(row).map((value) => labelledBar(value, largest)),
      [row.note, ...(again ? [] : [" ", ...codeMarks(run, run.features.indexOf(row.feature))])],
      again ? "" : (run.words[row.feature] ?? []).join(", ") || "no examples stored",
    ];
  });
  box.append(scrolling(title, table(heads.map((text) => ({ text })), lines)));
  return box;
}

function showContrast() {
  const run = data.runs[byId("run").value];
  const place = byId("contrast").value;
  const boxes = [];
  const rows = data.contrastFigures[byId("run").value][place].map(({ condition, figures }) => {
    const row = element("div", { className: "figures" });
    boxes.push([row, figures]);
    return element("div", {}, element("h3", {}, condition === "all" ? "" : condition), row);
  });
  byId("contrast-figures").replaceChildren(...rows);
  followPoints(boxes.flatMap(([row, figures]) => draw(row, figures)));
  byId("contrast-table").replaceChildren(contrastTable(run, run.contrasts[place], data.contrasts[place]));
}

function writingTable(run, task, { checkpoints, sentence, features, effect, changes, ownCode }) {
  const title = `From ${checkpoints[0]} to ${checkpoints[1]}`;
  const heads = ["Feature", ...checkpoints.map((name) => `Effect at ${name}`), "Due to what is written", "Due to how it is read", ""];
  const ends = ([value, low, high], place) => [
    number(value[place]),
    element("span", { className: "part" }, ` (${number(low[place])} to ${number(high[place])})`),
  ];
  const rows = features.map((feature, place) => [
    run.features.includes(feature) ? featureLink(run, feature, task) : String(feature),
    ...effect.map((of) => number(of[place])),
    ...changes.map((part) => ends(part, place)),
    checkpoints
      .filter((_, at) => ownCode[at][place])
      .flatMap((name) => [element("span", { className: "mark" }, `own code at ${name}`), " "]),
  ]);
  const columns = heads.map((text, place) => ({ text, numeric: place > 0 && place < 5 }));
  return [element("h3", {}, title), element("p", {}, sentence), wholly(`Writer or reader: ${title}`, table(columns, rows))];
}

function showWriting() {
  const run = data.runs[byId("run").value];
  const place = byId("writing-task").value;
  const pairs = data.writing[byId("run").value][place];
  byId("writing-tables").replaceChildren(...pairs.flatMap((pair) => writingTable(run, run.tasks[place], pair)));
}

function showTrust() {
  const run = data.runs[byId("run").value];
  const { sentences, rows, note } = data.trust[byId("run").value];
  byId("trust-sentences").replaceChildren(...sentences.map((text) => element("li", {}, text)));
  const heads = [{ text: "" }, ...run.checkpoints.map((text) => ({ text }))];
  const cell = ([value, note]) => [value, ...(note ? [element("span", { className: "part" }, ` (${note})`)] : [])];
  const lines = rows.map(([label, cells]) => [label, ...cells.map(cell)]);
  byId("trust-table").replaceChildren(...table(heads, lines));
  byId("trust-note").textContent = note;
}

function showCurves() {
  draw(byId("curve-figures"), data.trust[byId("run").value].curves[byId("curve-task").value]);
}

function showCourses() {
  const { figures, counts } = data.courses[byId("run").value];
  draw(byId("course-figures"), figures);
  const heads = ["Cluster", "Feature–task pairs", ...data.decided].map((text) => ({ text, numeric: true }));
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

function exampleLine([places, levels, [peak], origin]) {
  const tokens = places.map((place, position) => {
    const [before, text, after] = tokenText(place, position);
    const className = position === peak ? "peak" : "";
    return [before, tinted(text, HELPS, levels[position] / LEVELS, { className }), after];
  });
  const mark = origin ? [element("span", { className: "language" }, origin), " "] : [];
  return element("li", {}, ...mark, ...tokens.flat());
}

function actsLine([texts, right, wrong], effects, largest, units) {
  const lines = texts.map((places, member) =>
    places.flatMap((place, position) => {
      const [before, text, after] = tokenText(place, position);
      const effect = effects[member][position];
      const title = `${number(effect)} ${units}`;
      return [before, tinted(text, effect < 0 ? HARMS : HELPS, Math.abs(effect) / largest, { title }), after];
    }),
  );
  if (lines.length > 1) return element("li", {}, ...lines.map((line, member) => element("div", {}, "✓✗"[member], " ", ...line)));
  return element("li", {}, ...lines[0], " → ", element("strong", {}, right.trim()), " / ", element("s", {}, wrong.trim()));
}

function whereItActs(run, task, feature) {
  const { features, strongest, outcomes, clean, actsBy, acts, pairs } = run.ablations[task];
  const place = features.indexOf(feature);
  if (place < 0) return [];
  const at = strongest[place];
  const [accuracy, difference, logProbability] = outcomes.map((values) => values[at][place]);
  const [cleanAccuracy, cleanDifference] = clean.map((values) => values[at]);
  const change = (from, to) => `${number(from, 2)} → ${number(to, 2)}`;
  const text =
    `Ablated exactly at ${run.checkpoints[at]}: accuracy ${change(cleanAccuracy, accuracy)}, right minus wrong` +
    ` ${change(cleanDifference, difference)} ${run.units[task]}; log-probability of ${SCORED[run.metrics[task]]} changed by` +
    ` ${number(logProbability)} nats.`;
  const block = [element("p", { className: "note" }, text)];
  const lines = acts[feature] ?? [];
  if (!lines.length) return block;
  const largest = Math.max(...lines.flatMap(([, effects]) => effects.flat().map(Math.abs)), 1e-9);
  const list = lines.map(([example, effects]) => actsLine(pairs[example], effects, largest, run.units[task]));
  const title = `${actsBy[0].toUpperCase()}${actsBy.slice(1)}, at ${run.checkpoints[at]}:`;
  return [...block, element("p", { className: "note" }, title), element("ol", { className: "examples" }, ...list)];
}

function effectTable(run, task, place, largest) {
  const texts = ["Checkpoint", `IE (${run.units[task]})`, ...(run.isExact ? [] : ["Exact"]), "q", "RelIE", "RelDec"];
  const heads = texts.map((text, at) => ({ text, numeric: at > 1 }));
  const [whole, ...parts] = effectsOf(run, task, place);
  const line = (values, at, share, norm) => [
    run.checkpoints[at],
    labelledBar(values, largest),
    ...(run.isExact ? [] : [number(values.exact)]),
    number(values.q),
    share,
    norm,
  ];
  const shares = (at) => [run.share[task][at][place], run.norm[at][place]].map((value) => number(value, 2));
  const [head, body] = table(heads, whole.map((values, at) => line(values, at, ...shares(at))));
  const own = run.conditions[task];
  const headline = (text) => element("tr", { className: "group" }, element("th", { colSpan: heads.length }, text));
  if (parts.length) body.prepend(headline("Mean of conditions"));
  parts.forEach((part, condition) => {
    const facts = [own.names[condition], own.class[condition][place]];
    if (own.reverses[condition][place]) facts.push("reverses");
    const rows = part.map((values, at) => line(values, at, "", ""));
    body.append(headline(facts.join(" · ")), ...table(heads, rows)[1].children);
  });
  return wholly("Effect at each checkpoint", [head, body]);
}

function roleTable(run, task, feature) {
  const { features, names, conditions, effect, low, high } = run.ablations[task].roles;
  const place = features.indexOf(feature);
  if (place < 0) return [];
  const heads = [{ text: "By token" }, ...run.checkpoints.map((text) => ({ text, numeric: true }))];
  const body = element("tbody");
  conditions.forEach((condition, part) => {
    const entry = (role, at) =>
      `${number(effect[part][role][at][place], 2)} (${number(low[part][role][at][place], 2)} to ${number(high[part][role][at][place], 2)})`;
    const acting = [...names.keys()].filter((role) => effect[part][role].some((of) => Math.abs(of[place]) >= SHOWN_EFFECT));
    const rows = acting.map((role) => [names[role], ...run.checkpoints.map((_, at) => entry(role, at))]);
    if (conditions.length > 1 && rows.length) {
      body.append(element("tr", { className: "group" }, element("th", { colSpan: heads.length }, condition)));
    }
    body.append(...table(heads, rows)[1].children);
  });
  if (!body.children.length) return [];
  const box = wholly("Effect by role of the token", [table(heads, [])[0], body]);
  box.firstChild.className = "roles";
  return [box];
}

function groupTables(run, place) {
  return run.groups.flatMap(({ kind, names, acts, share }) => {
    const served = [...names.keys()].filter((group) => acts[group].some((at) => at[place]));
    if (!served.length) return [];
    const heads = [{ text: `RelIE by ${kind}` }, ...run.checkpoints.map((text) => ({ text, numeric: true }))];
    const rows = served.map((group) => [inWords(names[group]), ...share[group].map((of) => number(of[place], 2))]);
    const box = wholly(`RelIE by ${kind}`, table(heads, rows));
    box.firstChild.className = "roles";
    return [box];
  });
}

function classFacts(run, task, place) {
  const names = run.class.map((of) => data.classes[of[task][place]]);
  const support = run.support[task][place];
  const resamples = support === null ? "" : ` (${percent(support)} of resamples)`;
  if (names.every((name) => name === "no effect")) return ["no measurable effect"];
  if (names.every((name) => name === names[0])) return [`${names[0]} by every basis${resamples}`];
  const claimed = names.includes("emerged") ? " (claims of emergence rest on this)" : "";
  const [, divided, other] = names.map((name, basis) => `${name} by ${data.bases[basis]}`);
  return [`${names[0]} as published${resamples}`, `${divided}${claimed}`, other];
}

function courseFacts(run, task, place) {
  const facts = classFacts(run, task, place);
  const differ = run.checkpoints.filter((_, at) => run.disagree[task][at][place]);
  if (differ.length) facts.push(`conditions differ in sign at ${differ.join(", ")}`);
  if (run.reverses[task][place]) facts.push("reverses within a condition");
  if (run.checkpoints.length < 3) return facts;
  for (const moment of ["onset", "peak"]) {
    if (run[moment][task][place]) facts.push(`${moment} ${run[moment][task][place]}`);
  }
  return run.kept[task][place] ? [...facts, "kept to the end"] : facts;
}

function codeMarks(run, place) {
  const { supported, r2, preactivation } = run.codes;
  return run.checkpoints.flatMap((checkpoint, at) => {
    if (supported[at][place]) return [];
    const facts = `R² ${number(r2[at][place], 2)}, preactivation share ${number(preactivation[at][place], 2)}`;
    return [element("span", { className: "mark" }, `code not supported by ${checkpoint} (${facts})`), " "];
  });
}

function card(run, task, place, largest) {
  const feature = run.features[place];
  const examples = run.examples[feature];
  const facts = [
    ...courseFacts(run, task, place),
    `active in ${percent(run.frequency[task][place])} of pairs`,
    ...(examples ? [`on ${percent(examples.frequency)} of tokens`] : []),
    ...(examples ? examples.languages.map(([name, share]) => `${percent(share)} of activation in ${name}`) : []),
  ];
  const head = element("h3", {}, `Feature ${feature}`, element("small", {}, facts.join(" · ")));
  const lines = examples
    ? element("ol", { className: "examples" }, ...examples.rows.map(exampleLine))
    : element("p", { className: "note" }, "No examples stored.");
  const effects = element("div", {}, effectTable(run, task, place, largest), ...roleTable(run, task, feature), ...groupTables(run, place));
  const acts = element("div", {}, lines, ...whereItActs(run, task, feature));
  const columns = element("div", { className: "columns" }, effects, acts);
  const marks = codeMarks(run, place);
  const note = marks.length ? [element("p", { className: "marks" }, ...marks)] : [];
  return element("article", { className: "card" }, head, ...note, columns);
}

function chosenFeatures(run, task) {
  const wanted = byId("feature").value.split(/[\s,]+/).filter(Boolean);
  const kind = byId("class").value;
  const size = (place) => Math.max(...run.effect[task].map((row) => Math.abs(row[place])));
  return run.features
    .map((feature, place) => ({ feature, place, size: size(place) }))
    .filter(({ feature, size: of }) => (wanted.length ? wanted.includes(String(feature)) : of > 0))
    .filter(({ place }) => kind === "" || run.class[0][task][place] === Number(kind))
    .sort((a, b) => b.size - a.size);
}

function showFeatures() {
  const run = data.runs[byId("run").value];
  const task = Number(byId("task").value);
  const chosen = chosenFeatures(run, task);
  const shown = chosen.slice(0, shownCards);
  const largest = reach(shown.flatMap(({ place }) => effectsOf(run, task, place).flat()));
  byId("cards").replaceChildren(...shown.map(({ place }) => card(run, task, place, largest)));
  byId("found").textContent = chosen.length
    ? `${shown.length} of ${chosen.length} features for ${inWords(run.tasks[task])}, ${run.label}.`
    : "No feature that the report holds fits; the stores have all features.";
  const warning = data.warnings[run.tasks[task]];
  byId("task-warning").textContent = warning ? `▲ ${warning}.` : "";
  byId("more").hidden = shown.length === chosen.length;
}

function showRun() {
  const place = byId("run").value;
  const run = data.runs[place];
  draw(byId("share-figures"), data.shares[place]);
  for (const select of [byId("task"), byId("curve-task"), byId("control-task"), byId("writing-task")]) {
    const chosen = select.value || 0;
    fill(select, run.tasks.map(taskLabel));
    select.value = chosen;
  }
  shownCards = PAGE;
  showControls();
  if (byId("courses")) showCourses();
  if (data.contrasts.length) showContrast();
  draw(byId("writing-figures"), data.writtenShares[place]);
  showWriting();
  showTrust();
  showCurves();
  showFeatures();
}

function start() {
  drawSelections();
  if (!data.runs.length) return;
  fill(byId("run"), data.runs.map((run) => run.label));
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
  byId("control-task").addEventListener("change", showControls);
  byId("writing-task").addEventListener("change", showWriting);
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
