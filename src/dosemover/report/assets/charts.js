// Line charts as SVG: crisp in print, themed by the page's variables, redrawn when their width changes.

const SVG = "http://www.w3.org/2000/svg";

function svgElement(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function powerOfTen(power) {
  const raised = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  return `10${[...String(power)].map((digit) => raised[digit]).join("")}`;
}

// How an axis that ends at `top` reads: "dose / Gy", or in a power of ten of the unit where its numbers are too
// small or large to print ("dose / 10⁻¹² Gy"). Numbers are divided by `factor`.
function scaledAxis(label, top) {
  const [name, unit] = label.split(" / ");
  if (!unit || !(top > 0) || (top >= 1e-2 && top < 1e5)) return { factor: 1, label };
  const power = 3 * Math.floor(Math.log10(top) / 3);
  return { factor: 10 ** power, label: `${name} / ${powerOfTen(power)} ${unit}` };
}

// A number for people: three significant digits, no exponent for usual sizes.
function format(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    return `${mantissa} × ${powerOfTen(Number(power))}`.replace("-", "−");
  }
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(decimals, 8)).replace("-", "−");
}

function prettyUnit(unit) { return unit.replace("mm3", "mm³").replace("cm3", "cm³").replace("Gy2", "Gy²"); }

function niceStep(span, about) {
  const raw = span / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((step) => step >= raw * 0.999);
}

function linearTicks(low, high, about) {
  const step = niceStep(high - low || 1, about);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const m of [1, 3]) {
      const tick = m * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

// Smallest and largest finite number of several lists.
function range(lists) {
  let low = Infinity;
  let high = -Infinity;
  for (const list of lists) {
    for (const v of list) {
      if (v === null || Number.isNaN(v)) continue;
      if (v < low) low = v;
      if (v > high) high = v;
    }
  }
  return low <= high ? [low, high] : [0, 1];
}

// Draw `spec` into `host`.
// spec: {series: [{x, y, className, color, band}], bars, xLabel, yLabel, xLog, xRange, yRange, marks, describe}
function drawChart(host, spec) {
  const width = Math.max(240, host.clientWidth);
  const height = spec.height || 240;
  const svg = svgElement("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": spec.describe, class: "chart",
  });
  const [xLow, xHigh] = spec.xRange || range(spec.series.map((s) => s.x));
  const [low, high] = spec.yRange || range(spec.series.map((s) => s.y));
  const yLow = spec.yRange ? low : Math.min(0, low);
  const yHigh = spec.yRange ? high : high + 0.06 * (high - yLow || 1);
  const xScale = spec.xLog ? { factor: 1, label: spec.xLabel } : scaledAxis(spec.xLabel, xHigh);
  const yScale = scaledAxis(spec.yLabel, yHigh);
  const yTicks = linearTicks(yLow, yHigh, height / 50).map((tick) => [tick, tickText(tick / yScale.factor)]);
  const longest = Math.max(...yTicks.map(([, text]) => text.length));
  const pad = { left: Math.max(56, 34 + 7 * longest), right: 14, top: 12, bottom: 44 };
  const along = (v) => (spec.xLog ? Math.log10(v) : v);
  const sx = (v) => pad.left + ((along(v) - along(xLow)) / (along(xHigh) - along(xLow) || 1)) * (width - pad.left - pad.right);
  const sy = (v) => height - pad.bottom - ((v - yLow) / (yHigh - yLow || 1)) * (height - pad.top - pad.bottom);

  const xTicks = spec.xLog ? logTicks(xLow, xHigh) : linearTicks(xLow, xHigh, Math.max(3, width / 90));
  for (const tick of xTicks) {
    svg.append(svgElement("line", { x1: sx(tick), x2: sx(tick), y1: pad.top, y2: height - pad.bottom, class: "grid" }));
    svg.append(svgElement("text", { x: sx(tick), y: height - pad.bottom + 16, class: "tick middle" }, tickText(tick / xScale.factor)));
  }
  for (const [tick, text] of yTicks) {
    svg.append(svgElement("line", { x1: pad.left, x2: width - pad.right, y1: sy(tick), y2: sy(tick), class: "grid" }));
    svg.append(svgElement("text", { x: pad.left - 7, y: sy(tick) + 4, class: "tick end" }, text));
  }
  svg.append(svgElement("text", { x: (pad.left + width - pad.right) / 2, y: height - 8, class: "axis middle" }, xScale.label));
  const yText = svgElement("text", { class: "axis middle", transform: `translate(14 ${(pad.top + height - pad.bottom) / 2}) rotate(-90)` }, yScale.label);
  svg.append(yText);

  for (const bar of spec.bars || []) {
    const top = sy(bar.y);
    svg.append(svgElement("rect", {
      x: sx(bar.x0), width: Math.max(0, sx(bar.x1) - sx(bar.x0) - 0.5), y: top, height: Math.max(0, sy(0) - top), class: "bar",
    }));
  }
  for (const mark of spec.marks || []) {
    svg.append(svgElement("line", { x1: sx(mark), x2: sx(mark), y1: pad.top, y2: height - pad.bottom, class: "mark" }));
  }
  const inside = svgElement("g", { "clip-path": `url(#${clip(svg, pad, width, height)})` });
  for (const series of spec.series) inside.append(drawSeries(series, sx, sy));
  svg.append(inside);
  host.replaceChildren(svg);
}

let clips = 0;

// Name of a clip path that keeps curves between the axes, a line's width of slack included.
function clip(svg, pad, width, height) {
  const id = `plot-${++clips}`;
  const path = svgElement("clipPath", { id });
  path.append(svgElement("rect", {
    x: pad.left - 1, y: pad.top - 1, width: width - pad.left - pad.right + 2, height: height - pad.top - pad.bottom + 2,
  }));
  svg.append(path);
  return id;
}

function tickText(tick) { return String(Number(tick.toPrecision(6))).replace("-", "−"); }

function drawSeries(series, sx, sy) {
  let path = "";
  let pen = false;
  series.x.forEach((x, i) => {
    const y = series.y[i];
    if (y === null || Number.isNaN(y)) {
      pen = false;
      return;
    }
    path += `${pen ? "L" : "M"}${sx(x).toFixed(1)} ${sy(y).toFixed(1)}`;
    pen = true;
  });
  const attributes = { d: path || "M0 0", class: `line ${series.className || ""}` };
  if (series.color) attributes.style = `stroke:${series.color}`;
  return svgElement("path", attributes);
}

// Keep a chart drawn at the width of its place; `spec` is called for fresh data.
function liveChart(host, spec) {
  const draw = () => drawChart(host, spec());
  let width = 0;
  new ResizeObserver(() => {
    if (host.clientWidth !== width) {
      width = host.clientWidth;
      draw();
    }
  }).observe(host);
  draw();
  return draw;
}
