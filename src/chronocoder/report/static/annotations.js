"use strict";
// What readers say of features: the rows of the file that the report was made with, and what was edited here since.

const annotations = (() => {
  const COLUMNS = ["suite", "comparison", "variant", "seed", "feature", "label", "category", "note"];
  const SAID = COLUMNS.slice(5);
  const NUMBERS = ["seed", "feature"];
  const NOTHING = { label: "", category: "", note: "" };
  const DELIMITERS = [",", ";", "\t"];
  const GUARDED = /^'+[=+\-@\t\r\n]/; // as `show.csv` writes what a spreadsheet would take for a formula
  const STORED = `chronocoder annotations ${location.pathname.replace(/[^/]*$/, "")}`;
  const given = new Map();
  const edited = new Map();
  let report;
  let kept = true;

  const placeOf = (row) => JSON.stringify(COLUMNS.slice(0, 5).map((name) => row[name]));
  const same = (one, other) => SAID.every((name) => one[name] === other[name]);
  const isEmpty = (row) => same(row, NOTHING);
  const whole = (row) => Object.fromEntries(COLUMNS.map((name) => [name, row[name]]));

  async function start() {
    report = await chronocoder.load("report");
    for (const row of await chronocoder.load("annotations")) given.set(placeOf(row), row);
    recall();
  }

  // Edits are kept for all tabs: those that another has made since must not be lost.
  function recall() {
    if (!kept) return;
    try {
      const rows = JSON.parse(localStorage.getItem(STORED) ?? "[]");
      edited.clear();
      rows.forEach(edit);
    } catch {
      kept = false;
    }
  }

  // An edit that says what the file says is none.
  function edit(row) {
    const place = placeOf(row);
    if (same(row, given.get(place) ?? NOTHING)) edited.delete(place);
    else edited.set(place, whole(row));
  }

  function keep() {
    try {
      localStorage.setItem(STORED, JSON.stringify([...edited.values()]));
    } catch {
      kept = false;
    }
  }

  const rowOf = ({ suite, comparison, variant, seed }, feature) => ({ suite, comparison, variant, seed, feature });

  function get(run, feature) {
    const place = placeOf(rowOf(run, feature));
    return edited.get(place) ?? given.get(place) ?? NOTHING;
  }

  function set(run, feature, said) {
    recall();
    edit({ ...rowOf(run, feature), ...said });
    keep();
  }

  const rows = () => [...new Map([...given, ...edited]).values()].filter((row) => !isEmpty(row));
  const categories = () => [...new Set(rows().map(({ category }) => category).filter(Boolean))].sort();

  function state() {
    if (!edited.size) return "";
    const count = edited.size === 1 ? "1 annotation differs" : `${edited.size} annotations differ`;
    const where = kept ? "They are kept in this browser only" : "This browser does not keep them";
    return `${count} from the file that the report was made with. ${where}: export the file and put it in its place.`;
  }

  const toCsv = () => show.csv(COLUMNS, rows().map((row) => COLUMNS.map((name) => row[name])));

  function records(text) {
    const header = text.slice(0, text.search(/\n|$/));
    const counts = DELIMITERS.map((delimiter) => header.split(delimiter).length);
    const delimiter = DELIMITERS[counts.indexOf(Math.max(...counts))];
    const token = new RegExp(`"((?:[^"]|"")*)"(?=${delimiter}|\n|$)|([^"${delimiter}\n][^${delimiter}\n]*|)`, "y");
    const found = [];
    for (let line = 1, at = 0; at < text.length; at += 1) {
      const record = { line, cells: [] };
      for (; ; at += 1) {
        token.lastIndex = at;
        const match = token.exec(text);
        const next = match ? text[token.lastIndex] : undefined;
        if (!match || ![delimiter, "\n", undefined].includes(next)) throw new Error(`line ${line}: quotes are not closed or not doubled`);
        record.cells.push(match[1]?.replaceAll('""', '"') ?? match[2]);
        line += match[0].split("\n").length - 1;
        at = token.lastIndex;
        if (next !== delimiter) break;
      }
      line += 1;
      found.push(record);
    }
    return found;
  }

  function parse(content) {
    const [head, ...lines] = records(content.replace(/^\ufeff/, "").replaceAll(/\r\n?/g, "\n"));
    const header = head ? head.cells.map((name) => name.trim()) : [];
    if ([...header].sort().join() !== [...COLUMNS].sort().join()) {
      throw new Error(`the columns are ${header.join(", ") || "missing"}; they have to be ${COLUMNS.join(", ")}`);
    }
    const seen = new Map();
    return lines
      .filter(({ cells }) => cells.some(Boolean))
      .map(({ line, cells }) => {
        if (cells.length !== header.length) throw new Error(`line ${line} has ${cells.length} cells, not ${header.length}`);
        const row = Object.fromEntries(header.map((name, place) => [name, cells[place].replace(GUARDED, (text) => text.slice(1)).trim()]));
        for (const name of NUMBERS) {
          if (!/^\d{1,15}$/.test(row[name])) throw new Error(`line ${line}: ${name} “${row[name]}” is no whole number`);
          row[name] = Number(row[name]);
        }
        const place = placeOf(row);
        if (seen.has(place)) throw new Error(`lines ${seen.get(place)} and ${line} are of the same feature; keep one`);
        seen.set(place, line);
        return { ...row, line };
      });
  }

  // What other suites have is not known here.
  const isKnown = (row) =>
    row.suite !== report.suite ||
    report.runs.some((run) => ["comparison", "variant", "seed"].every((name) => run[name] === row[name]) && row.feature < run.features);

  // Rows of the file take the place of those here; others stay.
  function importCsv(text) {
    const imported = parse(text);
    recall();
    const changed = imported.filter((row) => !same(row, edited.get(placeOf(row)) ?? given.get(placeOf(row)) ?? NOTHING));
    imported.forEach(edit);
    keep();
    const unknown = imported.filter((row) => !isKnown(row)).map(({ line }) => line);
    const lines = `line${unknown.length === 1 ? "" : "s"} ${unknown.slice(0, 5).join(", ")}${unknown.length > 5 ? ", …" : ""}`;
    return `Annotations read: ${imported.length}; new or changed: ${changed.length}.${unknown.length ? ` Of no feature of this report: ${lines}.` : ""}`;
  }

  // Buttons that a page has for the file, and what they tell; `changed` is called after an import.
  function connect(changed) {
    const byId = (id) => document.getElementById(id);
    const tell = (text) => {
      byId("annotation-state").textContent = [text, state()].filter(Boolean).join(" ");
    };
    byId("annotation-export").addEventListener("click", () => {
      recall();
      show.download("annotations.csv", show.CSV, toCsv());
    });
    byId("annotation-import").addEventListener("change", async ({ target }) => {
      const [file] = target.files;
      if (!file) return;
      try {
        tell(importCsv(new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer())));
        changed();
      } catch (error) {
        tell(error instanceof TypeError ? `${file.name} is not in UTF-8: save it as “CSV UTF-8”.` : `${file.name}: ${error.message}. Nothing was imported.`);
      }
      target.value = "";
    });
    tell("");
    return tell;
  }

  return { ready: start(), get, set, rows, categories, connect, toCsv, importCsv };
})();
