// Volumes as the page holds them: packed by volumes.py, unpacked when first looked at.

const NOT_A_NUMBER = 65535;

function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// A packed volume: differences of 16-bit codes, low bytes before high bytes, deflated. It is unpacked
// when first read, and stays in codes to spare memory; a value is low + code x step.
class Quantised {
  constructor(packed, n) {
    this.packed = packed;
    this.n = n;
  }

  get codes() {
    if (!this.unpacked) {
      const bytes = inflate(decodeBase64(this.packed.data), 2 * this.n);
      this.unpacked = new Uint16Array(this.n);
      for (let i = 0, code = 0; i < this.n; i++) {
        code = (code + bytes[i] + 256 * bytes[this.n + i]) & 0xffff;
        this.unpacked[i] = code;
      }
      this.packed = { low: this.packed.low, step: this.packed.step };
    }
    return this.unpacked;
  }

  at(index) {
    const code = this.codes[index];
    return code === NOT_A_NUMBER ? NaN : this.packed.low + code * this.packed.step;
  }
}

// Voxel boundaries along x, y, z [mm], and where in the voxels the values hold.
class Axes {
  constructor({ edges, centers }) {
    this.edges = edges;
    this.centers = centers;
    this.n = { x: centers.x.length, y: centers.y.length, z: centers.z.length };
    this.size = this.n.x * this.n.y * this.n.z;
    this.stride = { x: 1, y: this.n.x, z: this.n.x * this.n.y };
  }

  // Voxel that holds a position [mm], the nearest one outside.
  find(axis, mm) {
    const e = this.edges[axis];
    let low = 0;
    let high = this.n[axis];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (e[middle] <= mm) low = middle;
      else high = middle;
    }
    return low;
  }

  pitch(axis) { return (this.edges[axis][this.n[axis]] - this.edges[axis][0]) / this.n[axis]; }
  index(voxel) { return voxel.x + this.n.x * (voxel.y + this.n.y * voxel.z); }
}

// A scalar map on the axes of the page.
class Layer {
  constructor(packed, axes) {
    Object.assign(this, { key: packed.key, label: packed.label, unit: packed.unit, kind: packed.kind });
    Object.assign(this, { limit: packed.limit, axes, volume: new Quantised(packed, axes.size) });
  }

  at(voxel) { return this.volume.at(this.axes.index(voxel)); }

  // Values along one axis through a voxel.
  line(axis, voxel) {
    const start = this.axes.index({ ...voxel, [axis]: 0 });
    const stride = this.axes.stride[axis];
    return Array.from({ length: this.axes.n[axis] }, (_, i) => this.volume.at(start + i * stride));
  }

  // One slice, rows along v and columns along u.
  slice(u, v, normal, index) {
    const nu = this.axes.n[u];
    const nv = this.axes.n[v];
    const start = index * this.axes.stride[normal];
    const values = new Float32Array(nu * nv);
    for (let j = 0, k = 0; j < nv; j++) {
      for (let i = 0; i < nu; i++, k++) {
        values[k] = this.volume.at(start + i * this.axes.stride[u] + j * this.axes.stride[v]);
      }
    }
    return values;
  }
}

// A vector map on coarser axes of its own: one arrow per voxel.
class VectorLayer {
  constructor(packed) {
    this.label = packed.label;
    this.unit = packed.unit;
    this.typical = packed.typical;
    this.axes = new Axes(packed.axes);
    this.parts = Object.fromEntries([..."xyz"].map((axis) => [axis, new Quantised(packed[axis], this.axes.size)]));
  }

  component(axis, voxel) { return this.parts[axis].at(this.axes.index(voxel)); }
}

// Line segments of a contour at `level` through the values at the voxel centres of a slice.
function contour(values, xs, ys, level) {
  const segments = [];
  const nx = xs.length;
  for (let j = 0; j + 1 < ys.length; j++) {
    for (let i = 0; i + 1 < nx; i++) {
      const k = j * nx + i;
      const corners = [values[k], values[k + 1], values[k + nx + 1], values[k + nx]];
      let inside = 0;
      for (let c = 0; c < 4; c++) if (corners[c] > level) inside |= 1 << c;
      if (inside === 0 || inside === 15 || corners.some(Number.isNaN)) continue;
      const px = [xs[i], xs[i + 1], xs[i + 1], xs[i]];
      const py = [ys[j], ys[j], ys[j + 1], ys[j + 1]];
      const crossings = [];
      for (let c = 0; c < 4; c++) {
        const d = (c + 1) & 3;
        if (((inside >> c) & 1) === ((inside >> d) & 1)) continue;
        const t = (level - corners[c]) / (corners[d] - corners[c]);
        crossings.push([px[c] + t * (px[d] - px[c]), py[c] + t * (py[d] - py[c])]);
      }
      for (let c = 0; c + 1 < crossings.length; c += 2) segments.push([crossings[c], crossings[c + 1]]);
    }
  }
  return segments;
}

// Segments joined end to end into lines of points; a closed line ends where it starts.
function joined(segments) {
  const name = (point) => `${point[0].toFixed(3)},${point[1].toFixed(3)}`;
  const touching = new Map();
  segments.forEach((segment, i) => {
    for (const point of segment) {
      const here = touching.get(name(point));
      if (here) here.push(i);
      else touching.set(name(point), [i]);
    }
  });
  const used = new Uint8Array(segments.length);
  const extend = (line) => {
    for (;;) {
      const end = name(line[line.length - 1]);
      const next = touching.get(end).find((i) => !used[i]);
      if (next === undefined) return line;
      used[next] = 1;
      const [from, to] = segments[next];
      line.push(name(from) === end ? to : from);
    }
  };
  const lines = [];
  segments.forEach((segment, i) => {
    if (used[i]) return;
    used[i] = 1;
    const forward = extend([...segment]);
    lines.push(extend(forward.reverse()));
  });
  return lines;
}

// Area inside a closed line; for one that leaves the slice, that of a square with three sides as long.
function enclosed(line) {
  const [first, last] = [line[0], line[line.length - 1]];
  if (Math.hypot(first[0] - last[0], first[1] - last[1]) > 1e-3) {
    let length = 0;
    for (let i = 1; i < line.length; i++) length += Math.hypot(line[i][0] - line[i - 1][0], line[i][1] - line[i - 1][1]);
    return (length / 3) ** 2;
  }
  let twice = 0;
  for (let i = 1; i < line.length; i++) twice += line[i - 1][0] * line[i][1] - line[i][0] * line[i - 1][1];
  return Math.abs(twice) / 2;
}
