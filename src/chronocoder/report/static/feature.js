"use strict";
// The page of one feature, which the address names: feature.html#<run>/<feature>, or …/<task>.

(async () => {
  const { element } = chronocoder;
  const { inWords, number, percent, rough, table, visible } = show;
  const byId = (id) => document.getElementById(id);
  const SHOWN_EFFECT = 0.005;
  const VALUES = ["effect", "low", "high", "level", "q", "measurable"];
  const SAID = ["label", "category", "note"];
  const SEPARATOR = /^<[^<>\s]+>$/;
  const [report] = await Promise.all([chronocoder.load("report"), annotations.ready]);
  const NO_EFFECT = report.classes.indexOf("no effect");
  let shown; // { run, feature, record }
  let asked = 0;

  const heads = (first, ...others) => [{ text: first }, ...others.map((text) => ({ text, numeric: true }))];
  const note = (text) => element("p", { className: "note" }, text);
  const interval = (low, high, digits = 3) => element("span", { className: "part" }, ` (${number(low, digits)} to ${number(high, digits)})`);
  const title = (level, text) => element(`h${level}`, {}, text);

  // Bars of effects

  function effectBar({ effect, low, high, level, exact }, largest) {
    const place = (value) => 50 + (50 * value) / largest;
    const span = (name, from, to) => {
      const part = element("i", { className: name });
      part.style.left = `${Math.min(place(from), place(to))}%`;
      part.style.width = `${Math.abs(place(to) - place(from))}%`;
      return part;
    };
    const parts = [span("level", -level, level), span(effect < 0 ? "value harms" : "value", 0, effect), span("whisker", low, high)];
    if (exact !== null) parts.push(span("exact", exact, exact));
    const bar = element("span", { className: "bar" }, ...parts);
    bar.setAttribute("aria-hidden", "true");
    return bar;
  }

  function labelledBar(values, largest) {
    const { effect, low, high, level, measurable } = values;
    const bar = effectBar(values, largest);
    if (level !== null) bar.title = `random directions ±${number(level)}`;
    return [bar, measurable ? number(effect) : `(${number(effect)})`, interval(low, high)];
  }

  const reach = (values) => Math.max(...values.flatMap(({ low, high, level, exact }) => [-low, high, level, Math.abs(exact)]), 1e-9);

  // The effects on one of the feature's tasks, at each checkpoint; of the whole task, then of its conditions.
  function effectsOf({ run, record }, place) {
    const task = record.tasks[place];
    const ablated = run.isExact ? null : record.ablations[task];
    const conditions = record.conditions[task];
    const values = (valueOf, exact) =>
      run.checkpoints.map((_, at) => ({
        ...Object.fromEntries(VALUES.map((name) => [name, valueOf(name)[at]])),
        exact: exact?.[at] ?? null,
      }));
    const parts = (conditions?.effect ?? []).map((_, part) => values((name) => conditions[name][part], ablated?.conditions[part]));
    return [values((name) => record[name][place], ablated?.exact), ...parts];
  }

  // Tokens

  function tokenText(text, position) {
    const shownText = visible(position ? text : text.trimStart());
    if (SEPARATOR.test(shownText)) return [" ", element("span", { className: "separator", title: shownText }, "¶"), " "];
    const space = shownText.match(/^\s*/)[0];
    return [space, shownText.slice(space.length), ""];
  }

  // Strength from 0 to 1; the sign is told by colour and by a line under what harms.
  function tinted(content, strength, harms, attributes) {
    if (!strength) return content;
    const mark = element("mark", { ...attributes, className: `${harms ? "harms" : "helps"} ${attributes.className ?? ""}`.trim() }, content);
    mark.style.setProperty("--strength", `${Math.round(55 * strength)}%`);
    return mark;
  }

  function exampleLine([tokens, levels, peak, origin]) {
    const marked = tokens.flatMap((text, position) => {
      const [before, content, after] = tokenText(text, position);
      return [before, tinted(content, levels[position] / report.levels, false, { className: position === peak ? "peak" : "" }), after];
    });
    return element("li", {}, ...(origin ? [element("span", { className: "language" }, visible(origin)), " "] : []), ...marked);
  }

  // Shaded by activation, or by effect at a checkpoint
  function contextLine([texts, levels, effects, right, wrong, condition], at, largest, units) {
    const lines = texts.map((tokens, member) =>
      tokens.flatMap((text, position) => {
        const [before, content, after] = tokenText(text, position);
        if (at === null) return [before, tinted(content, levels[member][position] / report.levels, false, {}), after];
        const effect = effects[at][member][position];
        return [before, tinted(content, Math.abs(effect) / largest, effect < 0, { title: `${number(effect)} ${units}` }), after];
      }),
    );
    const label = condition ? [element("span", { className: "language" }, visible(condition)), " "] : [];
    if (lines.length > 1) return element("li", {}, ...label, ...lines.map((line, member) => element("div", {}, "✓✗"[member], " ", ...line)));
    return element("li", {}, ...label, ...lines[0], " → ", element("strong", {}, visible(right.trim())), " / ", element("s", {}, visible(wrong.trim())));
  }

  // What is said of the feature

  function classFacts({ record }, place) {
    const names = record.class[place].map((kind) => report.classes[kind]);
    const support = record.support[place];
    const resamples = support === null ? "" : ` (${percent(support)} of resamples)`;
    if (record.class[place].every((kind) => kind === NO_EFFECT)) return ["no measurable effect"];
    if (names.every((name) => name === names[0])) return [`${names[0]} by every basis${resamples}`];
    const claimed = names.includes("emerged") ? " (claims of emergence rest on this)" : "";
    const [, divided, other] = names.map((name, basis) => `${name} by ${report.bases[basis]}`);
    return [`${names[0]} as published${resamples}`, `${divided}${claimed}`, other];
  }

  function courseFacts(of, place) {
    const { run, record } = of;
    const facts = classFacts(of, place);
    const differ = run.checkpoints.filter((_, at) => record.disagree[place][at]);
    if (differ.length) facts.push(`conditions differ in sign at ${differ.join(", ")}`);
    if (record.reverses[place]) facts.push("reverses within a condition");
    facts.push(`active in ${percent(record.frequency[place])} of its texts`);
    if (run.checkpoints.length < 3) return facts;
    for (const moment of ["onset", "peak"]) {
      if (record[moment][place]) facts.push(`${moment} ${record[moment][place]}`);
    }
    return record.kept[place] ? [...facts, "kept to the end"] : facts;
  }

  function showFacts({ run, feature, record }) {
    const words = run.words[feature] ?? [];
    const languages = record.examples?.languages ?? [];
    const facts = [
      `active on ${percent(run.frequency[feature])} of the validation tokens`,
      ...languages.map(([name, share]) => `${percent(share)} of activation in ${name}`),
      ...(words.length ? [`most active on: ${visible(words.join(", "))}`] : []),
    ];
    byId("facts").textContent = `${run.label} · ${facts.join(" · ")}.`;
  }

  function showDecoder({ run, record: { codes } }) {
    const columns = [
      ["RelDec", codes.norm, 2],
      ["Refitted decoder norm", codes.refitted, 2],
      ["Latent scaling, error", codes.left, 2],
      ["Latent scaling, reconstruction", codes.supplied, 2],
      ["R² of the own code", codes.r2, 2],
      ["Preactivation share", codes.preactivation, 2],
    ];
    const rows = run.checkpoints.map((name, at) => [
      name,
      ...columns.map(([, values, digits]) => number(values[at], digits)),
      codes.present[at] ? "yes" : "no",
      codes.supported[at] ? "yes" : element("strong", {}, "no"),
    ]);
    const texts = [...columns.map(([text]) => text), "Present", "Code supported"];
    byId("decoder-table").replaceChildren(table("Decoder and code at each checkpoint", heads("Checkpoint", ...texts), [{ rows }]));
  }

  function effectsAsCsv({ run, record }) {
    const columns = {
      indirect_effect: record.effect,
      indirect_effect_low: record.low,
      indirect_effect_high: record.high,
      measurable: record.measurable,
      q_value: record.q,
      random_level: record.level,
      relative_indirect_effect: record.share,
      relative_indirect_effect_low: record.shareLow,
      relative_indirect_effect_high: record.shareHigh,
    };
    const rows = record.tasks.flatMap((task, place) =>
      run.checkpoints.map((name, at) => [run.tasks[task].name, name, ...Object.values(columns).map((of) => of[place][at])]),
    );
    return show.csv(["task", "checkpoint", ...Object.keys(columns)], rows);
  }

  function showTasks(of) {
    const { run, record } = of;
    const units = new Map();
    record.tasks.forEach((task, place) => {
      const { units: unit } = run.tasks[task];
      units.set(unit, [...(units.get(unit) ?? []), place]);
    });
    const boxes = [...units].map(([unit, places]) => {
      const largest = reach(places.flatMap((place) => effectsOf(of, place)[0]));
      const rows = places.map((place) => {
        const task = run.tasks[record.tasks[place]];
        const link = element("a", { href: show.featurePlace(run, of.feature, task) }, show.taskLabel(task));
        const shares = run.checkpoints.map((_, at) => [
          number(record.share[place][at], 2),
          interval(record.shareLow[place][at], record.shareHigh[place][at], 2),
        ]);
        return [link, report.classes[record.class[place][report.basis]], ...effectsOf(of, place)[0].map((values) => labelledBar(values, largest)), ...shares];
      });
      const names = ["IE", "RelIE"].flatMap((measure) => run.checkpoints.map((name) => ({ text: `${measure} at ${name}` })));
      return table(`Effects on tasks, in ${unit}`, [{ text: `Task (${unit})` }, { text: `Class (${report.bases[report.basis]})` }, ...names], [{ rows }], "stacked");
    });
    const others = run.tasks.length - record.tasks.length;
    const where = record.tasks.length ? (others === 1 ? "the one other task" : `the ${others} other tasks`) : `any of the ${run.tasks.length} tasks`;
    const rest = others ? `It has no effect on ${where}: it is not active there.` : "";
    const files = show.files(["data (CSV)", `${run.slug}-${of.feature}-effects.csv`, show.CSV, () => effectsAsCsv(of)]);
    byId("task-table").replaceChildren(...boxes, ...(rest ? [note(rest)] : []), ...(boxes.length ? [files] : []));
  }

  function effectTable(of, place) {
    const { run, record } = of;
    const units = run.tasks[record.tasks[place]].units;
    const [whole, ...parts] = effectsOf(of, place);
    const largest = reach([whole, ...parts].flat());
    const texts = ["Checkpoint", `IE (${units})`, ...(run.isExact ? [] : ["Exact"]), "q", "RelIE"];
    const line = (values, at, share) => [
      run.checkpoints[at],
      labelledBar(values, largest),
      ...(run.isExact ? [] : [number(values.exact)]),
      rough(values.q),
      share,
    ];
    const shareAt = (at) => [number(record.share[place][at], 2), interval(record.shareLow[place][at], record.shareHigh[place][at], 2)];
    const own = record.conditions[record.tasks[place]];
    const conditions = run.tasks[record.tasks[place]].conditions;
    const groups = [
      { title: parts.length ? "Mean of conditions" : "", rows: whole.map((values, at) => line(values, at, shareAt(at))) },
      ...parts.map((part, condition) => ({
        title: [conditions[condition], own.class[condition], ...(own.reverses[condition] ? ["reverses"] : [])].join(" · "),
        rows: part.map((values, at) => line(values, at, "")),
      })),
    ];
    return table("Effect at each checkpoint", texts.map((text, at) => ({ text, numeric: at > 1 })), groups);
  }

  function roleTable({ run, record }, task) {
    const roles = record.ablations[task]?.roles;
    if (!roles) return [];
    const conditions = run.tasks[task].conditions;
    const groups = roles.effect.map((byRole, part) => ({
      title: roles.effect.length > 1 ? conditions[part] : "",
      rows: [...roles.names.keys()]
        .filter((role) => byRole[role].some((effect) => Math.abs(effect) >= SHOWN_EFFECT))
        .map((role) => [
          roles.names[role],
          ...byRole[role].map((effect, at) => [number(effect, 2), interval(roles.low[part][role][at], roles.high[part][role][at], 2)]),
        ]),
    }));
    const filled = groups.filter(({ rows }) => rows.length);
    if (!filled.length) return [];
    return [title(3, "By role of the token"), table("Effect by role of the token", heads("Token", ...run.checkpoints), filled)];
  }

  function outcomeTable({ run, record }, task) {
    const ablated = record.ablations[task];
    if (!ablated) return [];
    const { clean, units, scored } = run.tasks[task];
    const change = (from, to) => `${number(from, 2)} → ${number(to, 2)}`;
    const rows = run.checkpoints.map((name, at) => [
      name,
      change(clean.accuracy[at], ablated.accuracy[at]),
      change(clean.difference[at], ablated.difference[at]),
      number(ablated.log_probability_change[at]),
    ]);
    const columns = heads("Checkpoint", "Accuracy", `Right minus wrong (${units})`, `Log-probability of ${scored}, change in nats`);
    return [title(3, "Ablated in the model itself"), table("Exact ablation", columns, [{ rows }])];
  }

  function contextParts({ run, record }, task) {
    const { contexts = [], largest } = record.ablations[task] ?? {};
    if (!contexts.length) return [];
    const { units, actsBy } = run.tasks[task];
    const select = byId("shading");
    const at = select.value === "" ? null : Number(select.value);
    const greatest = Math.max(...contexts.flatMap(([, , effects]) => effects.flat(2).map(Math.abs)), 1e-9);
    const lines = contexts.map((context) => contextLine(context, at, greatest, units));
    const text = at === null
      ? `Activation, the same at all checkpoints; the darkest is ${number(largest, 2)}.`
      : `${actsBy[0].toUpperCase()}${actsBy.slice(1)}, at ${run.checkpoints[at]}; the darkest is ±${number(greatest)} ${units}, at any checkpoint.`;
    const files = show.files(["data (CSV)", `${run.slug}-${shown.feature}-${run.tasks[task].name}-tokens.csv`, show.CSV, () => contextsAsCsv(run, contexts)]);
    return [note(text), element("ol", { className: "examples" }, ...lines), files];
  }

  function contextsAsCsv(run, contexts) {
    const rows = contexts.flatMap(([texts, , effects, right, wrong, condition], pair) =>
      texts.flatMap((tokens, member) =>
        tokens.map((token, position) => [pair, condition, right, wrong, member, position, token, ...effects.map((of) => of[member][position])]),
      ),
    );
    const heads = ["pair", "condition", "right", "wrong", "sentence", "position", "token"];
    return show.csv([...heads, ...run.checkpoints.map((name) => `effect_at_${name}`)], rows);
  }

  function showContexts() {
    const task = Number(byId("task").value);
    const parts = contextParts(shown, task);
    byId("shading-choice").hidden = !parts.length;
    byId("contexts").replaceChildren(...(parts.length ? parts : [note("Effects on tokens are stored of the top features of a task, and it is not among those of this one.")]));
  }

  function showTask() {
    const { run, record } = shown;
    const task = Number(byId("task").value);
    const place = record.tasks.indexOf(task);
    const { name, warning } = run.tasks[task];
    byId("back").href = `features.html#${run.slug}/${name}`;
    byId("task-warning").textContent = warning ? `▲ ${warning}.` : "";
    if (place < 0) {
      byId("task-parts").replaceChildren(note("No effect: the feature is not active on this task."), ...outcomeTable(shown, task));
    } else {
      const facts = element("p", {}, `${courseFacts(shown, place).join(" · ")}.`);
      byId("task-parts").replaceChildren(facts, effectTable(shown, place), ...roleTable(shown, task), ...outcomeTable(shown, task));
    }
    showContexts();
  }

  function showGroups({ run, record: { groups } }) {
    const boxes = groups
      .filter(({ names }) => names.length)
      .map(({ kind, names, share }) => {
        const rows = names.map((name, group) => [inWords(name), ...share[group].map((value) => number(value, 2))]);
        return table(`RelIE by ${kind}`, heads(`RelIE by ${kind}`, ...run.checkpoints), [{ rows }]);
      });
    byId("groups").replaceChildren(...boxes);
  }

  function showExamples({ record: { examples } }) {
    const content = examples?.rows.length
      ? [note(`The darkest token has the largest activation, ${number(examples.largest, 2)}; the peak of each example is outlined.`), element("ol", { className: "examples" }, ...examples.rows.map(exampleLine))]
      : [note(examples ? "It is active on no validation token." : "None are stored: the feature is not among the top features of any task.")];
    byId("example-lines").replaceChildren(...content);
  }

  function showTokens({ run, record: { tokens } }) {
    if (!tokens) return byId("token-tables").replaceChildren(note("Not stored for this feature."));
    const listed = (texts, logits) =>
      element("ol", { className: "tokens" }, ...texts.map((text, rank) => element("li", {}, element("code", {}, visible(text)), " ", element("span", { className: "part" }, number(logits[rank])))));
    const rows = run.checkpoints.map((name, at) => [
      name,
      listed(tokens.promoted[at], tokens.promotedBy[at]),
      listed(tokens.suppressed[at], tokens.suppressedBy[at]),
    ]);
    const columns = ["Checkpoint", "Promoted", "Suppressed"].map((text) => ({ text }));
    byId("token-tables").replaceChildren(table("Output tokens at each checkpoint", columns, [{ rows }]));
  }

  function showHistogram({ run, feature, record: { counts } }) {
    const [lows, highs] = run.bins;
    const active = (counts ?? []).reduce((sum, count) => sum + count, 0);
    if (!active) return byId("histogram").replaceChildren(note(counts ? "It is active on no validation token." : "Not stored for this feature."));
    const drawn = histogram.svg(counts, lows, highs);
    const name = `${run.slug}-${feature}-activations`;
    const rows = counts.map((count, bin) => [lows[bin], highs[bin], count]);
    const text = `${active} of ${run.validationTokens} validation tokens; on the others it is zero.`;
    const files = show.files(
      ["SVG", `${name}.svg`, "image/svg+xml", () => new XMLSerializer().serializeToString(drawn)],
      ["PDF", `${name}.pdf`, "application/pdf", () => histogram.pdf(counts, lows, highs)],
      ["data (CSV)", `${name}.csv`, show.CSV, () => show.csv(["activation_low", "activation_high", "tokens"], rows)],
    );
    byId("histogram").replaceChildren(element("figure", {}, drawn), note(text), files);
  }

  function showNeighbours({ run, record: { nearest, together } }) {
    if (!nearest) {
      byId("nearest").replaceChildren(note("Not stored for this feature."));
      return byId("together").replaceChildren();
    }
    const of = (feature, value) => (feature < 0 ? "" : [...show.namedFeature(run, feature), element("span", { className: "part" }, ` ${number(value, 2)}`)]);
    const ranks = [...nearest.features[0].keys()];
    const rows = ranks.map((rank) => [String(rank + 1), ...run.checkpoints.map((_, at) => of(nearest.features[at][rank], nearest.cosine[at][rank]))]);
    rows.push(["By chance", ...run.nearestByChance.map((cosine) => number(cosine, 2))]);
    byId("nearest").replaceChildren(table("Nearest features by decoder", ["", ...run.checkpoints].map((text) => ({ text: text || "Rank" })), [{ rows }]));
    const beside = together.features
      .map((feature, rank) => [feature, rank])
      .filter(([feature]) => feature >= 0)
      .map(([feature, rank]) => [
        element("span", {}, ...show.namedFeature(run, feature)),
        ...[together.jaccard, together.expected, together.lift].map((values) => number(values[rank], 2)),
      ]);
    const columns = heads("Feature", "Jaccard index", "if independent", "Lift");
    byId("together").replaceChildren(beside.length ? table("Features active on the same tokens", columns, [{ rows: beside }]) : note("No other feature is active on the same tokens more often than by chance."));
  }

  // Annotation

  let tell = () => {};

  function showAnnotation() {
    const said = annotations.get(shown.run, shown.feature);
    for (const name of SAID) byId(`annotation-${name}`).value = said[name];
    showCategories();
  }

  function showCategories() {
    byId("categories").replaceChildren(...annotations.categories().map((value) => element("option", { value })));
    const { label, category } = annotations.get(shown.run, shown.feature);
    byId("called").textContent = [label, category].filter(Boolean).join(" · ");
  }

  function annotate() {
    const said = Object.fromEntries(SAID.map((name) => [name, byId(`annotation-${name}`).value.trim()]));
    annotations.set(shown.run, shown.feature, said);
    showCategories();
    tell("");
  }

  // Which feature is shown

  function miss(text) {
    byId("missing").textContent = text;
    byId("parts").hidden = true;
  }

  function showFeature() {
    const { run, feature, record } = shown;
    const heading = `Feature ${feature}`;
    document.querySelector("h1").textContent = heading;
    document.title = `${heading} · ${run.label} · ${run.suite}`;
    byId("missing").textContent = "";
    byId("parts").hidden = false;
    showFacts(shown);
    showAnnotation();
    showTasks(shown);
    showGroups(shown);
    showDecoder(shown);
    showExamples(shown);
    showTokens(shown);
    showHistogram(shown);
    showNeighbours(shown);
    show.fill(byId("task"), run.tasks.map(show.taskLabel));
    byId("shading").replaceChildren(new Option("activation", ""), ...run.checkpoints.map((name, at) => new Option(`effect at ${name}`, at)));
    const at = record.tasks.length ? run.checkpoints.findIndex((_, place) => Math.abs(record.effect[0][place]) === Math.max(...record.effect[0].map(Math.abs))) : -1;
    byId("shading").value = at < 0 ? "" : at;
  }

  const turnTo = (place, feature, task) => {
    location.hash = `#${report.runs[place].slug}/${feature}${task ? `/${task}` : ""}`;
  };

  async function showAddress() {
    asked += 1;
    const mine = asked;
    const [slug, text = "", taskName] = show.addressed();
    const place = slug ? report.runs.findIndex((run) => run.slug === slug) : 0;
    if (place < 0) return miss(`This report has no crosscoder “${slug}”.`);
    const run = await chronocoder.load(`${report.runs[place].slug}/run`);
    const feature = text === "" ? 0 : /^\d+$/.test(text) ? Number(text) : NaN;
    byId("run").value = place;
    byId("number").max = run.features - 1;
    if (!(Number.isInteger(feature) && feature >= 0 && feature < run.features)) {
      return miss(`${run.label} has the features 0 to ${run.features - 1}; “${text}” is none of them.`);
    }
    byId("number").value = feature;
    const records = await chronocoder.load(`${run.slug}/features-${Math.floor(feature / report.shard)}`);
    if (mine !== asked) return; // another address was given since
    const same = shown?.run === run && shown.feature === feature;
    shown = { run, feature, record: records[feature % report.shard] };
    if (!same) showFeature();
    const named = run.tasks.findIndex(({ name }) => name === taskName);
    byId("task").value = named >= 0 ? named : (shown.record.tasks[0] ?? 0);
    showTask();
    for (const [id, other] of [["previous", feature - 1], ["next", feature + 1]]) {
      byId(id).hidden = other < 0 || other >= run.features;
      if (!byId(id).hidden) byId(id).href = show.featurePlace(run, other);
    }
    if (named >= 0) byId("one-task").scrollIntoView();
    else if (!same) window.scrollTo(0, 0);
  }

  show.fill(byId("run"), report.runs.map(({ label }) => label));
  byId("run").addEventListener("change", ({ target }) => turnTo(target.value, byId("number").value));
  byId("number").addEventListener("change", ({ target }) => turnTo(byId("run").value, target.value));
  byId("task").addEventListener("change", ({ target }) => {
    history.replaceState(null, "", show.featurePlace(shown.run, shown.feature, shown.run.tasks[target.value]));
    showTask();
  });
  byId("shading").addEventListener("change", showContexts);
  for (const name of SAID) byId(`annotation-${name}`).addEventListener("input", annotate);
  tell = annotations.connect(() => {
    if (!shown) return;
    showAnnotation();
    showNeighbours(shown);
  });
  window.addEventListener("hashchange", () => show.addressed().length && showAddress());
  await showAddress();
})();
