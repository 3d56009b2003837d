// Joins the viewer, its controls and the charts to the page.

const data = JSON.parse(document.getElementById("report-data").textContent);
const $ = (selector) => document.querySelector(selector);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// A radio button or check box that looks like a chip.
function chip(type, name, label, checked, onChange, color) {
  const input = element("input", { type, name, checked, value: label });
  input.addEventListener("change", () => onChange(input.checked));
  const parts = [input];
  if (color) parts.push(element("span", { class: "swatch", style: `background:${color}`, "aria-hidden": "true" }));
  return element("label", { class: "chip" }, ...parts, element("span", {}, label));
}

function setUpTheme() {
  const button = $("#theme");
  const choices = ["auto", "light", "dark"];
  let stored = null;
  try { stored = localStorage.getItem("dosemover-theme"); } catch { /* a page from file:// may have no storage */ }
  let current = choices.includes(stored) ? stored : "auto";
  const apply = () => {
    if (current === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = current;
    button.textContent = `Theme: ${current}`;
  };
  button.addEventListener("click", () => {
    current = choices[(choices.indexOf(current) + 1) % choices.length];
    try { localStorage.setItem("dosemover-theme", current); } catch { /* see above */ }
    apply();
  });
  apply();
}

function layerControls(viewer) {
  const host = $("#layers");
  for (const layer of viewer.layers) {
    const select = chip("radio", "layer", layer.label, layer === viewer.layer, () => {
      viewer.options.displacement_mm = layer.key === "change_percent" && "displacement_mm" in viewer.vectors;
      viewer.options.flow_mm = layer.key === "gain_loss_gy" && "flow_mm" in viewer.vectors;
      showOutlines(viewer, layer.key);
      viewer.show(layer.key);
      syncOptions(viewer);
    });
    select.querySelector("input").dataset.layer = layer.key;
    host.append(select);
  }
}

// A map comes with the outline of where it is more than noise.
function showOutlines(viewer, key) {
  for (const { key: mask } of viewer.outlines) if (mask !== "low_sampling_mask") viewer.options[mask] = false;
  const own = key === "difference_gy" || key === "z" || key.startsWith("gamma") ? "significant_mask" : REAL_MASKS[key];
  if (own && own in viewer.byKey) viewer.options[own] = true;
}

function optionControls(viewer) {
  const host = $("#overlays");
  const offer = (key, label, color) => {
    const box = chip("checkbox", key, label, Boolean(viewer.options[key]), (on) => viewer.set(key, on), color);
    box.querySelector("input").dataset.option = key;
    host.append(box);
  };
  offer("isodoses", "Isodoses, reference");
  offer("dashed", "Isodoses, evaluated (broken lines)");
  for (const [key, vectors] of Object.entries(viewer.vectors)) offer(key, `${vectors.label} arrows`);
  if (viewer.structures.length) offer("structures", "Structures");
  if (viewer.byKey.density) offer("density", "Density below");
  for (const layer of viewer.outlines) offer(layer.key, layer.label, OUTLINE_COLORS[layer.key]);
  if (viewer.byKey.significant_mask) offer("real", "Only where real");
  else if (viewer.byKey.z) offer("real", "Only where |z| ≥ 3");
  if (viewer.byKey.uncertainty_percent && !viewer.byKey.low_sampling_mask) offer("sampling", `Uncertainty ${viewer.lowSamplingPercent} % outlined`);
  offer("smooth", "Smooth");
  offer("whole", "Whole grid");
}

function syncOptions(viewer) {
  for (const box of document.querySelectorAll("#overlays input")) box.checked = Boolean(viewer.options[box.dataset.option]);
}

function drawColorBar(viewer) {
  const scale = viewer.scale;
  const canvas = $("#colorbar canvas");
  const context = canvas.getContext("2d");
  const image = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = scale.table[3 * i + c];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  const unit = viewer.layer.unit ? ` / ${prettyUnit(viewer.layer.unit)}` : "";
  const { factor, label } = scaledAxis(viewer.layer.label + unit, scale.limit);
  $("#colorbar .title").textContent = label;
  $("#colorbar .ticks").replaceChildren(...scale.ticks(factor).map(([at, text]) =>
    element("span", { style: `left:${100 * at}%`, class: at === 0 ? "first" : at === 1 ? "last" : "" }, text)));
}

function drawArrowKeys(viewer) {
  const keys = Object.entries(viewer.vectors).filter(([key]) => viewer.options[key]).map(([, vectors]) => {
    const size = viewer.arrowScale(vectors);
    if (!size) return element("p", {}, `${vectors.label}: none`);
    const length = niceStep(26 / size, 1);
    const pixels = length * size;
    const svg = svgElement("svg", { width: pixels + 8, height: 12, "aria-hidden": "true", class: "arrow-key" });
    svg.append(svgElement("path", { d: `M1 6H${pixels}M${pixels - 5} 2.5L${pixels} 6L${pixels - 5} 9.5` }));
    return element("p", {}, svg, ` ${vectors.label} of ${format(length, 2)} ${vectors.unit}`);
  });
  $("#arrow-keys").replaceChildren(...keys);
}

function fillReadout(viewer) {
  const { axes, voxel } = viewer;
  const place = ["x", "y", "z"].map((axis) => `${axis} ${format(axes.centers[axis][voxel[axis]], 4)}`).join(", ");
  $("#position").textContent = `${place} mm`;
  const rows = viewer.layers.concat(viewer.byKey.density || []).map((layer) => [
    layer.label, layer.at(voxel), prettyUnit(layer.unit), layer,
  ]);
  const lines = rows.map(([label, value, unit, layer]) => {
    const text = Number.isNaN(value) ? "not evaluated" : `${format(value)} ${unit}`.trim();
    return element("tr", { class: layer === viewer.layer ? "current" : "" },
      element("th", { scope: "row" }, label), element("td", { "data-value": layer.key }, text));
  });
  for (const vectors of Object.values(viewer.vectors)) {
    const at = {};
    for (const axis of "xyz") at[axis] = vectors.axes.find(axis, axes.centers[axis][voxel[axis]]);
    const v = ["x", "y", "z"].map((axis) => vectors.component(axis, at));
    const text = v.some(Number.isNaN) ? "little dose here"
      : `${format(Math.hypot(...v))} ${vectors.unit} (${v.map((c) => format(c, 2)).join(", ")})`;
    lines.push(element("tr", {}, element("th", { scope: "row" }, vectors.label), element("td", {}, text)));
  }
  $("#readout tbody").replaceChildren(...lines);
}

function setUpViewer() {
  const viewer = new Viewer(data, $("#planes"));
  if (!viewer.planes.length) return viewer;
  layerControls(viewer);
  optionControls(viewer);
  viewer.listeners.push(() => drawColorBar(viewer), () => drawArrowKeys(viewer), () => fillReadout(viewer));
  $("#window").addEventListener("input", (event) => {
    viewer.window = 10 ** Number(event.target.value);
    viewer.changed();
  });
  for (const mark of data.marks) {
    const button = element("button", { type: "button" }, mark.label);
    button.addEventListener("click", () => viewer.moveTo(mark));
    $("#marks").append(button);
  }
  if (viewer.options.isodoses) {
    $("#isodose-key").append(...data.isodoses.percent.map((p, i) =>
      element("span", {}, element("i", { style: `background:${ISODOSE_COLORS[i]}`, "aria-hidden": "true" }), `${p}`)),
    element("span", {}, `% of ${data.isodoses.name}, ${format(data.isodoses.of)} ${data.doseUnit}`));
  }
  return viewer;
}

function setUpProfiles(viewer) {
  const dose = `dose / ${data.doseUnit}`;
  if (data.line) {
    const { axis, x, reference, evaluated } = data.line;
    liveChart($("#profile-" + axis), () => ({
      series: [{ x, y: reference, className: "reference" }, { x, y: evaluated, className: "evaluated" }],
      xLabel: `${axis} / mm`, yLabel: dose, describe: `Both doses along ${axis}`, height: 320,
    }));
    return;
  }
  for (const axis of data.longAxes) {
    const draw = liveChart($("#profile-" + axis), () => {
      const x = viewer.axes.centers[axis];
      const across = ["x", "y", "z"].filter((other) => other !== axis && data.longAxes.includes(other));
      const where = across.map((other) => `${other} = ${format(viewer.axes.centers[other][viewer.voxel[other]], 4)} mm`);
      $(`#profile-${axis}-title`).textContent = `Along ${axis}` + (where.length ? ` at ${where.join(", ")}` : "");
      return {
        series: [
          { x, y: viewer.byKey.reference.line(axis, viewer.voxel), className: "reference" },
          { x, y: viewer.byKey.evaluated.line(axis, viewer.voxel), className: "evaluated" },
        ],
        xRange: [viewer.low(axis), viewer.high(axis)],
        marks: [x[viewer.voxel[axis]]], xLabel: `${axis} / mm`, yLabel: dose,
        describe: `Reference and evaluated dose along ${axis} through the crosshair`,
      };
    });
    viewer.listeners.push(draw);
  }
}

function setUpDvh(viewer) {
  if (!data.dvh.length) return;
  viewer.structureNames = data.dvh.map((curve) => curve.name);
  const shown = new Set(viewer.structureNames.slice(0, 8));
  viewer.shownStructures = shown;
  const draw = liveChart($("#dvh-chart"), () => ({
    series: data.dvh.filter((curve) => shown.has(curve.name)).flatMap((curve) => {
      const color = viewer.structureColor(curve.name, 0);
      return [
        { x: curve.x, y: curve.reference, color },
        { x: curve.x, y: curve.evaluated, color, className: "dashed" },
      ];
    }),
    xRange: [0, range(data.dvh.map((curve) => curve.x))[1]], yRange: [0, 102],
    xLabel: `dose / ${data.doseUnit}`, yLabel: "volume / %", height: 340,
    describe: "Dose-volume histograms: reference solid, evaluated dashed; the values are in the table below",
  }));
  for (const name of viewer.structureNames) {
    $("#dvh-structures").append(chip("checkbox", "structure", name, shown.has(name), (on) => {
      if (on) shown.add(name);
      else shown.delete(name);
      draw();
      viewer.changed();
    }, viewer.structureColor(name, 0)));
  }
}

function setUpStatistics() {
  const z = data.zHistogram;
  if (z) {
    liveChart($("#z-chart"), () => ({
      series: [{ x: z.x, y: z.normal, className: "normal" }],
      bars: z.density.map((y, i) => ({ x0: z.edges[i], x1: z.edges[i + 1], y })),
      xRange: [z.edges[0], z.edges[z.edges.length - 1]], yRange: [0, 1.08 * range([z.density, z.normal])[1]],
      xLabel: "difference / its standard uncertainty", yLabel: "share of voxels per unit", height: 300,
      describe: "Histogram of z beside the standard normal curve",
    }));
  }
  for (const profile of data.scaleProfiles) {
    const series = [{ x: profile.x, y: profile.value, className: "reference" }];
    for (const side of ["lower", "upper"]) if (profile[side]) series.push({ x: profile.x, y: profile[side], className: "bound" });
    if (profile.floor) series.push({ x: profile.x, y: profile.floor, className: "evaluated" });
    liveChart($(`#scale-${profile.key}`), () => ({
      series, xLog: true, xLabel: profile.xLabel, yLabel: profile.yLabel, height: 300,
      describe: `${profile.yLabel} over ${profile.xLabel}`,
    }));
  }
}

setUpTheme();
const viewer = setUpViewer();
setUpDvh(viewer);
setUpProfiles(viewer);
setUpStatistics();
if (data.marks.length) viewer.moveTo(data.marks[0]);
viewer.resize();
window.doseReport = { viewer, data };
