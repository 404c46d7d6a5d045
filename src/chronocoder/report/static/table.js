"use strict";
// The table of all features of a run, with their effects on one task.

(async () => {
  const { element } = chronocoder;
  const { number, percent } = show;
  const byId = (id) => document.getElementById(id);
  const [report] = await Promise.all([chronocoder.load("report"), annotations.ready]);
  const NO_EFFECT = report.classes.indexOf("no effect");
  const LARGEST_FIRST = [
    [3, "desc"],
    [0, "asc"],
  ];
  let table;
  let asked = 0;

  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const loadRun = () => chronocoder.load(`${report.runs[byId("run").value].slug}/run`);

  // A row of each feature; those without an effect on the task are not in its data.
  function rowsOf(run, columns, basis) {
    const places = new Map(columns.features.map((feature, place) => [feature, place]));
    return Array.from({ length: run.features }, (_, feature) => {
      const place = places.get(feature);
      const at = (values) => values.map((of) => of[place]);
      const has = place !== undefined;
      const effect = has ? at(columns.effect) : run.checkpoints.map(() => 0);
      const { label, category, note } = annotations.get(run, feature);
      return {
        feature,
        effect,
        size: Math.max(...effect.map(Math.abs)),
        measurable: has ? at(columns.measurable) : run.checkpoints.map(() => 0),
        share: has ? at(columns.share) : run.checkpoints.map(() => null),
        norm: run.norm.map((of) => of[feature]),
        kind: has ? columns.class[basis][place] : NO_EFFECT,
        pairs: has ? columns.frequency[place] : 0,
        tokens: run.frequency[feature],
        words: show.visible((run.words[feature] ?? []).join(", ")),
        category,
        called: [label, category].filter(Boolean).join(" · "),
        annotation: [label, category, note].filter(Boolean).join(" · "),
      };
    });
  }

  // DataTables takes text for markup: what is shown are nodes, what is searched is escaped.
  const numeric = (title, value, text = (shown) => number(shown)) => ({
    title,
    className: "number",
    type: "num",
    searchable: false,
    render: (_, type, row) => (type === "display" ? document.createTextNode(text(value(row), row)) : (value(row) ?? -Infinity)),
  });
  const textual = (title, value, className = "") => ({
    title,
    className,
    type: "string",
    render: (_, type, row) => (type === "display" ? document.createTextNode(value(row)) : escaped(value(row))),
  });

  function named(run, task, { feature, called, annotation }) {
    const said = called || annotation ? [" ", element("span", { className: "annotation" }, called || annotation)] : [];
    return element("span", {}, show.featureLink(run, feature, task), ...said);
  }

  function columnsOf(run, task) {
    const ofCheckpoints = (places, column) => places.map((at) => column(at, run.checkpoints[at]));
    const all = run.checkpoints.map((_, at) => at);
    const shares = all.length === 2 ? [1] : all; // of a pair, one tells the other
    const bracketed = (at) => (value, row) => (row.measurable[at] ? number(value) : `(${number(value)})`);
    return [
      {
        title: "Feature",
        type: "num",
        cellType: "th",
        createdCell: (cell) => cell.setAttribute("scope", "row"),
        render: (_, type, row) => (type === "display" ? named(run, task, row) : type === "filter" ? escaped(`${row.feature} ${row.annotation}`) : row.feature),
      },
      textual("Most active on", ({ words }) => words, "words"),
      textual("Class", ({ kind }) => report.classes[kind]),
      numeric(`Largest |IE| (${task.units})`, ({ size }) => size),
      ...ofCheckpoints(all, (at, name) => numeric(`IE at ${name}`, ({ effect }) => effect[at], bracketed(at))),
      ...ofCheckpoints(shares, (at, name) => numeric(`RelIE at ${name}`, ({ share }) => share[at], (value) => number(value, 2))),
      ...ofCheckpoints(shares, (at, name) => numeric(`RelDec at ${name}`, ({ norm }) => norm[at], (value) => number(value, 2))),
      numeric("Active in texts of the task", ({ pairs }) => pairs, percent),
      numeric("Active on validation tokens", ({ tokens }) => tokens, percent),
    ];
  }

  function passes(row) {
    const said = byId("annotated").value;
    if (byId("class").value !== "" && row.kind !== Number(byId("class").value)) return false;
    if (byId("measurable").checked && !row.measurable.some(Boolean)) return false;
    if (said === "any") return row.annotation !== "";
    return !said.startsWith("category ") || row.category === said.slice("category ".length);
  }

  function draw(run, task, rows) {
    const order = table && byId("run").dataset.shown === run.slug ? table.order() : LARGEST_FIRST;
    const search = table?.search() ?? "";
    table?.destroy();
    byId("run").dataset.shown = run.slug;
    const columns = columnsOf(run, task);
    const heads = columns.map(({ title, className }) => element("th", { scope: "col", className }, title));
    const caption = element("caption", {}, `Features of ${run.label} on ${show.inWords(task.name)}`);
    const shown = element("table", { id: "features" }, caption, element("thead", {}, element("tr", {}, ...heads)));
    byId("table").replaceChildren(shown);
    table = new DataTable(shown, {
      data: rows,
      columns: columns.map(({ title, ...column }) => ({ data: null, ...column })),
      autoWidth: false,
      deferRender: true,
      order,
      pageLength: 25,
      search: { search },
      layout: { topStart: "info", topEnd: "search", bottomStart: "pageLength", bottomEnd: "paging" },
      language: {
        search: "Search numbers, words, classes and annotations",
        info: "Features _START_ to _END_ of _TOTAL_",
        infoEmpty: "No features",
        infoFiltered: "(of _MAX_ in the dictionary)",
        lengthMenu: "_MENU_ features per page",
        zeroRecords: "No feature matches",
      },
    });
    table.search.fixed("choice", (_, row) => passes(row));
    table.draw();
    const box = byId("table").querySelector(".dt-layout-table");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Table of features");
  }

  async function update() {
    asked += 1;
    const mine = asked;
    const run = await loadRun();
    const place = Number(byId("task").value);
    const columns = await chronocoder.load(`${run.slug}/table-${place}`);
    if (mine !== asked) return; // another choice was made since
    const task = run.tasks[place];
    history.replaceState(null, "", `#${run.slug}/${task.name}`);
    byId("task-warning").textContent = task.warning ? `▲ ${task.warning}.` : "";
    draw(run, task, rowsOf(run, columns, Number(byId("basis").value)));
  }

  function fillAnnotated() {
    const chosen = byId("annotated").value;
    const options = annotations.categories().map((name) => new Option(`category: ${name}`, `category ${name}`));
    byId("annotated").replaceChildren(new Option("all features", ""), new Option("annotated ones", "any"), ...options);
    byId("annotated").value = [...byId("annotated").options].some(({ value }) => value === chosen) ? chosen : "";
  }

  async function chooseRun(taskName) {
    const run = await loadRun();
    const chosen = taskName ?? run.tasks[byId("task").value]?.name;
    show.fill(byId("task"), run.tasks.map(show.taskLabel));
    byId("task").value = Math.max(0, run.tasks.findIndex(({ name }) => name === chosen));
    await update();
  }

  async function chooseByAddress() {
    const [slug, task] = show.addressed();
    byId("run").value = Math.max(0, report.runs.findIndex((run) => run.slug === slug));
    await chooseRun(task);
  }

  show.fill(byId("run"), report.runs.map(({ label }) => label));
  show.fill(byId("basis"), report.bases);
  byId("basis").value = report.basis;
  show.fill(byId("class"), report.classes);
  byId("class").prepend(new Option("any", "", true, true));
  fillAnnotated();
  byId("run").addEventListener("change", () => chooseRun());
  for (const id of ["task", "basis"]) byId(id).addEventListener("change", update);
  for (const id of ["class", "annotated", "measurable"]) byId(id).addEventListener("change", () => table?.draw());
  annotations.connect(() => {
    fillAnnotated();
    update();
  });
  window.addEventListener("hashchange", () => show.addressed().length && chooseByAddress());
  await chooseByAddress();
})();
