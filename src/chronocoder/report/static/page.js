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
      script.onerror = () => entry.reject(new Error(`data/${name}.js is missing: copy the whole directory of the report`));
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
  const figures = [...group.querySelectorAll("figure")];
  const show = () => {
    const chosen = JSON.stringify(selects.map(({ value }) => value));
    for (const figure of figures) figure.hidden = JSON.stringify(JSON.parse(figure.dataset.choices)) !== chosen;
  };
  selects.forEach((select) => select.addEventListener("change", show));
  if (selects.length) show();
}
