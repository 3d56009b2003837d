// Linked slices in up to three orthogonal planes with one crosshair.

const PLANES = {
  axial: { u: "x", v: "y", normal: "z", up: false, sides: ["R", "L", "A", "P"] },
  coronal: { u: "x", v: "z", normal: "y", up: true, sides: ["R", "L", "S", "I"] },
  sagittal: { u: "y", v: "z", normal: "x", up: true, sides: ["A", "P", "S", "I"] },
};
const ISODOSE_COLORS = ["#5cc8ff", "#6fa8ff", "#7ee787", "#ffe066", "#ffa94d", "#ff6b81"];
const STRUCTURE_COLORS = ["#3b82f6", "#e8590c", "#2f9e44", "#c2255c", "#7048e8", "#0c8599", "#b08900", "#868e96"];
const NOT_EVALUATED = [34, 38, 46];
const REAL_Z = 3;
// Regions that are drawn around, and the masks that say where a map is more than noise.
const OUTLINE_COLORS = {
  low_sampling_mask: "#ffffff", significant_mask: "#ffd43b", displacement_significant_mask: "#63e6be",
  change_significant_mask: "#ff8cc6", dmd_index_significant_mask: "#ffa94d", gain_loss_significant_mask: "#a5d8ff",
};
const REAL_MASKS = {
  change_percent: "change_significant_mask", dmd_index_mm: "dmd_index_significant_mask",
  gain_loss_gy: "gain_loss_significant_mask", displacement_mm: "displacement_significant_mask",
  flow_mm: "gain_loss_significant_mask",
};
const DASH = [5, 3.5];
const MAX_HEIGHT = 540; // of a plane, in CSS pixels

function clamp(value, low, high) { return Math.min(high, Math.max(low, value)); }

// 256 colours from base64 triples.
function colorTable(text) { return decodeBase64(text); }

// What colours a layer's values: a table, and the position of a value in it from 0 to 1.
class ColorScale {
  constructor(layer, tables, window) {
    this.kind = layer.kind;
    this.limit = layer.limit * window;
    this.table = tables[{ gamma: "gamma", diverging: "diverging", dose: "dose" }[layer.kind] || "sequential"];
  }

  position(value) {
    if (this.kind === "diverging") return clamp((value / this.limit + 1) / 2, 0, 1);
    if (this.kind !== "gamma") return clamp(value / this.limit, 0, 1);
    // The gamma table breaks at 1, half-way; beyond lies one more unit, stretched by the window.
    return value <= 1 ? clamp(value / 2, 0, 0.4999) : clamp(0.5 + (value - 1) / (2 * (this.limit - 1 || 1)), 0.5, 1);
  }

  // How strongly the colour covers a density image below it.
  cover(value) {
    if (this.kind === "diverging") return clamp(Math.abs(value) / (0.4 * this.limit), 0, 0.9);
    if (this.kind === "dose") return clamp(value / (0.08 * this.limit), 0, 0.9);
    return 1;
  }

  // Places on the colour bar and what stands there, in units of `factor`.
  ticks(factor) {
    if (this.kind === "gamma") return [[0, "0"], [0.25, "0.5"], [0.5, "1"], [1, `≥ ${format(this.limit, 2)}`]];
    if (this.kind === "diverging") {
      const end = format(this.limit / factor, 2);
      return [[0, `≤ −${end}`], [0.5, "0"], [1, `≥ +${end}`]];
    }
    const end = format(this.limit / factor, 2);
    return [[0, "0"], [0.5, format(this.limit / factor / 2, 2)], [1, this.kind === "dose" ? end : `≥ ${end}`]];
  }
}

// Nearest voxel, lower neighbour and weight of the upper one for every pixel of the view along an axis.
function pixelMap(viewer, axis, pixels, flipped) {
  const { axes } = viewer;
  const nearest = new Int32Array(pixels);
  const lower = new Int32Array(pixels);
  const weight = new Float32Array(pixels);
  const centers = axes.centers[axis];
  for (let p = 0; p < pixels; p++) {
    const share = (p + 0.5) / pixels;
    const mm = viewer.low(axis) + viewer.extent(axis) * (flipped ? 1 - share : share);
    const i = axes.find(axis, mm);
    nearest[p] = i;
    const below = clamp(mm < centers[i] ? i - 1 : i, 0, Math.max(0, centers.length - 2));
    lower[p] = below;
    weight[p] = centers.length > 1 ? clamp((mm - centers[below]) / (centers[below + 1] - centers[below]), 0, 1) : 0;
  }
  return { nearest, lower, weight };
}

class PlaneView {
  constructor(viewer, figure, name) {
    Object.assign(this, { viewer, figure, name, ...PLANES[name] });
    this.canvas = figure.querySelector("canvas");
    this.slider = figure.querySelector("input[type=range]");
    this.label = figure.querySelector("output");
    this.slider.max = viewer.axes.n[this.normal] - 1;
    this.slider.disabled = viewer.axes.n[this.normal] < 2;
    this.slider.addEventListener("input", () => viewer.move({ [this.normal]: Number(this.slider.value) }));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1 && event.pointerType !== "touch") this.point(event);
    });
  }

  resize(scale) {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.scale = scale; // CSS pixels per mm
    this.width = Math.max(8, Math.round(this.viewer.extent(this.u) * scale));
    this.height = Math.max(8, Math.round(this.viewer.extent(this.v) * scale));
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.ratio = this.canvas.width / this.width;
    const frame = `${Math.max(this.width, 200)}px`;
    this.slider.parentElement.style.maxWidth = frame;
    this.figure.querySelector("figcaption").style.maxWidth = frame;
    this.columns = pixelMap(this.viewer, this.u, this.canvas.width, false);
    this.rows = pixelMap(this.viewer, this.v, this.canvas.height, this.up);
  }

  toX(mm) { return (mm - this.viewer.low(this.u)) * (this.width / this.viewer.extent(this.u)); }

  toY(mm) {
    const down = (mm - this.viewer.low(this.v)) * (this.height / this.viewer.extent(this.v));
    return this.up ? this.height - down : down;
  }

  key(event) {
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
    const voxel = this.viewer.voxel;
    let change = null;
    if (event.shiftKey && event.key.startsWith("Arrow")) {
      const axis = event.key === "ArrowLeft" || event.key === "ArrowRight" ? this.u : this.v;
      const sign = axis === this.u || this.up ? 1 : -1;
      change = { [axis]: voxel[axis] + sign * steps[event.key] };
    } else if (event.key in steps) change = { [this.normal]: voxel[this.normal] + steps[event.key] };
    else if (event.key === "Home") change = { [this.normal]: 0 };
    else if (event.key === "End") change = { [this.normal]: this.viewer.axes.n[this.normal] - 1 };
    if (!change) return;
    event.preventDefault();
    this.viewer.move(change);
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const { viewer } = this;
    const across = clamp((event.clientX - box.left) / box.width, 0, 1);
    const down = clamp((event.clientY - box.top) / box.height, 0, 1);
    viewer.move({
      [this.u]: viewer.voxelAt(this.u, across),
      [this.v]: viewer.voxelAt(this.v, this.up ? 1 - down : down),
    });
  }

  slice(layer) { return layer.slice(this.u, this.v, this.normal, this.viewer.voxel[this.normal]); }

  draw() {
    const { viewer, normal } = this;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.putImageData(this.image(context), 0, 0);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    if (viewer.options.structures) this.drawStructures(context);
    const labels = viewer.options.isodoses ? this.drawIsodoses(context, viewer.byKey.reference, false) : [];
    if (viewer.options.dashed) this.drawIsodoses(context, viewer.byKey.evaluated, true);
    if (viewer.options.sampling) this.drawSampling(context);
    for (const layer of viewer.outlines) if (viewer.options[layer.key]) this.drawOutline(context, layer);
    for (const [key, vectors] of Object.entries(viewer.vectors)) {
      if (viewer.options[key]) this.drawArrows(context, key, vectors);
    }
    this.drawCrosshair(context);
    this.drawIsodoseLabels(context, labels);
    this.drawFrame(context);
    const mm = viewer.axes.centers[normal][viewer.voxel[normal]];
    this.slider.value = viewer.voxel[normal];
    this.label.textContent = `${normal} = ${format(mm, 4)} mm`;
    this.slider.setAttribute("aria-valuetext", this.label.textContent);
    const title = this.name[0].toUpperCase() + this.name.slice(1);
    this.canvas.setAttribute("aria-label",
      `${title} slice of ${viewer.layer.label} at ${this.label.textContent}. Arrow keys and Page keys move the slice.`);
  }

  // Pixels of the chosen layer, over the density where that is shown.
  image(context) {
    const { viewer } = this;
    const { width, height } = this.canvas;
    const image = context.createImageData(width, height);
    const pixels = image.data;
    const values = this.slice(viewer.layer);
    const density = viewer.options.density ? this.slice(viewer.byKey.density) : null;
    const real = viewer.options.real ? this.realPixels() : null;
    const grayOf = density ? 105 / viewer.byKey.density.limit : 0;
    const scale = viewer.scale;
    const nu = viewer.axes.n[this.u];
    const smooth = viewer.options.smooth;
    const stepU = nu > 1 ? 1 : 0;
    const stepV = viewer.axes.n[this.v] > 1 ? nu : 0;
    for (let row = 0, out = 0; row < height; row++) {
      const base = this.rows.lower[row] * nu;
      const near = this.rows.nearest[row] * nu;
      const wv = this.rows.weight[row];
      for (let column = 0; column < width; column++, out += 4) {
        const k = near + this.columns.nearest[column];
        let value = values[k];
        if (smooth) {
          const c = base + this.columns.lower[column];
          const wu = this.columns.weight[column];
          const low = values[c] + wu * (values[c + stepU] - values[c]);
          const high = values[c + stepV] + wu * (values[c + stepV + stepU] - values[c + stepV]);
          const mixed = low + wv * (high - low);
          if (mixed === mixed) value = mixed; // not NaN
        }
        const gray = density ? Math.min(150, density[k] * grayOf) : 0;
        let cover = density ? 0 : 1;
        let color = NOT_EVALUATED;
        let at = 0;
        if (value === value) {
          color = scale.table;
          at = 3 * Math.min(255, Math.floor(256 * scale.position(value)));
          if (density) cover = scale.cover(value);
        }
        if (real && !real[k]) {
          cover *= density ? 0.15 : 1;
          const fade = density ? 1 : 0.18;
          pixels[out] = gray + cover * (fade * color[at] + (1 - fade) * 26 - gray);
          pixels[out + 1] = gray + cover * (fade * color[at + 1] + (1 - fade) * 28 - gray);
          pixels[out + 2] = gray + cover * (fade * color[at + 2] + (1 - fade) * 33 - gray);
        } else {
          pixels[out] = gray + cover * (color[at] - gray);
          pixels[out + 1] = gray + cover * (color[at + 1] - gray);
          pixels[out + 2] = gray + cover * (color[at + 2] - gray);
        }
        pixels[out + 3] = 255;
      }
    }
    return image;
  }

  // Whether the map shown is more than noise, voxel by voxel: by its own mask, that of the difference, or z.
  realPixels() {
    const mask = this.viewer.realMask(this.viewer.layer.key);
    return mask ? this.slice(mask).map((v) => v >= 0.5) : this.slice(this.viewer.byKey.z).map((z) => Math.abs(z) >= REAL_Z);
  }

  lines(layer, level) {
    const { axes } = this.viewer;
    return joined(contour(this.slice(layer), axes.centers[this.u], axes.centers[this.v], level));
  }

  // Lines without those that go around less than a few voxels of the slice.
  large(lines) {
    const { axes, outlineVoxels } = this.viewer;
    const least = outlineVoxels * axes.pitch(this.u) * axes.pitch(this.v);
    return lines.filter((line) => enclosed(line) >= least);
  }

  stroke(context, lines, color, width, dash = []) {
    context.beginPath();
    for (const line of lines) {
      line.forEach(([u, v], i) => context[i ? "lineTo" : "moveTo"](this.toX(u), this.toY(v)));
    }
    context.lineCap = dash.length ? "butt" : "round";
    context.lineJoin = "round";
    context.strokeStyle = color;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
  }

  drawIsodoses(context, layer, broken) {
    const { percent, of } = this.viewer.isodoses;
    const labels = [];
    percent.forEach((p, i) => {
      const lines = this.lines(layer, (p / 100) * of);
      if (!lines.length) return;
      if (!broken) this.stroke(context, lines, "rgba(0,0,0,.55)", 2.6);
      this.stroke(context, lines, ISODOSE_COLORS[i], 1.3, broken ? DASH : []);
      labels.push([p, lines.flat(), ISODOSE_COLORS[i]]);
    });
    return labels;
  }

  // The percentage once on each line: each level's in a direction of its own, none on top of another.
  drawIsodoseLabels(context, labels) {
    const taken = [];
    context.font = "600 10.5px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    labels.forEach(([percent, points, color], i) => {
      const angle = (40 * i - 100) * (Math.PI / 180);
      const outward = ([x, y]) => x * Math.cos(angle) + y * Math.sin(angle);
      const places = points
        .map(([u, v]) => [this.toX(u), this.toY(v)])
        .filter(([x, y]) => x > 24 && x < this.width - 24 && y > 26 && y < this.height - 32)
        .sort((a, b) => outward(b) - outward(a));
      const place = places.find(([x, y]) => taken.every(([a, b]) => Math.abs(a - x) > 24 || Math.abs(b - y) > 13));
      if (!place) return;
      taken.push(place);
      this.text(context, String(percent), place[0], place[1], color);
    });
  }

  text(context, text, x, y, color) {
    context.lineJoin = "round";
    context.lineWidth = 3;
    context.strokeStyle = "rgba(0,0,0,.75)";
    context.strokeText(text, x, y);
    context.fillStyle = color;
    context.fillText(text, x, y);
  }

  drawStructures(context) {
    this.viewer.structures.forEach((layer, i) => {
      if (!this.viewer.shownStructures.has(layer.label)) return;
      const lines = this.lines(layer, 0.5);
      this.stroke(context, lines, "rgba(255,255,255,.75)", 2.6);
      this.stroke(context, lines, this.viewer.structureColor(layer.label, i), 1.5);
    });
  }

  drawSampling(context) {
    const lines = this.large(this.lines(this.viewer.byKey.uncertainty_percent, this.viewer.lowSamplingPercent));
    this.stroke(context, lines, "rgba(0,0,0,.6)", 2.6);
    this.stroke(context, lines, "#ffffff", 1.2, DASH);
  }

  // Poor sampling in broken lines, what is real in full ones.
  drawOutline(context, layer) {
    const poor = layer.key === "low_sampling_mask";
    const lines = poor ? this.large(this.lines(layer, 0.5)) : this.lines(layer, 0.5);
    this.stroke(context, lines, "rgba(0,0,0,.6)", 2.8);
    this.stroke(context, lines, OUTLINE_COLORS[layer.key], 1.4, poor ? DASH : []);
  }

  drawArrows(context, key, vectors) {
    const { axes } = vectors;
    const { viewer } = this;
    const mm = viewer.axes.centers[this.normal][viewer.voxel[this.normal]];
    const at = axes.find(this.normal, mm);
    const size = viewer.arrowScale(vectors);
    const strideOf = (axis) => Math.max(1, Math.round(27 / (axes.pitch(axis) * this.scale)));
    const [su, sv] = [strideOf(this.u), strideOf(this.v)];
    const arrows = [];
    const mask = viewer.options.real ? viewer.realMask(key) : null;
    for (let j = sv >> 1; j < axes.n[this.v]; j += sv) {
      for (let i = su >> 1; i < axes.n[this.u]; i += su) {
        const voxel = { [this.u]: i, [this.v]: j, [this.normal]: at };
        const [du, dv] = [vectors.component(this.u, voxel), vectors.component(this.v, voxel)];
        if (Number.isNaN(du) || Number.isNaN(dv)) continue;
        if (mask && mask.at(viewer.voxelNear(axes, voxel)) < 0.5) continue;
        const x = this.toX(axes.centers[this.u][i]);
        const y = this.toY(axes.centers[this.v][j]);
        arrows.push([x, y, x + du * size, y + (this.up ? -1 : 1) * dv * size]);
      }
    }
    for (const [color, width] of [["rgba(0,0,0,.7)", 3.4], ["#ffffff", 1.4]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.lineCap = "round";
      context.beginPath();
      for (const arrow of arrows) arrowPath(context, ...arrow);
      context.stroke();
    }
  }

  drawCrosshair(context) {
    const { axes, voxel } = this.viewer;
    const x = this.toX(axes.centers[this.u][voxel[this.u]]);
    const y = this.toY(axes.centers[this.v][voxel[this.v]]);
    const gap = 7;
    for (const [color, width] of [["rgba(0,0,0,.5)", 3], ["rgba(255,255,255,.8)", 1]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(0, y);
      context.lineTo(x - gap, y);
      context.moveTo(x + gap, y);
      context.lineTo(this.width, y);
      context.moveTo(x, 0);
      context.lineTo(x, y - gap);
      context.moveTo(x, y + gap);
      context.lineTo(x, this.height);
      context.stroke();
    }
  }

  // Sides of the patient and a scale bar.
  drawFrame(context) {
    const [left, right, top, bottom] = this.sides;
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    const gray = "#c9d1d9";
    this.text(context, left, 9, this.height / 2 - 12, gray);
    this.text(context, right, this.width - 9, this.height / 2 - 12, gray);
    this.text(context, top, this.width / 2 + 12, 10, gray);
    this.text(context, bottom, this.width / 2 + 12, this.height - 10, gray);
    const length = niceStep(this.width / this.scale / 4, 1);
    const pixels = length * this.scale;
    if (pixels > this.width / 2 || this.height < 60) return;
    for (const [color, width] of [["rgba(0,0,0,.7)", 4], [gray, 2]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(10, this.height - 10);
      context.lineTo(10 + pixels, this.height - 10);
      context.stroke();
    }
    context.textAlign = "left";
    this.text(context, `${length} mm`, 10, this.height - 20, gray);
  }
}

function arrowPath(context, x0, y0, x1, y1) {
  const length = Math.hypot(x1 - x0, y1 - y0);
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  if (length < 2.5) return;
  const head = Math.min(5, 0.45 * length);
  const angle = Math.atan2(y1 - y0, x1 - x0);
  for (const side of [-1, 1]) {
    context.moveTo(x1, y1);
    context.lineTo(x1 - head * Math.cos(angle + side * 0.5), y1 - head * Math.sin(angle + side * 0.5));
  }
}

// State of the viewer: layers, crosshair, options; every change redraws all planes.
class Viewer {
  constructor(data, root) {
    this.root = root;
    this.axes = new Axes(data.volumes.axes);
    this.isodoses = data.isodoses;
    this.lowSamplingPercent = data.lowSamplingPercent;
    this.outlineVoxels = data.outlineVoxels;
    const layers = data.volumes.layers.map((packed) => new Layer(packed, this.axes));
    this.byKey = Object.fromEntries(layers.map((layer) => [layer.key, layer]));
    this.structures = layers.filter((layer) => layer.kind === "mask");
    this.outlines = layers.filter((layer) => layer.kind === "outline");
    this.layers = layers.filter((layer) => !["mask", "density", "outline"].includes(layer.kind));
    this.vectors = Object.fromEntries(
      Object.entries(data.volumes.vectors).map(([key, packed]) => [key, new VectorLayer(packed)]),
    );
    this.tables = Object.fromEntries(Object.entries(data.colormaps).map(([name, text]) => [name, colorTable(text)]));
    this.box = data.box;
    this.options = { smooth: true, whole: false, isodoses: true, density: "density" in this.byKey };
    this.options.low_sampling_mask = "low_sampling_mask" in this.byKey;
    this.shownStructures = new Set();
    this.window = 1;
    this.listeners = [];
    this.voxel = { x: 0, y: 0, z: 0 };
    this.layer = this.byKey.reference;
    this.planes = Array.from(document.querySelectorAll("[data-plane]"))
      .map((figure) => new PlaneView(this, figure, figure.dataset.plane));
    this.pending = false;
    if (root) new ResizeObserver(() => this.resize()).observe(root); // a 1-D map has no slices
  }

  // The mask of where a map is more than noise; that of the difference for maps without one of their own.
  realMask(key) { return this.byKey[REAL_MASKS[key]] || this.byKey.significant_mask || null; }

  // The voxel of the page in which a voxel of other axes has its centre.
  voxelNear(axes, voxel) {
    return Object.fromEntries(["x", "y", "z"].map((a) => [a, this.axes.find(a, axes.centers[a][voxel[a]])]));
  }

  get scale() { return new ColorScale(this.layer, this.tables, this.window); }

  structureColor(name, index) {
    const position = this.structureNames ? this.structureNames.indexOf(name) : index;
    return STRUCTURE_COLORS[(position < 0 ? index : position) % STRUCTURE_COLORS.length];
  }

  // Pixels per mm of movement: a typical arrow is 22 pixels long.
  arrowScale(vectors) { return vectors.typical > 0 ? 22 / vectors.typical : 0; }

  // The part of the grid in view: the box that holds the dose, or all of it.
  low(axis) { return this.options.whole ? this.axes.edges[axis][0] : this.box[axis][0]; }
  high(axis) { return this.options.whole ? this.axes.edges[axis][this.axes.n[axis]] : this.box[axis][1]; }
  extent(axis) { return this.high(axis) - this.low(axis); }
  voxelAt(axis, share) { return this.axes.find(axis, this.low(axis) + share * this.extent(axis)); }

  // One scale in mm for all planes, so that they can be compared.
  resize() {
    const width = this.root ? this.root.clientWidth : 0;
    if (!width || (width === this.lastWidth && this.options.whole === this.lastWhole)) return;
    this.lastWidth = width;
    this.lastWhole = this.options.whole;
    const scales = this.planes.flatMap((plane) => [
      plane.figure.clientWidth / this.extent(plane.u),
      MAX_HEIGHT / this.extent(plane.v),
    ]);
    const scale = Math.min(...scales);
    for (const plane of this.planes) plane.resize(scale);
    this.draw();
  }

  move(change) {
    for (const [axis, index] of Object.entries(change)) {
      this.voxel[axis] = clamp(Math.round(index), 0, this.axes.n[axis] - 1);
    }
    this.changed();
  }

  moveTo(point) {
    this.move({ x: this.axes.find("x", point.x), y: this.axes.find("y", point.y), z: this.axes.find("z", point.z) });
  }

  show(key) {
    this.layer = this.byKey[key];
    this.changed();
  }

  set(option, value) {
    this.options[option] = value;
    this.resize();
    this.changed();
  }

  // Redraw once per frame, however many changes there were.
  changed() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }

  draw() {
    if (this.lastWidth) for (const plane of this.planes) plane.draw();
    for (const listener of this.listeners) listener();
  }
}
