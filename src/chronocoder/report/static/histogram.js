"use strict";
// The histogram of a feature's activations: the same marks on the page, as SVG, and as PDF.

const histogram = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const [WIDTH, HEIGHT, LEFT, BOTTOM, FONT] = [640, 220, 56, 36, 12];
  const AXIS = HEIGHT - BOTTOM;
  const BLUE = "#0072b2";
  const BLUE_IN_PDF = "0 0.447 0.698 rg";

  // Bars [x, width, height, what it says] and texts [x, y, anchor, text]; y from the top.
  function marks(counts, lows, highs) {
    const filled = [...counts.keys()].filter((bin) => counts[bin]);
    const [first, last] = [filled[0], filled[filled.length - 1]];
    const bins = last - first + 1;
    const step = (WIDTH - LEFT) / bins;
    const most = Math.max(...counts);
    const bars = counts.slice(first, last + 1).map((count, place) => {
      const range = `${lows[first + place].toPrecision(3)} to ${highs[first + place].toPrecision(3)}`;
      return [LEFT + place * step, Math.max(step - 1, 0.5), (count * (AXIS - 10)) / most, `${count} tokens from ${range}`];
    });
    const ticks = [...new Set([0, Math.floor(bins / 3), Math.floor((2 * bins) / 3), bins])].map((place) => {
      const value = place < bins ? lows[first + place] : highs[last];
      return [LEFT + place * step, AXIS + 15, place === bins ? "end" : place ? "middle" : "start", value.toPrecision(2)];
    });
    const texts = [
      ...ticks,
      [LEFT - 6, 16, "end", String(most)],
      [LEFT - 6, AXIS, "end", "0"],
      [(LEFT + WIDTH) / 2, HEIGHT - 4, "middle", "activation (logarithmic)"],
    ];
    const peak = counts.indexOf(most);
    const [from, to, low, high] = [lows[first], highs[last], lows[peak], highs[peak]].map((value) => value.toPrecision(2));
    return { bars, texts, alt: `Histogram of activations above zero: from ${from} to ${to}, most often from ${low} to ${high}.` };
  }

  function made(tag, attributes, ...children) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function svg(...of) {
    const { bars, texts, alt } = marks(...of);
    const type = { "font-size": FONT, "font-family": "sans-serif", fill: "currentColor" };
    const parts = [
      ...bars.map(([x, width, height, said]) => made("rect", { x, y: AXIS - height, width, height, fill: BLUE }, made("title", {}, said))),
      made("line", { x1: LEFT, x2: WIDTH, y1: AXIS, y2: AXIS, stroke: "currentColor" }),
      ...texts.map(([x, y, anchor, text]) => made("text", { ...type, x, y, "text-anchor": anchor }, text)),
    ];
    return made("svg", { xmlns: SVG, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": alt, class: "histogram" }, ...parts);
  }

  function pdf(...of) {
    const { bars, texts } = marks(...of);
    const type = document.createElement("canvas").getContext("2d");
    type.font = `${FONT}px Helvetica, Arial, sans-serif`;
    const before = { start: 0, middle: 0.5, end: 1 };
    const content = [
      BLUE_IN_PDF,
      ...bars.map(([x, width, height]) => `${[x, BOTTOM, width, height].map((value) => value.toFixed(2)).join(" ")} re f`),
      `0 g ${LEFT} ${BOTTOM} m ${WIDTH} ${BOTTOM} l S`,
      ...texts.map(([x, y, anchor, text]) => {
        const left = x - before[anchor] * type.measureText(text).width;
        return `BT /F ${FONT} Tf ${left.toFixed(2)} ${HEIGHT - y} Td (${text.replace(/[()\\]/g, "\\$&")}) Tj ET`;
      }),
    ].join("\n");
    return pdfOf(content);
  }

  // A page of ASCII: lengths in characters are those in bytes.
  function pdfOf(content) {
    const objects = [
      "<< /Type /Catalog /Pages 2 0 R >>",
      "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
      `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 ${WIDTH} ${HEIGHT}] /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> >>`,
      `<< /Length ${content.length} >>\nstream\n${content}\nendstream`,
      "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ];
    let text = "%PDF-1.4\n";
    const entries = objects.map((object, place) => {
      const entry = `${String(text.length).padStart(10, "0")} 00000 n \n`;
      text += `${place + 1} 0 obj\n${object}\nendobj\n`;
      return entry;
    });
    const table = `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${entries.join("")}`;
    return `${text}${table}trailer\n<< /Size ${objects.length + 1} /Root 1 0 R >>\nstartxref\n${text.length}\n%%EOF\n`;
  }

  return { svg, pdf };
})();
