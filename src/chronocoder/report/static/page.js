"use strict";
// What all pages share: data that is loaded when it is needed, and figures that are chosen.

const chronocoder = (() => {
  const waiting = new Map();

  function load(name) {
    if (!waiting.has(name)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      waiting.set(name, entry);
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onerror = () => {
        const text = `data/${name}.js is missing: copy the whole directory of the report.`;
        document.getElementById("main").prepend(element("p", { className: "warning", role: "alert" }, text));
        entry.reject(new Error(text));
      };
      document.head.append(script);
    }
    return waiting.get(name).promise;
  }

  const put = (name, value) => waiting.get(name).resolve(value);

  // All text goes in as text nodes or attributes: tokens may hold markup.
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made[name] = value;
    made.append(...children);
    return made;
  }

  return { load, put, element };
})();

for (const group of document.querySelectorAll(".figure-group")) {
  const selects = [...group.querySelectorAll("select")];
  const figures = [...group.querySelectorAll("figure")].map((figure) => [figure, JSON.parse(figure.dataset.choices)]);
  // What can be chosen depends on what was chosen before: crosscoders differ in their checkpoints.
  const show = () => {
    let shown = figures;
    selects.forEach((select, level) => {
      const there = new Set(shown.map(([, choices]) => choices[level]));
      for (const option of select.options) option.hidden = option.disabled = !there.has(option.value);
      if (!there.has(select.value)) select.value = [...there].at(-1);
      shown = shown.filter(([, choices]) => choices[level] === select.value);
    });
    for (const entry of figures) entry[0].hidden = !shown.includes(entry);
  };
  selects.forEach((select) => select.addEventListener("change", show));
  if (selects.length) show();
}
