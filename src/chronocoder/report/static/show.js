"use strict";
// Numbers, tables and links as the pages of features show them.

const show = (() => {
  const { element } = chronocoder;
  const CONTROL = /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

  const inWords = (name) => name.replaceAll("_", " ");
  const taskLabel = ({ name, warning }) => (warning ? `▲ ${inWords(name)}` : inWords(name));

  function number(value, digits = 3) {
    if (value === null) return "–";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  }

  function percent(value) {
    return value === null ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)}\u00a0%`;
  }

  // Short where it can be, in powers of ten where it is small: 1e-7 rather than 0.000.
  function rough(value) {
    if (value === null) return "–";
    return (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(0) : String(value)).replaceAll("-", "−");
  }

  // Control characters, those that turn the direction of text among them, as their codes.
  const visible = (text) =>
    text.replace(CONTROL, (character) => (character === "\n" ? "↵" : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`));

  function fill(select, labels) {
    select.replaceChildren(...labels.map((label, place) => new Option(label, place)));
  }

  // A cell is text, an element, or a list of both; the first of each row is its header.
  function table(caption, heads, groups, className = "") {
    const cells = (row) =>
      row.map((content, place) => {
        const head = { className: heads[place].numeric ? "number" : "" };
        return place ? element("td", head, ...[content].flat()) : element("th", { scope: "row" }, ...[content].flat());
      });
    const body = ({ title, rows }) => {
      const label = element("th", { colSpan: heads.length, scope: "rowgroup" }, title ?? "");
      const lines = rows.map((row) => element("tr", {}, ...cells(row)));
      return element("tbody", {}, ...(title ? [element("tr", { className: "group" }, label)] : []), ...lines);
    };
    const head = heads.map(({ text, numeric }) => element("th", { scope: "col", className: numeric ? "number" : "" }, text));
    const made = element("table", { className: `wrapped ${className}`.trim() }, element("thead", {}, element("tr", {}, ...head)), ...groups.map(body));
    const box = element("div", { className: "scroll whole", tabIndex: 0 }, made);
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", caption);
    return box;
  }

  // What the address says after `#`, in parts; nothing where that names an element, as the link to the content does.
  function addressed() {
    const fragment = location.hash.slice(1);
    return document.getElementById(fragment) ? [] : fragment.split("/");
  }

  const featurePlace = (run, feature, task) => `feature.html#${run.slug}/${feature}${task ? `/${task.name}` : ""}`;

  function featureLink(run, feature, task) {
    return element("a", { href: featurePlace(run, feature, task) }, String(feature));
  }

  // The number of a feature, and what readers call it.
  function namedFeature(run, feature) {
    const { label, category } = annotations.get(run, feature);
    const said = [label, category].filter(Boolean).join(" · ");
    return [featureLink(run, feature), ...(said ? [" ", element("span", { className: "annotation" }, said)] : [])];
  }

  function download(name, type, content) {
    const link = element("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // Buttons that save files which are made when they are asked for: [label, name, type, function that gives the content].
  function files(...made) {
    const buttons = made.map(([label, name, type, content]) => {
      const button = element("button", { type: "button" }, label);
      button.addEventListener("click", () => download(name, type, content()));
      return button;
    });
    return element("p", { className: "files" }, ...buttons);
  }

  // CSV, as RFC 4180 and spreadsheets have it; the mark at the beginning tells them UTF-8.
  const CSV = "text/csv;charset=utf-8";
  const FORMULA = /^'*[=+\-@\t\r\n]/; // a spreadsheet would take such a text for a formula: it gets an apostrophe

  function cell(value) {
    const text = String(value ?? "");
    const guarded = typeof value === "string" && FORMULA.test(text) ? `'${text}` : text;
    return /[",;\t\r\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
  }

  const csv = (heads, rows) => `\ufeff${[heads, ...rows].map((cells) => `${cells.map(cell).join(",")}\r\n`).join("")}`;

  return { addressed, visible, files, CSV, csv, inWords, taskLabel, number, percent, rough, fill, table, featurePlace, featureLink, namedFeature, download };
})();
