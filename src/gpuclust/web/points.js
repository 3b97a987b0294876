/*
 * A map of every row, drawn with WebGL2. One module without dependencies: the explorer serves it, and an HTML file can contain it
 * (put the text of this file and your own call of `mount` into one `<script type="module">`).
 *
 *   const map = mount(element, { x, y, cluster, ...columns }, options);
 *
 * data     `x`, `y` and optionally `z`: coordinates; `cluster`: integers, -1 for noise. Any other key is a column of the same length:
 *          numbers (NaN is missing), or texts. A column is an array, a typed array, or a function that returns one or its promise and
 *          is called when the column is first needed. Texts with at most 200 different values are categories; `title` and other
 *          texts are shown for a row only.
 * options  all optional:
 *   clusters    [{ id, name, color }]: names and `#rrggbb` colours of the clusters, in the order of their priority
 *   columns     { name: { label, kind: "number" | "category" | "text", names, colors } }: a category's values are indices into
 *               `names`; needed for columns that are functions, optional for the others. `x`, `y`, `z` can have a `label` too, and a
 *               `share` of the variance in [0, 1].
 *   histograms  names of columns whose filters are shown first
 *   describe    (row) => { title, lines: [text] } or a promise of it: what the card under the pointer says
 *   onPick      (row) => void: a row was clicked
 *   onSelect    (Uint32Array of rows or null) => void: a box or a lasso was drawn (null: removed), or the rows shown were asked for
 *   url         "query" | "hash" | null: where the state of the map is kept in the address
 *   height      of the map in pixels (default 560)
 *   renderer    "webgl" | "cpu": by default WebGL2, and a loop over the points where the browser has none or renders it in software
 *   listLabel   text of the button that passes the rows shown to `onSelect`; without it there is no button
 *
 * The result has `state()` and `restore(text)` (the state as a query string), `rows()` (rows that pass the filters and the selection),
 * `locate(row)` (its position in the window in pixels), `settled()` (a promise: everything is drawn), `stats()` and `destroy()`.
 * All texts are set as text, never as markup.
 */

const LEGEND = 12; // categories with a colour of their own in the legend; the rest is "others"
const OTHER = "#8a8f98", NOISE = "#b8b8b8";
const COLORS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8F7EE5", "#7A4419", "#B5BD61", "#AA3377", "#44AA99", "#EE6677"];
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"].map(rgb);
const BINS = 40, REST_MS = 140, MAX_FILTERS = 12, SELECTED = 1 << 14, DRAWABLE = 1 << 15, ALL = 0xffff;
const MAX_LABELS = 40, REACH = 9; // pixels around the pointer in which a point is found
const EDGE = 8; // pixels around the picture
const TURN = 45, TILT = 25, DISTANCE = 5; // of the camera: degrees, and from the centre of the cube of side 2

const VERTEX = `#version 300 es
layout(location=0) in vec3 position; layout(location=1) in vec4 tint;
uniform mat4 matrix; uniform float size, deep;
flat out vec4 color; flat out float width;
void main() {
  gl_Position = matrix * vec4(position, 1.);
  float near = deep > 0. ? clamp(1.9 - 0.9 * (gl_Position.w / deep), 0.5, 1.6) : 1.;
  width = max(1., size * near);
  gl_PointSize = width;
  float weight = tint.a * near;
  color = vec4(tint.rgb * weight, weight);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
flat in vec4 color; flat in float width; out vec4 sum;
void main() {
  float cover = 1.;
  if (width > 1.6) { cover = clamp((1. - length(gl_PointCoord * 2. - 1.)) * width * .5 + .35, 0., 1.); if (cover <= 0.) discard; }
  sum = color * cover;
}`;
const SCREEN_VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4. - 1., 0., 1.); }`;
const SCREEN_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D sums; uniform float gain, top, base; out vec4 paint;
void main() {
  vec4 s = texelFetch(sums, ivec2(gl_FragCoord.xy), 0);
  if (s.a <= 0.) { paint = vec4(0.); return; }
  float alpha = min(1., s.a) * min(1., base + (1. - base) * log(1. + s.a * gain) / log(1. + top));
  paint = vec4(s.rgb / s.a * alpha, alpha);
}`;

const CSS = `
.gm { font-size: 14px; line-height: 1.4; font-family: inherit; color: inherit; display: grid; gap: 10px; position: relative; container-type: inline-size; min-width: 0 }
.gm * { box-sizing: border-box }
.gm :is(button, select, input) { font: inherit; font-size: 13px; color: inherit; background: color-mix(in srgb, currentColor 6%, transparent);
  border: 1px solid color-mix(in srgb, currentColor 28%, transparent); border-radius: 6px; min-height: 32px; padding: 2px 9px; max-width: 100% }
.gm select option { color: #111; background: #fff }
.gm button { cursor: pointer; white-space: nowrap }
.gm button:hover { background: color-mix(in srgb, currentColor 13%, transparent) }
.gm button[aria-pressed=true] { background: color-mix(in srgb, #0072b2 26%, transparent); border-color: #56b4e9 }
.gm :focus-visible { outline: 3px solid #56b4e9; outline-offset: 1px }
.gm-bar { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: end }
.gm-bar > span { display: flex; gap: 4px }
.gm label { display: grid; gap: 2px; font-size: 12px; min-width: 0 }
.gm label select { width: 168px }
.gm-main { display: grid; gap: 12px; min-width: 0 }
@container (min-width: 860px) { .gm-main { grid-template-columns: minmax(0, 1fr) 264px } .gm-side { max-height: var(--gm-height); overflow: auto } }
@container (max-width: 520px) { .gm label select { width: 100% } .gm-bar > label { flex: 1 1 40% } .gm button { min-height: 38px } }
.gm-stage { position: relative; height: var(--gm-height); border: 1px solid color-mix(in srgb, currentColor 18%, transparent); border-radius: 8px; overflow: hidden; touch-action: none; user-select: none; -webkit-user-select: none }
.gm-stage canvas { position: absolute; inset: 0; width: 100%; height: 100% }
.gm-stage[data-tool=pan] { cursor: grab } .gm-stage[data-tool=pan][data-over] { cursor: pointer } .gm-stage:not([data-tool=pan]) { cursor: crosshair }
.gm-card { position: absolute; pointer-events: none; max-width: 280px; padding: 7px 10px; border-radius: 7px; background: var(--gm-paper); color: var(--gm-ink); border: 1px solid color-mix(in srgb, currentColor 30%, transparent); box-shadow: 0 2px 10px #0004; font-size: 13px; overflow-wrap: anywhere; z-index: 2 }
.gm-card b, .gm-card span { display: block } .gm-card i { font-style: normal; display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 6px }
.gm-side { display: grid; grid-template-columns: minmax(0, 1fr); gap: 14px; align-content: start; min-width: 0 }
.gm-head { margin: 0 0 4px; font-size: 13px; font-weight: 600; display: flex; justify-content: space-between; gap: 8px; overflow-wrap: anywhere; padding: 0 }
.gm-head button { min-height: 22px; padding: 0 7px; font-size: 12px }
.gm-list { display: grid; gap: 2px }
.gm-list button { display: flex; gap: 7px; align-items: center; text-align: left; border-color: transparent; background: none; min-height: 25px; padding: 2px 6px; white-space: normal; line-height: 1.25; width: 100% }
.gm-list i { flex: none; width: 11px; height: 11px; border-radius: 50% } .gm-list span { flex: 1; min-width: 0; overflow-wrap: anywhere } .gm-list small { font-variant-numeric: tabular-nums; font-size: 12px }
.gm-hist canvas { width: 100%; height: 62px; display: block; touch-action: none; cursor: col-resize }
.gm-hist div { display: flex; justify-content: space-between; gap: 6px; margin-top: 3px } .gm-hist input { width: 88px; min-height: 26px; font-size: 12px; padding: 0 6px }
.gm-scale { height: 12px; border-radius: 3px } .gm-ends { display: flex; justify-content: space-between; font-size: 12px; font-variant-numeric: tabular-nums }
.gm-note { font-size: 13px; display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; min-height: 32px } .gm-note input { flex: 1; min-width: 160px }
.gm-message { padding: 18px }
.gm [hidden] { display: none !important }
`;

export function mount(element, data, options = {}) {
  return new PointsMap(element, data, options).handle;
}

// Small helpers

function rgb(hex) {
  const v = parseInt(hex.slice(1), 16);
  return [v >> 16, (v >> 8) & 255, v & 255];
}

function packed([r, g, b], weight) {
  return ((weight << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((c) => c != null));
  return node;
}

function number(v) {
  if (!Number.isFinite(v)) return "–";
  if (Number.isInteger(v) && Math.abs(v) < 1e15) return Math.abs(v) >= 10000 ? v.toLocaleString("en-US") : String(v);
  return Math.abs(v) >= 1000 ? v.toLocaleString("en-US", { maximumFractionDigits: 1 }) : String(Number(v.toPrecision(3)));
}

function rounded(v, range) {
  return Number.isInteger(v) ? v : Number(v.toFixed(Math.max(0, 3 - Math.floor(Math.log10(range || 1)))));
}

function shorten(text, longest) {
  if (text.length <= longest) return text;
  const cut = text.lastIndexOf(" ", longest - 1);
  return (cut > longest / 2 ? text.slice(0, cut) : text.slice(0, longest - 1)).replace(/[\s·,]+$/, "") + "…";
}

/* A name in lines that end between its parts ("3 · long tracks · live"); parts that need more lines are left out, never cut. */
function linesOf(text, longest, most) {
  const lines = [];
  for (const part of text.replace(/^(\d+) · /, "$1\u00a0·\u00a0").split(" · ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + part.length + 3 <= longest) lines[lines.length - 1] = `${last} · ${part}`;
    else if (lines.length < most) lines.push(lines.length ? part : shorten(part, 2 * longest));
    else break;
  }
  return lines.map((line, i) => (i < lines.length - 1 ? `${line} ·` : line));
}

/* The order in which rows are drawn: a stride near the golden ratio visits all rows, and each beginning of it is a fair sample. */
function strideOf(n) {
  const gcd = (a, b) => (b ? gcd(b, a % b) : a);
  let step = Math.max(1, Math.round(n * 0.6180339887));
  while (gcd(step, n) !== 1) step++;
  return step % Math.max(n, 1) || (n > 1 ? 1 : 0);
}

/* The range of an axis: all values or, if a few outliers would compress the others, the central 99.9 % extended by a quarter. */
function spanOf(values, pad = 0.03) {
  const n = values.length, step = strideOf(n), sample = new Float64Array(Math.min(n, 100000));
  let low = Infinity, high = -Infinity, m = 0;
  for (let i = 0; i < n; i++) {
    const v = values[i];
    if (v < low) low = v;
    if (v > high) high = v;
  }
  for (let i = 0, j = 0; i < n && m < sample.length; i++, j = (j + step) % n) if (Number.isFinite(values[j])) sample[m++] = values[j];
  if (!Number.isFinite(low) || !Number.isFinite(high)) {
    const known = sample.subarray(0, m);
    low = m ? Math.min(...known.slice(0, 1000)) : 0;
    high = m ? Math.max(...known.slice(0, 1000)) : 1;
  }
  const whole = [low, high];
  if (m > 1000) {
    const known = sample.subarray(0, m).sort(), cut = Math.floor(m * 0.0005);
    const inner = [known[cut], known[m - 1 - cut]], middle = inner[1] - inner[0];
    if (middle > 0 && high - low > 1.5 * middle) {
      low = Math.max(low, inner[0] - 0.25 * middle);
      high = Math.min(high, inner[1] + 0.25 * middle);
    }
  }
  const margin = high > low ? pad * (high - low) : 1;
  return { low: low - margin, high: high + margin, whole, cut: low > whole[0] || high < whole[1] };
}

function ticksOf(low, high, most) {
  const rough = (high - low) / Math.max(most, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough), found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6 && found.length < 20; v += step) found.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  return found;
}

/* Rows by cell of a grid, for what is near a position and how dense an area is. */
class Grid {
  /* The arrays of an `old` grid of as many rows are used again. */
  constructor(x, y, low, high, old) {
    const n = x.length, side = Math.max(1, Math.min(768, Math.ceil(Math.sqrt(n / 2)))), again = old?.x.length === n;
    Object.assign(this, { x, y, low, high, side });
    const fx = side / (high[0] - low[0]), fy = side / (high[1] - low[1]), last = side - 1;
    const starts = (this.starts = again ? old.starts.fill(0) : new Uint32Array(side * side + 1));
    this.rows = again ? old.rows : new Uint32Array(n);
    const cell = (i) => {
      // Rows beyond the span are in the cells at the edge; rows without a position are never drawable.
      let a = (x[i] - low[0]) * fx, b = (y[i] - low[1]) * fy;
      a = a > 0 ? (a > last ? last : a | 0) : 0;
      b = b > 0 ? (b > last ? last : b | 0) : 0;
      return b * side + a;
    };
    for (let i = 0; i < n; i++) starts[cell(i)]++;
    for (let c = 1; c < starts.length; c++) starts[c] += starts[c - 1]; // the end of each cell, and once it is filled its start
    for (let i = n - 1; i >= 0; i--) this.rows[--starts[cell(i)]] = i;
  }

  cells(x0, y0, x1, y1) {
    const at = (v, d) => Math.min(this.side - 1, Math.max(0, Math.floor(((v - this.low[d]) / (this.high[d] - this.low[d])) * this.side)));
    return [at(Math.min(x0, x1), 0), at(Math.min(y0, y1), 1), at(Math.max(x0, x1), 0), at(Math.max(y0, y1), 1)];
  }

  /* The row nearest to a position among those with `bits` 0, within the distances rx and ry; -1 if there is none. */
  nearest(x, y, rx, ry, bits) {
    const [a0, b0, a1, b1] = this.cells(x - rx, y - ry, x + rx, y + ry);
    let best = -1, least = 1;
    for (let b = b0; b <= b1; b++)
      for (let k = this.starts[b * this.side + a0]; k < this.starts[b * this.side + a1 + 1]; k++) {
        const row = this.rows[k];
        if (bits[row]) continue;
        const d = ((this.x[row] - x) / rx) ** 2 + ((this.y[row] - y) / ry) ** 2;
        if (d < least) (least = d), (best = row);
      }
    return best;
  }

  /* A high count of rows per cell in an area, 99.5 % of its cells that are not empty have fewer. */
  densest(x0, y0, x1, y1) {
    const [a0, b0, a1, b1] = this.cells(x0, y0, x1, y1), tally = new Uint32Array(4096);
    let used = 0;
    for (let b = b0; b <= b1; b++)
      for (let c = b * this.side + a0; c <= b * this.side + a1; c++) {
        const count = this.starts[c + 1] - this.starts[c];
        if (count) tally[Math.min(count, 4095)]++, used++;
      }
    let left = used * 0.005;
    for (let count = 4095; count > 0; count--) if ((left -= tally[count]) < 0) return count;
    return 1;
  }
}

/* Draws points with WebGL2: their colours and weights are added up per pixel, and a second pass paints the mean colour of each pixel,
 * deeper where more rows are. So the density of all rows is binned anew at every zoom, and single points are discs. */
class GlRenderer {
  static create(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: true, premultipliedAlpha: true, depth: false, stencil: false });
    const half = gl?.getExtension("EXT_color_buffer_half_float"), float = gl?.getExtension("EXT_color_buffer_float");
    return half || float ? new GlRenderer(canvas, gl, float && gl.getExtension("EXT_float_blend")) : null;
  }

  constructor(canvas, gl, float) {
    Object.assign(this, { canvas, gl, ratio: Math.min(devicePixelRatio || 1, 2), chunk: 4000000 });
    this.format = float ? [gl.RGBA32F, gl.FLOAT] : [gl.RGBA16F, gl.HALF_FLOAT];
    this.open();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => { this.open(); this.resize(canvas.width, canvas.height); this.onrestored?.(); });
  }

  open() {
    const { gl } = this;
    const shader = (kind, text) => {
      const made = gl.createShader(kind);
      gl.shaderSource(made, text);
      gl.compileShader(made);
      return made;
    };
    const program = (vertex, fragment, names) => {
      const made = gl.createProgram();
      gl.attachShader(made, shader(gl.VERTEX_SHADER, vertex));
      gl.attachShader(made, shader(gl.FRAGMENT_SHADER, fragment));
      gl.linkProgram(made);
      if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(made));
      return { made, at: Object.fromEntries(names.map((name) => [name, gl.getUniformLocation(made, name)])) };
    };
    this.points = program(VERTEX, FRAGMENT, ["matrix", "size", "deep"]);
    this.screen = program(SCREEN_VERTEX, SCREEN_FRAGMENT, ["sums", "gain", "top", "base"]);
    this.vertices = gl.createBuffer();
    this.target = gl.createFramebuffer();
    this.sums = gl.createTexture();
  }

  resize(width, height) {
    const { gl } = this;
    Object.assign(this.canvas, { width, height });
    gl.bindTexture(gl.TEXTURE_2D, this.sums);
    gl.texImage2D(gl.TEXTURE_2D, 0, this.format[0], width, height, 0, gl.RGBA, this.format[1], null);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.sums, 0);
  }

  /* `floats` has `width` words for a point: two or three coordinates in [-1, 1], and a colour (red, green, blue, weight). */
  load(floats, width) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.vertices);
    gl.bufferData(gl.ARRAY_BUFFER, floats, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribPointer(0, width - 1, gl.FLOAT, false, width * 4, 0);
    gl.vertexAttribPointer(1, 4, gl.UNSIGNED_BYTE, true, width * 4, (width - 1) * 4);
  }

  add(first, count, anew, { matrix, diameter, deep }) {
    const { gl, canvas } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.viewport(0, 0, canvas.width, canvas.height);
    if (anew) {
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
    }
    gl.useProgram(this.points.made);
    gl.uniformMatrix4fv(this.points.at.matrix, false, matrix);
    gl.uniform1f(this.points.at.size, diameter);
    gl.uniform1f(this.points.at.deep, deep);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE);
    if (count > 0) gl.drawArrays(gl.POINTS, first, count);
  }

  paint(gain, top, base) {
    const { gl } = this;
    gl.disable(gl.BLEND);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.useProgram(this.screen.made);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.sums);
    gl.uniform1i(this.screen.at.sums, 0);
    gl.uniform1f(this.screen.at.gain, gain);
    gl.uniform1f(this.screen.at.top, top);
    gl.uniform1f(this.screen.at.base, base);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  destroy() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

/* The same picture without a GPU: a browser that renders WebGL in software needs more than a microsecond a point, this loop a few
 * nanoseconds. */
class CpuRenderer {
  constructor(canvas) {
    Object.assign(this, { canvas, context: canvas.getContext("2d"), ratio: 1, chunk: 1500000, stencils: new Map() });
  }

  resize(width, height) {
    Object.assign(this.canvas, { width, height });
    this.stride = width + 2 * EDGE;
    this.sums = new Float32Array(this.stride * (height + 2 * EDGE) * 4); // red, green, blue, weight; an edge for discs that reach out
    this.picture = new ImageData(width, height);
  }

  load(floats, width) {
    Object.assign(this, { floats, words: new Uint32Array(floats.buffer, floats.byteOffset, floats.length), width });
  }

  /* Offsets into the sums and coverage of the pixels of a disc. */
  stencil(diameter) {
    const key = Math.round(diameter * 2);
    if (!this.stencils.has(key) || this.stencils.get(key).stride !== this.stride) {
      const r = Math.min(Math.ceil(diameter / 2), EDGE - 1), offsets = [], covers = [];
      for (let y = -r; y <= r; y++)
        for (let x = -r; x <= r; x++) {
          const cover = Math.min(Math.max((1 - Math.hypot(x, y) / (diameter / 2)) * diameter * 0.5 + 0.35, 0), 1);
          if (cover > 0) offsets.push((y * this.stride + x) * 4), covers.push(cover);
        }
      this.stencils.set(key, { stride: this.stride, offsets: Int32Array.from(offsets), covers: Float32Array.from(covers) });
    }
    return this.stencils.get(key);
  }

  add(first, count, anew, { matrix: m, diameter, deep }) {
    const { floats, words, sums, stride, width } = this, w = this.canvas.width, h = this.canvas.height;
    if (anew) sums.fill(0);
    const [ox, oy] = [w / 2, h / 2], three = width === 4;
    const disc = diameter > 1.6 && !three ? this.stencil(diameter) : null;
    for (let p = first * width, end = (first + count) * width; p < end; p += width) {
      const a = floats[p], b = floats[p + 1], word = words[p + width - 1];
      let x, y, weight = (word >>> 24) / 255, shape = disc;
      if (three) {
        const c = floats[p + 2], v = m[3] * a + m[7] * b + m[11] * c + m[15];
        if (v <= 0.1) continue;
        x = ox + ((m[0] * a + m[4] * b + m[8] * c + m[12]) / v) * ox;
        y = oy - ((m[1] * a + m[5] * b + m[9] * c + m[13]) / v) * oy;
        const near = Math.min(Math.max(1.9 - 0.9 * (v / deep), 0.5), 1.6);
        weight *= near;
        if (diameter * near > 1.6) shape = this.stencil(diameter * near);
      } else {
        x = ox + (m[0] * a + m[12]) * ox;
        y = oy - (m[5] * b + m[13]) * oy;
      }
      if (!(x >= 0 && x < w && y >= 0 && y < h)) continue;
      const at = (((y | 0) + EDGE) * stride + (x | 0) + EDGE) * 4, red = (word & 255) * weight, green = ((word >>> 8) & 255) * weight, blue = ((word >>> 16) & 255) * weight;
      if (shape === null) {
        sums[at] += red;
        sums[at + 1] += green;
        sums[at + 2] += blue;
        sums[at + 3] += weight;
      } else {
        const { offsets, covers } = shape;
        for (let k = 0; k < offsets.length; k++) {
          const to = at + offsets[k], cover = covers[k];
          sums[to] += red * cover;
          sums[to + 1] += green * cover;
          sums[to + 2] += blue * cover;
          sums[to + 3] += weight * cover;
        }
      }
    }
  }

  paint(gain, top, base) {
    const { sums, stride, picture } = this, w = this.canvas.width, h = this.canvas.height, out = new Uint32Array(picture.data.buffer);
    const f = (1 - base) / Math.log(1 + top), table = new Float32Array(2048);
    for (let i = 0; i < 2048; i++) table[i] = 255 * Math.min(1, i / 16) * Math.min(1, base + f * Math.log(1 + (i / 16) * gain));
    for (let y = 0, to = 0; y < h; y++)
      for (let x = 0, at = ((y + EDGE) * stride + EDGE) * 4; x < w; x++, at += 4, to++) {
        const s = sums[at + 3];
        if (s <= 0) out[to] = 0;
        else {
          const part = 1 / s, alpha = s < 127 ? table[(s * 16 + 0.5) | 0] : 255 * Math.min(1, base + f * Math.log(1 + s * gain));
          out[to] = (alpha << 24) | ((sums[at + 2] * part) << 16) | ((sums[at + 1] * part) << 8) | (sums[at] * part);
        }
      }
    this.context.putImageData(picture, 0, 0);
  }

  destroy() {}
}

function rendererFor(canvas, wanted) {
  const probe = document.createElement("canvas").getContext("webgl2"), info = probe?.getExtension("WEBGL_debug_renderer_info");
  const name = probe ? String(probe.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : probe.RENDERER)) : "";
  const adds = probe?.getExtension("EXT_color_buffer_half_float") ?? probe?.getExtension("EXT_color_buffer_float");
  probe?.getExtension("WEBGL_lose_context")?.loseContext();
  const software = !adds || /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
  if (wanted === "cpu" || (software && wanted !== "webgl")) return new CpuRenderer(canvas);
  return GlRenderer.create(canvas);
}

class PointsMap {
  constructor(element, data, options) {
    Object.assign(this, { element, data, options, n: 0, destroyed: false });
    this.height = options.height ?? 560;
    this.root = h("div", { class: "gm", style: `--gm-height:${this.height}px` });
    this.style = h("style", {}, CSS);
    element.append(this.style, this.root);
    this.waiting = [];
    this.handle = {
      state: () => this.stateText(), restore: (text) => this.restore(text), rows: () => this.chosenRows(), locate: (row) => this.locate(row),
      selection: () => this.lasso, settled: () => (this.failed || this.isSettled() ? Promise.resolve() : new Promise((done) => this.waiting.push(done))),
      stats: () => ({ rows: this.n, shown: this.shown, selected: this.selected, drawn: this.progress, lod: this.lod, frames: this.frames, failed: this.failed ?? null, renderer: this.renderer instanceof GlRenderer ? "webgl" : "cpu", moving: !!this.moving, destroyed: this.destroyed }),
      labels: () => this.placed.map((p) => p.text), retheme: () => this.retheme(), destroy: () => this.destroy(),
    };
    element.gpuclustMap = this.handle;
    this.placed = [];
    this.setColumns();
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.lod = 120000; // points drawn in a frame while the map moves; follows the speed of the machine
    try {
      this.renderer = rendererFor(this.canvas, options.renderer);
    } catch (error) {
      console.warn("gpuclust: the map is drawn without WebGL:", error); // a driver that does not compile the shaders
      this.canvas = h("canvas", { "aria-hidden": "true" }); // the other one has a WebGL context
      this.renderer = new CpuRenderer(this.canvas);
    }
    if (!this.renderer) {
      this.fail("This browser does not have the WebGL2 functions that the map needs, so the map cannot be drawn. All other pages work without them.");
      return;
    }
    this.renderer.onrestored = () => { this.stale = true; this.request(); };
    this.axes = ["x", "y"];
    this.color = "cluster";
    this.view = { cx: 0, cy: 0, k: 1 };
    this.camera = { turn: TURN, tilt: TILT, k: 1 };
    this.filters = new Map();
    this.open = (options.histograms ?? []).filter((name) => this.columns[name]);
    this.lasso = null;
    this.tool = "pan";
    this.pointers = new Map();
    this.frames = this.progress = this.shown = this.selected = 0;
    this.build();
    this.start().catch((error) => this.fail(`The map could not be drawn: ${error.message ?? error}`));
  }

  fail(text) {
    this.failed = text;
    this.root.replaceChildren(h("p", { class: "gm-message", role: "alert" }, text));
    for (const done of this.waiting.splice(0)) done();
  }

  // Columns

  setColumns() {
    const given = this.options.columns ?? {};
    this.columns = {};
    for (const name of Object.keys(this.data)) {
      const spec = given[name] ?? {}, source = this.data[name];
      const column = { name, label: spec.label ?? name.replaceAll("_", " "), kind: spec.kind, names: spec.names, colors: spec.colors, share: spec.share ?? NaN, source };
      if (name === "cluster") column.kind = "category";
      else if (!column.kind) column.kind = this.inferKind(name, source);
      this.columns[name] = column;
    }
  }

  inferKind(name, source) {
    if (typeof source === "function" || ArrayBuffer.isView(source)) return "number";
    const first = source.find?.((v) => v != null);
    if (typeof first !== "string") return "number";
    if (name === "title") return "text";
    const distinct = new Set();
    for (const v of source) if (v != null && distinct.add(v).size > 200) return "text";
    return "category";
  }

  async load(name) {
    const column = this.columns[name];
    if (column.values) return column;
    column.loading ??= (async () => {
      let values = typeof column.source === "function" ? await column.source() : column.source;
      if (name === "cluster") {
        const codes = this.clusterCodes(column, values);
        if (typeof column.source === "function") values.buffer?.transfer?.(0); // free it now
        values = codes;
      }
      else if (column.kind === "category" && !column.names) values = this.codes(column, values);
      else if (column.kind === "number" && !ArrayBuffer.isView(values)) values = Float32Array.from(values, (v) => (v == null ? NaN : v));
      column.source = null;
      column.values = values;
      if (column.kind === "number") column.span = spanOf(values);
      if (column.kind === "category") this.rank(column);
    })();
    try {
      await column.loading;
    } finally {
      column.loading = null; // a column that could not be fetched is asked for again
    }
    return column;
  }

  clusterCodes(column, values) {
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < values.length; i++) {
      if (values[i] < low) low = values[i];
      if (values[i] > high) high = values[i];
    }
    const known = new Map((this.options.clusters ?? []).map((c) => [c.id, c])), code = new Int32Array(Math.max(high - low + 1, 0)).fill(-1);
    const seen = new Uint8Array(code.length);
    for (let i = 0; i < values.length; i++) seen[values[i] - low] = 1;
    column.names = [];
    column.colors = [];
    column.ids = [];
    for (let id = low; id <= high; id++) {
      if (!seen[id - low]) continue;
      code[id - low] = column.ids.length;
      column.ids.push(id);
      column.names.push(known.get(id)?.name ?? (id < 0 ? "Noise" : `Cluster ${id}`));
      column.colors.push(known.get(id)?.color ?? (id < 0 ? NOISE : COLORS[id % COLORS.length]));
    }
    const Codes = column.ids.length < 256 ? Uint8Array : column.ids.length < 65536 ? Uint16Array : Uint32Array;
    const codes = new Codes(values.length);
    for (let i = 0; i < codes.length; i++) codes[i] = code[values[i] - low];
    return codes;
  }

  codes(column, values) {
    const places = new Map();
    const codes = Uint16Array.from(values, (v) => {
      const text = v ?? "none";
      if (!places.has(text)) places.set(text, places.size);
      return places.get(text);
    });
    column.names = [...places.keys()].map(String);
    return codes;
  }

  /* Categories by size, and their colours. */
  rank(column) {
    const totals = new Uint32Array(column.names.length);
    for (let i = 0; i < column.values.length; i++) totals[column.values[i]]++;
    const grey = (code) => /^(other|none|noise)$/i.test(column.names[code]);
    column.order = [...totals.keys()].sort((a, b) => grey(a) - grey(b) || totals[b] - totals[a]);
    if (!column.colors) {
      column.colors = [];
      column.order.forEach((code, i) => (column.colors[code] = grey(code) ? NOISE : COLORS[i % COLORS.length]));
    }
  }

  /* The categories with a line in the legend: the largest, and a few that were chosen. */
  listed(column) {
    const chosen = this.filters.get(column.name)?.chosen;
    const most = column.name === this.color ? LEGEND : 6, first = column.order.slice(0, most), extra = chosen ? column.order.slice(most).filter((code) => chosen.has(code)) : [];
    return extra.length > most / 2 ? first : [...first.slice(0, most - extra.length), ...extra];
  }

  get axisNames() {
    return Object.values(this.columns).filter((c) => c.kind === "number").map((c) => c.name);
  }

  get filterNames() {
    return Object.values(this.columns).filter((c) => c.kind !== "text" && !["x", "y", "z"].includes(c.name)).map((c) => c.name);
  }

  async start() {
    this.readState(this.addressState());
    await Promise.all([...this.axes, "cluster", this.color].map((name) => this.load(name)));
    if (this.destroyed) return;
    this.n = this.columns[this.axes[0]].values.length;
    this.bits = new Uint16Array(this.n);
    this.step = strideOf(this.n);
    this.resize();
    this.setAxes();
    if (this.axes.length === 3) this.fit3(this.moved3 ? this.camera.k : null);
    this.ready = true;
    this.refresh();
    this.syncControls();
    await this.applyPending();
  }

  // The page around the map

  build() {
    const tool = (name, label, title) =>
      h("button", { type: "button", title, "data-tool": name, "aria-pressed": String(this.tool === name), onclick: () => this.setTool(name) }, label);
    const act = (label, title, run) => h("button", { type: "button", title, "aria-label": label.length === 1 ? title : null, onclick: run }, label);
    this.selects = {};
    const select = (key, label, change) => {
      const list = h("select", { onchange: () => change(list.value) });
      this.selects[key] = list;
      return h("label", {}, label, list);
    };
    this.dimensions = ["2-D", "3-D"].map((text, i) =>
      h("button", { type: "button", "aria-pressed": "false", onclick: () => this.setDimensions(i + 2) }, text));
    this.bar = h("div", { class: "gm-bar" },
      this.axisNames.length > 2 ? h("span", { role: "group", "aria-label": "View" }, ...this.dimensions) : null,
      ...["X", "Y", "Z"].map((label, i) => select(`axis${i}`, label, (name) => this.changeAxis(i, name))),
      select("color", "Colour", (name) => this.changeColor(name)),
      h("span", { role: "group", "aria-label": "Tool" }, tool("pan", "Move", "Drag to move the map; click a point for details"), tool("box", "Box", "Drag a rectangle to select rows"), tool("lasso", "Lasso", "Draw around rows to select them")),
      h("span", {}, act("+", "Zoom in", () => this.zoomBy(1.6)), act("−", "Zoom out", () => this.zoomBy(1 / 1.6)), act("Fit", "Show the whole map", () => this.fit())),
      this.options.url ? act("Copy link", "Copy a link to this view", () => this.copyLink()) : null);
    const slider = (label, min, max, step, key) => {
      const input = h("input", { type: "range", min, max, step, oninput: () => { this.camera[key] = Number(input.value); this.motion(); } });
      this.selects[key] = input;
      return h("label", {}, label, input);
    };
    this.turning = h("div", { class: "gm-bar", hidden: true }, slider("Rotate", 0, 360, 5, "turn"), slider("Tilt", -85, 85, 5, "tilt"));
    this.overlay = h("canvas", { "aria-hidden": "true" });
    this.card = h("div", { class: "gm-card", hidden: true, role: "status" });
    this.stage = h("div", { class: "gm-stage", tabindex: "0", role: "application", "data-tool": "pan" }, this.canvas, this.overlay, this.card);
    this.side = h("div", { class: "gm-side" });
    this.note = h("div", { class: "gm-note", role: "status" }, "Loading the rows…");
    this.root.replaceChildren(this.bar, this.turning, h("div", { class: "gm-main" }, h("div", {}, this.stage, this.note), this.side));
    this.listen();
    this.retheme();
    this.resizing = new ResizeObserver(() => this.resize());
    this.resizing.observe(this.stage);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.onScheme = () => setTimeout(() => this.retheme(), 60);
    this.scheme.addEventListener("change", this.onScheme);
  }

  retheme() {
    if (this.failed) return;
    const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
    const ink = parse(getComputedStyle(this.root).color);
    let paper = null;
    for (let node = this.root; node && !paper; node = node.parentElement ?? node.getRootNode().host) {
      const c = parse(getComputedStyle(node).backgroundColor);
      if (c.length >= 3 && (c.length === 3 || c[3] > 0)) paper = c;
    }
    const dark = (ink[0] * 299 + ink[1] * 587 + ink[2] * 114) / 1000 > 140;
    paper ??= dark ? [17, 20, 24] : [255, 255, 255];
    const changed = this.dark !== dark;
    Object.assign(this, { dark, ink: `rgb(${ink.slice(0, 3)})`, paper: `rgb(${paper.slice(0, 3)})` });
    this.root.style.setProperty("--gm-paper", this.paper);
    this.root.style.setProperty("--gm-ink", this.ink);
    if (this.ready && changed) this.refresh();
    for (const panel of this.panels ?? []) panel.update();
    this.request();
  }

  syncControls() {
    const fill = (list, names, value) => {
      if (list.dataset.names !== names.join("\n")) {
        list.replaceChildren(...names.map((name) => h("option", { value: name }, this.columns[name].label)));
        list.dataset.names = names.join("\n");
      }
      list.value = value;
    };
    for (let i = 0; i < 3; i++) {
      this.selects[`axis${i}`].parentElement.hidden = i >= this.axes.length;
      if (i < this.axes.length) fill(this.selects[`axis${i}`], this.axisNames, this.axes[i]);
    }
    fill(this.selects.color, this.filterNames, this.color);
    this.dimensions.forEach((button, i) => button.setAttribute("aria-pressed", String(this.axes.length === i + 2)));
    this.turning.hidden = this.axes.length < 3;
    this.selects.turn.value = this.camera.turn;
    this.selects.tilt.value = this.camera.tilt;
    for (const button of this.bar.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === this.tool));
    this.stage.dataset.tool = this.tool;
    const seen = this.axes.map((name) => this.columns[name].label).join(", ");
    this.stage.setAttribute("aria-label", `Map of ${this.n.toLocaleString("en-US")} rows: ${seen}. Arrow keys ${this.axes.length === 3 ? "turn" : "move"} it, plus and minus zoom, 0 shows all, Enter opens the row at the centre, Escape removes the selection.`);
  }

  say() {
    const all = this.n.toLocaleString("en-US"), shown = this.shown.toLocaleString("en-US");
    const parts = [this.lasso ? `${this.selected.toLocaleString("en-US")} rows selected` : this.shown < this.n ? `${shown} of ${all} rows shown` : `All ${all} rows`];
    const share = this.axes.reduce((sum, name) => sum + this.columns[name].share, 0);
    if (Number.isFinite(share)) parts.push(`the ${this.axes.length} axes show ${Math.round(share * 100)} % of the variance`);
    if (this.beyond) parts.push(`${this.beyond.toLocaleString("en-US")} ${this.beyond === 1 ? "row lies" : "rows lie"} beyond the axes (zoom out)`);
    if (!this.lasso) parts.push(this.options.onPick ? "click a point for details" : "point at a dot for details");
    const filtered = [...this.filters.values()].some((f) => f.active);
    const button = (text, run) => h("button", { type: "button", onclick: run }, text);
    this.note.replaceChildren(h("span", {}, `${parts.join("; ")}.`),
      ...[filtered && this.options.listLabel && !this.lasso ? button(this.options.listLabel, () => { this.listing = true; this.options.onSelect?.(this.chosenRows()); }) : null,
        filtered ? button("Remove filters", () => this.clearFilters()) : null,
        this.lasso ? button("Remove selection", () => this.select(null)) : null].filter(Boolean));
  }

  // Axes, colours, filters

  setAxes() {
    const columns = this.axes.map((name) => this.columns[name]);
    this.ranges = columns.map((c) => ({ mid: (c.span.low + c.span.high) / 2, half: (c.span.high - c.span.low) / 2 || 1, span: c.span }));
    const { bits, n } = this, values = columns.map((c) => c.values);
    this.beyond = 0;
    for (let i = 0; i < n; i++) {
      let bad = false, far = false;
      for (let d = 0; d < values.length; d++) {
        const v = values[d][i];
        if (!Number.isFinite(v)) bad = true;
        else if (v < columns[d].span.low || v > columns[d].span.high) far = true;
      }
      if (far) this.beyond++;
      bits[i] = bad ? bits[i] | DRAWABLE : bits[i] & ~DRAWABLE;
    }
    this.grid = this.projected = this.peak = null;
    this.stale = true;
  }

  changeAxis(i, name) {
    const axes = [...this.axes], other = axes.indexOf(name);
    if (other >= 0) axes[other] = axes[i];
    axes[i] = name;
    return this.changeAxes(axes);
  }

  setDimensions(count) {
    if (count === this.axes.length) return null;
    const third = ["z", ...this.axisNames].find((name) => this.columns[name] && !this.axes.includes(name));
    return this.changeAxes(count === 3 ? [...this.axes, third] : this.axes.slice(0, 2));
  }

  /* Load columns that a control asks for; where that fails, say so and return to what is shown. */
  async loaded(names) {
    try {
      await Promise.all(names.map((name) => this.load(name)));
      return !this.destroyed;
    } catch (error) {
      this.syncControls();
      this.renderSide();
      this.note.replaceChildren(h("span", {}, `Not loaded: ${error.message ?? error}.`));
      return false;
    }
  }

  async changeAxes(axes) {
    if (!(await this.loaded(axes))) return;
    this.dropLasso();
    this.axes = axes;
    this.setAxes();
    this.fit();
    this.refresh();
    this.update();
  }

  async changeColor(name) {
    if (!(await this.loaded([name]))) return;
    this.color = name;
    this.refresh();
    this.renderSide();
    this.update();
  }

  setFilter(name, { chosen, low, high }) {
    let filter = this.filters.get(name);
    if (!filter) {
      let bit = 1 << this.filters.size;
      if (this.filters.size >= MAX_FILTERS) {
        // The bit of a filter that was removed is clear in all rows.
        const free = [...this.filters].find(([, other]) => !other.active);
        if (!free) return;
        this.filters.delete(free[0]);
        bit = free[1].bit;
      }
      this.filters.set(name, (filter = { bit }));
    }
    Object.assign(filter, { chosen, low, high, active: chosen ? chosen.size > 0 : low > -Infinity || high < Infinity });
    const { bits, n } = this, { values } = this.columns[name], { bit } = filter, keep = ALL & ~bit;
    if (!filter.active) for (let i = 0; i < n; i++) bits[i] &= keep;
    else if (chosen) {
      const fails = new Uint16Array(this.columns[name].names.length).fill(bit);
      for (const code of chosen) fails[code] = 0;
      for (let i = 0; i < n; i++) bits[i] = (bits[i] & keep) | fails[values[i]];
    } else for (let i = 0; i < n; i++) bits[i] = values[i] >= low && values[i] <= high ? bits[i] & keep : bits[i] | bit;
  }

  changeFilter(name, filter, still = true) {
    this.setFilter(name, filter);
    this.refresh(!still);
    if (still) this.update();
    if (still && (this.lasso || this.listing)) this.announce();
  }

  clearFilters() {
    for (const [name, filter] of this.filters) if (filter.active) this.setFilter(name, filter.chosen ? { chosen: new Set() } : { low: -Infinity, high: Infinity });
    this.refresh();
    this.renderSide();
    this.update();
    if (this.lasso || this.listing) this.announce();
  }

  /* What is shown has changed: count it, and draw it. */
  refresh(brushing = false) {
    const { bits, n } = this, hidden = ALL & ~SELECTED;
    let shown = 0, selected = 0;
    for (let i = 0; i < n; i++) if ((bits[i] & hidden) === 0) shown++, bits[i] === 0 && selected++;
    Object.assign(this, { shown, selected, stale: true });
    if (brushing) this.motion();
    else this.topStale = true;
    this.updatePanels();
    this.medians = null;
    this.say();
    this.progress = 0;
    this.request();
  }

  update() {
    this.syncControls();
    this.say();
    this.updatePanels();
    this.writeAddress();
    this.request();
  }

  tints() {
    const column = this.columns[this.color];
    if (column.kind === "category") {
      const own = new Set(this.listed(column));
      const table = new Uint32Array(column.names.length);
      for (let code = 0; code < table.length; code++) table[code] = packed(this.visible(own.has(code) ? column.colors[code] : OTHER), 255);
      return { values: column.values, of: (v) => table[v] };
    }
    const table = Uint32Array.from({ length: 256 }, (_, i) => packed(this.scaleColor(i / 255), 255)), grey = packed(rgb(NOISE), 120);
    const { low, high } = this.colorRange(column), f = 255 / (high - low || 1);
    return { values: column.values, of: (v) => (v === v ? table[v <= low ? 0 : v >= high ? 255 : ((v - low) * f) | 0] : grey) };
  }

  /* A colour that is darker than a dark page can show is mixed with white. */
  visible(color) {
    const [r, g, b] = rgb(color), dim = this.dark && r * 0.299 + g * 0.587 + b * 0.114 < 85;
    return dim ? [r, g, b].map((v) => Math.round(v + 0.35 * (255 - v))) : [r, g, b];
  }

  colorRange({ span }) {
    const margin = (span.high - span.low) * (0.03 / 1.06);
    return { low: span.low + margin, high: span.high - margin };
  }

  scaleColor(t) {
    const at = (this.dark ? 0.2 + 0.8 * t : 0.94 * t) * (CIVIDIS.length - 1), i = Math.min(Math.floor(at), CIVIDIS.length - 2), f = at - i;
    return CIVIDIS[i].map((v, c) => Math.round(v + (CIVIDIS[i + 1][c] - v) * f));
  }

  // Selection

  /* Select the rows inside a polygon in the units of the axes (in three dimensions: of the picture). */
  select(polygon) {
    this.lasso = polygon;
    const { bits, n } = this;
    if (!polygon) for (let i = 0; i < n; i++) bits[i] &= ALL & ~SELECTED;
    else {
      const { x, y } = this.plane(), xs = polygon.map((p) => p[0]), ys = polygon.map((p) => p[1]), m = polygon.length;
      const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      for (let i = 0; i < n; i++) {
        const a = x[i], b = y[i];
        let inside = false;
        if (a >= x0 && a <= x1 && b >= y0 && b <= y1)
          for (let k = 0, l = m - 1; k < m; l = k++)
            if (ys[k] > b !== ys[l] > b && a < xs[k] + ((xs[l] - xs[k]) * (b - ys[k])) / (ys[l] - ys[k])) inside = !inside;
        bits[i] = inside ? bits[i] & ~SELECTED : bits[i] | SELECTED;
      }
    }
    this.refresh();
    this.update();
    this.announce();
  }

  dropLasso() {
    if (this.lasso) this.select(null);
  }

  /* Pass the selected rows on; without a selection, a list of the rows shown before is removed. */
  announce() {
    this.listing = false;
    this.options.onSelect?.(this.lasso ? this.chosenRows() : null);
  }

  chosenRows() {
    const rows = new Uint32Array(this.selected);
    for (let i = 0, k = 0; i < this.n; i++) if (this.bits[i] === 0) rows[k++] = i;
    return rows;
  }

  // The state in the address

  stateText() {
    const found = new URLSearchParams(), three = this.axes.length === 3, fixed = (v) => String(Number(v.toPrecision(5)));
    const initial = three ? ["x", "y", "z"] : ["x", "y"];
    if (three || this.axes.some((name, i) => name !== initial[i])) found.set("axes", this.axes.join("~"));
    if (this.color !== "cluster") found.set("color", this.color);
    const { cx, cy, k } = this.view;
    if (!three && this.moved2) found.set("at", [cx, cy, k].map(fixed).join("~"));
    if (three && this.moved3) found.set("turn", [this.camera.turn, this.camera.tilt, this.camera.k].map(fixed).join("~"));
    for (const [name, f] of this.filters) {
      if (!f.active) continue;
      const column = this.columns[name];
      if (f.chosen) found.set(`in.${name}`, [...f.chosen].map((code) => (column.ids ? column.ids[code] : column.names[code])).join("~"));
      else found.set(`in.${name}`, `${f.low}~${f.high}`);
    }
    const open = this.options.histograms ?? [];
    if (this.open.join() !== open.join()) found.set("filters", this.open.join("~"));
    if (this.lasso && !three) found.set("area", this.lasso.map((p) => p.map(fixed).join("~")).join("~"));
    return found.toString();
  }

  isOurs(key) {
    return ["axes", "color", "at", "turn", "filters", "area"].includes(key) || key.startsWith("in.");
  }

  addressState() {
    const { url } = this.options;
    return url === "query" ? location.search : url === "hash" ? location.hash.slice(1) : "";
  }

  writeAddress() {
    if (!this.options.url || !this.ready) return;
    clearTimeout(this.writing);
    this.writing = setTimeout(() => {
      if (this.destroyed) return;
      try {
        history.replaceState(history.state, "", this.link());
      } catch {
        /* browsers limit how often an address may change; the next change writes it */
      }
    }, 250);
  }

  link() {
    const kept = new URLSearchParams(this.options.url === "query" ? location.search : "");
    for (const key of [...kept.keys()]) if (this.isOurs(key)) kept.delete(key);
    for (const [key, value] of new URLSearchParams(this.stateText())) kept.set(key, value);
    const base = location.href.split(/[?#]/)[0], text = kept.toString();
    return this.options.url === "query" ? base + (text && `?${text}`) + location.hash : `${base}${location.search}#${text}`;
  }

  readState(text) {
    const found = new URLSearchParams(text), numbers = (key) => (found.get(key) ?? "").split("~").map(Number);
    const axes = (found.get("axes") ?? "").split("~");
    if ([2, 3].includes(axes.length) && new Set(axes).size === axes.length && axes.every((name) => this.columns[name]?.kind === "number")) this.axes = axes;
    if (this.filterNames.includes(found.get("color"))) this.color = found.get("color");
    if (found.has("filters")) this.open = [...new Set(found.get("filters").split("~"))].filter((name) => this.filterNames.includes(name));
    const at = numbers("at"), turn = numbers("turn");
    if (at.length === 3 && at.every(Number.isFinite)) (this.view = { cx: at[0], cy: at[1], k: Math.min(Math.max(at[2], 0.05), 5000) }), (this.moved2 = true);
    if (turn.length === 3 && turn.every(Number.isFinite)) (this.camera = { turn: turn[0], tilt: Math.min(Math.max(turn[1], -85), 85), k: Math.min(Math.max(turn[2], 0.02), 200) }), (this.moved3 = true);
    this.pendingFilters = [];
    for (const [key, value] of found) {
      const name = key.slice(3), column = this.columns[name];
      if (!key.startsWith("in.") || !this.filterNames.includes(name)) continue;
      this.pendingFilters.push({ name, words: value.split("~") });
      if (column.kind === "number" && !this.open.includes(name)) this.open.push(name);
    }
    const area = numbers("area");
    if (area.length >= 6 && area.every(Number.isFinite) && this.axes.length === 2) this.pendingLasso = area.flatMap((v, i) => (i % 2 ? [[area[i - 1], v]] : []));
  }

  async restore(text) {
    this.clearFilters();
    this.select(null);
    Object.assign(this, { axes: ["x", "y"], color: "cluster", view: { cx: 0, cy: 0, k: 1 }, moved2: false, moved3: false });
    this.readState(text);
    await Promise.all([...this.axes, this.color, ...this.open].map((name) => this.load(name)));
    this.setAxes();
    if (this.axes.length === 3) this.fit3(this.moved3 ? this.camera.k : null);
    await this.applyPending();
  }

  async applyPending() {
    await Promise.all([...this.open, ...this.pendingFilters.map((f) => f.name)].map((name) => this.load(name)));
    if (this.destroyed) return;
    const bound = (word, none) => (word && !Number.isNaN(Number(word)) ? Number(word) : none); // an address that somebody changed by hand
    for (const { name, words } of this.pendingFilters) {
      const column = this.columns[name], named = (word) => (column.ids ? column.ids.indexOf(Number(word)) : column.names.indexOf(word));
      if (column.kind === "number") this.setFilter(name, { low: bound(words[0], -Infinity), high: bound(words[1], Infinity) });
      else this.setFilter(name, { chosen: new Set(words.map(named).filter((code) => code >= 0)) });
    }
    this.pendingFilters = [];
    this.refresh();
    if (this.pendingLasso) this.select(this.pendingLasso);
    this.pendingLasso = null;
    this.renderSide();
    this.update();
  }

  async copyLink() {
    const link = this.link();
    try {
      await navigator.clipboard.writeText(link);
      this.note.replaceChildren(h("span", {}, "The link is copied."));
    } catch {
      const field = h("input", { type: "text", readonly: true, value: link, "aria-label": "Link to this view" });
      this.note.replaceChildren(h("span", {}, "Copy this link:"), field);
      field.select();
    }
  }

  // The panels at the side: legend, histograms

  renderSide() {
    const names = [this.color, ...this.open.filter((name) => name !== this.color && this.columns[name].values)];
    if (!names.includes("cluster")) names.push("cluster");
    names.sort((a, b) => (b === this.color) - (a === this.color) || (this.columns[a].kind === "category") - (this.columns[b].kind === "category"));
    this.panels = names.map((name) => (this.columns[name].kind === "category" ? this.categoryPanel(name) : this.numberPanel(name)));
    const more = this.filterNames.filter((name) => !names.includes(name) && !this.open.includes(name));
    const list = h("select", { "aria-label": "Add a filter", onchange: async () => {
      const name = list.value;
      if (!name || !(await this.loaded([name]))) return;
      this.open.push(name);
      this.renderSide();
      this.update();
    } }, h("option", { value: "" }, "Add a filter…"), ...more.map((name) => h("option", { value: name }, this.columns[name].label)));
    this.side.replaceChildren(...this.panels.map((p) => p.node), ...(more.length && names.length <= MAX_FILTERS ? [list] : []));
    this.updatePanels();
  }

  updatePanels() {
    for (const panel of this.panels ?? []) panel.update();
  }

  heading(name, reset) {
    const all = h("button", { type: "button", hidden: true, onclick: reset }, "All");
    const close = this.open.includes(name) && name !== this.color
      ? h("button", { type: "button", "aria-label": `Close ${this.columns[name].label}`, onclick: () => {
          reset();
          this.open = this.open.filter((other) => other !== name);
          this.renderSide();
          this.update();
        } }, "×") : null;
    return { node: h("div", { class: "gm-head" }, h("span", {}, this.columns[name].label), h("span", {}, all, close)), all };
  }

  categoryPanel(name) {
    const column = this.columns[name], { node: head, all } = this.heading(name, () => this.changeFilter(name, { chosen: new Set() }));
    const list = h("div", { class: "gm-list" }), node = h("section", { "aria-label": column.label }, head, list);
    let key = null, buttons = [], others = null, counts = null;
    const chosen = () => this.filters.get(name)?.chosen ?? new Set();
    const toggle = (codes) => {
      const next = new Set(chosen()), on = codes.every((code) => next.has(code));
      for (const code of codes) on ? next.delete(code) : next.add(code);
      this.changeFilter(name, { chosen: next.size === column.names.length ? new Set() : next });
    };
    const line = (color, text, codes) => {
      const count = h("small"), button = h("button", { type: "button", "aria-pressed": "false", title: text, onclick: () => toggle(codes) },
        color ? h("i", { style: `background:${color}` }) : null, h("span", {}, shorten(text, 60)), count);
      return { button, count, codes };
    };
    const update = () => {
      const listed = this.listed(column), rest = column.order.filter((code) => !listed.includes(code)), now = `${listed}|${this.color === name}|${this.dark}`;
      if (key !== now) {
        key = now;
        buttons = listed.map((code) => line(this.color === name ? `rgb(${this.visible(column.colors[code])})` : null, column.names[code], [code]));
        others = rest.length ? line(this.color === name ? OTHER : null, `others (${rest.length})`, rest) : null;
        const more = rest.length ? h("select", { "aria-label": `Show another ${column.label}`, onchange: (e) => e.target.value !== "" && toggle([Number(e.target.value)]) },
          h("option", { value: "" }, "Choose another…"), ...rest.slice(0, 2000).map((code) => h("option", { value: code }, shorten(column.names[code], 60)))) : null;
        const focused = list.contains(this.root.getRootNode().activeElement) ? this.root.getRootNode().activeElement.title : null;
        list.replaceChildren(...[...buttons, others].filter(Boolean).map((b) => b.button), ...(more ? [more] : []));
        if (focused) [...list.children].find((b) => b.title === focused)?.focus();
      }
      counts = this.counted(name, column.names.length, (values, tally, keep) => {
        for (let i = 0; i < this.n; i++) if ((this.bits[i] & keep) === 0) tally[values[i]]++;
      });
      for (const { button, count, codes } of [...buttons, others].filter(Boolean)) {
        button.setAttribute("aria-pressed", String(codes.every((code) => chosen().has(code))));
        count.textContent = codes.reduce((sum, code) => sum + counts[code], 0).toLocaleString("en-US");
      }
      all.hidden = !this.filters.get(name)?.active;
    };
    return { node, update };
  }

  /* Counts under all filters but the own one. */
  counted(name, size, count) {
    const tally = new Uint32Array(size), keep = ALL & ~(this.filters.get(name)?.bit ?? 0);
    count(this.columns[name].values, tally, keep);
    return tally;
  }

  /* At most 40 bins; those of whole numbers, such as years, are equally many numbers wide. */
  binsOf(column) {
    const { low, high } = this.colorRange(column), { values } = column;
    let whole = high - low >= 1 && high - low < 1000;
    for (let i = 0, j = 0; i < 2000 && whole; i++, j = (j + this.step) % this.n) whole = !Number.isFinite(values[j]) || Number.isInteger(values[j]);
    if (!whole) return { low, high, width: (high - low) / BINS || 1, bins: BINS };
    const first = Math.ceil(low), width = Math.ceil((Math.floor(high) - first + 1) / BINS), bins = Math.ceil((Math.floor(high) - first + 1) / width);
    return { low: first - 0.5, high: first - 0.5 + bins * width, width, bins };
  }

  numberPanel(name) {
    const column = this.columns[name], full = { low: -Infinity, high: Infinity }, { node: head, all } = this.heading(name, () => this.changeFilter(name, full));
    const { low, high, width, bins } = this.binsOf(column);
    const canvas = h("canvas", { "aria-hidden": "true" });
    const bound = (label, key) => h("input", { type: "number", step: "any", "aria-label": `${column.label} ${label}`, placeholder: number(rounded(column.span.whole[key === "low" ? 0 : 1], high - low)), onchange: (e) => {
      const now = this.filters.get(name) ?? full, value = e.target.value === "" ? full[key] : Number(e.target.value);
      this.changeFilter(name, { low: now.low, high: now.high, [key]: value });
    } });
    const from = bound("from", "low"), to = bound("to", "high");
    const scale = this.color === name ? h("div", { class: "gm-scale" }) : null;
    const node = h("section", { class: "gm-hist", "aria-label": column.label }, head, canvas, scale, h("div", {}, from, to));
    let start = null;
    const value = (e) => {
      const box = canvas.getBoundingClientRect();
      return low + Math.min(1, Math.max(0, (e.clientX - box.left) / box.width)) * (high - low);
    };
    const range = (e) => {
      const [a, b] = [start, value(e)].sort((p, q) => p - q);
      return b - a < width / 2 ? full : { low: a <= low ? -Infinity : Number(a.toPrecision(5)), high: b >= high ? Infinity : Number(b.toPrecision(5)) };
    };
    canvas.addEventListener("pointerdown", (e) => { start = value(e); canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointermove", (e) => { if (start !== null) this.changeFilter(name, range(e), false); });
    canvas.addEventListener("pointerup", (e) => { if (start !== null) { const chosen = range(e); start = null; this.changeFilter(name, chosen); } });
    canvas.addEventListener("pointercancel", () => { start = null; });
    const update = () => {
      const counts = this.counted(name, bins, (values, tally, keep) => {
        const f = 1 / width, last = bins - 1;
        for (let i = 0; i < this.n; i++) {
          if (this.bits[i] & keep) continue;
          const v = (values[i] - low) * f;
          if (v === v) tally[v <= 0 ? 0 : v >= last ? last : v | 0]++;
        }
      });
      const filter = this.filters.get(name), w = canvas.clientWidth || 240, height = 62, ratio = Math.min(devicePixelRatio || 1, 2);
      canvas.width = w * ratio;
      canvas.height = height * ratio;
      const c = canvas.getContext("2d"), most = counts.reduce((a, b) => Math.max(a, b), 1), bar = w / bins;
      c.scale(ratio, ratio);
      counts.forEach((count, i) => {
        const middle = low + (i + 0.5) * width, inside = !filter?.active || (middle >= filter.low && middle <= filter.high);
        c.globalAlpha = inside ? 0.85 : 0.25;
        c.fillStyle = this.color === name ? `rgb(${this.scaleColor((i + 0.5) / bins)})` : this.dark ? "#56b4e9" : "#0072b2";
        const size = count ? Math.max(1, (count / most) * (height - 2)) : 0;
        c.fillRect(i * bar, height - size, Math.max(bar - 1, 1), size);
      });
      c.globalAlpha = 0.5;
      c.fillStyle = this.ink;
      c.fillRect(0, height - 1, w, 1);
      if (scale) scale.style.background = `linear-gradient(90deg,${[0, 0.25, 0.5, 0.75, 1].map((t) => `rgb(${this.scaleColor(t)})`)})`;
      from.value = filter?.active && filter.low > -Infinity ? filter.low : "";
      to.value = filter?.active && filter.high < Infinity ? filter.high : "";
      all.hidden = !filter?.active;
    };
    return { node, update };
  }

  // Geometry

  resize() {
    const { ratio } = this.renderer, sharp = Math.min(devicePixelRatio || 1, 2), w = Math.max(1, this.stage.clientWidth), height = Math.max(1, this.stage.clientHeight);
    if (this.size?.w === w && this.size.h === height && this.size.sharp === sharp) return;
    this.size = { w, h: height, ratio, sharp };
    this.renderer.resize(Math.round(w * ratio), Math.round(height * ratio));
    Object.assign(this.overlay, { width: w * sharp, height: height * sharp });
    this.projected = null;
    this.topStale = true;
    this.progress = 0;
    this.updatePanels();
    this.request();
  }

  /* Positions in [-1, 1] and colours of the rows shown, in the order of the stride, on the device: 12 bytes a row, 16 with three axes. */
  upload(limit) {
    const { n, step, bits, ranges } = this, three = this.axes.length === 3, width = three ? 4 : 3, count = Math.min(this.shown, limit);
    // One buffer for any number of rows and axes: a larger one made later would be a second one until the next garbage collection.
    this.staging ??= new ArrayBuffer(Math.max(n, 1) * (this.axisNames.length > 2 ? 16 : 12));
    const floats = new Float32Array(this.staging), words = new Uint32Array(this.staging), [x, y, z] = this.axes.map((name) => this.columns[name].values);
    const [rx, ry, rz] = ranges, { values, of } = this.tints(), hidden = ALL & ~SELECTED, selecting = !!this.lasso, pale = packed(this.dark ? [120, 124, 130] : [176, 180, 186], 26);
    const f = ranges.map((r) => 1 / r.half);
    let k = 0;
    for (let i = 0, j = 0; i < n && k < count * width; i++, j += step, j >= n && (j -= n)) {
      const b = bits[j];
      if (b & hidden) continue;
      floats[k++] = (x[j] - rx.mid) * f[0];
      floats[k++] = (y[j] - ry.mid) * f[1];
      if (three) floats[k++] = (z[j] - rz.mid) * f[2];
      words[k++] = selecting && b ? pale : of(values[j]);
    }
    this.renderer.load(floats.subarray(0, k), width);
    this.uploaded = k / width;
    this.stale = false;
    this.partial = this.uploaded < this.shown;
  }

  /* The basis of the camera of three axes: right, up, towards the viewer. */
  basis() {
    const a = (this.camera.turn * Math.PI) / 180, t = (this.camera.tilt * Math.PI) / 180, [ca, sa, ct, st] = [Math.cos(a), Math.sin(a), Math.cos(t), Math.sin(t)];
    return [[-sa, ca, 0], [-st * ca, -st * sa, ct], [ct * ca, ct * sa, st]];
  }

  matrix() {
    const { w, h: height } = this.size;
    if (this.axes.length === 2) {
      const { cx, cy, k } = this.view, f = k * 0.94;
      return new Float32Array([f, 0, 0, 0, 0, f, 0, 0, 0, 0, 0, 0, -cx * f, -cy * f, 0, 1]);
    }
    const [right, up, to] = this.basis(), c = this.center3 ?? [0, 0, 0], dot = (a) => a[0] * c[0] + a[1] * c[1] + a[2] * c[2];
    const s = this.camera.k * DISTANCE, sx = (s * Math.min(w, height)) / w, sy = (s * Math.min(w, height)) / height;
    const m = [];
    for (let d = 0; d < 3; d++) m.push(right[d] * sx, up[d] * sy, 0, -to[d]);
    m.push(-dot(right) * sx, -dot(up) * sy, 0, DISTANCE + dot(to));
    return new Float32Array(m);
  }

  /* Turn the camera to the whole cloud: the centre of 99 % of the rows, and their extent on the screen. */
  fit3(k = null) {
    const { n, step, bits } = this, most = Math.min(4000, n), at = [];
    for (let i = 0, j = 0; i < n && at.length < most; i++, j = (j + step) % n) if (!(bits[j] & DRAWABLE)) at.push(this.axes.map((name, d) => (this.columns[name].values[j] - this.ranges[d].mid) / this.ranges[d].half));
    if (!at.length) return;
    const middle = (d) => at.map((p) => p[d]).sort((a, b) => a - b), spans = [0, 1, 2].map(middle), q = (list, share) => list[Math.min(list.length - 1, Math.floor(list.length * share))];
    this.center3 = spans.map((list) => (q(list, 0.01) + q(list, 0.99)) / 2);
    const [right, up] = this.basis(), { w, h: height } = this.size, side = Math.min(w, height);
    const extent = at.map((p) => {
      const d = p.map((v, i) => v - this.center3[i]), along = (axis) => Math.abs(d[0] * axis[0] + d[1] * axis[1] + d[2] * axis[2]);
      return Math.max((along(right) * side) / w, (along(up) * side) / height);
    }).sort((a, b) => a - b);
    this.camera.k = k ?? 0.86 / Math.max(q(extent, 0.985), 1e-6);
  }

  /* Two arrays with the position of each row, as polygons and the grid use them: the axes, or the picture of three axes. */
  plane() {
    if (this.axes.length === 2) return { x: this.columns[this.axes[0]].values, y: this.columns[this.axes[1]].values };
    if (!this.projected) {
      const m = this.matrix(), { n, ranges } = this, px = (this.flatX ??= new Float32Array(n)), py = (this.flatY ??= new Float32Array(n)), v = this.axes.map((name) => this.columns[name].values);
      const f = ranges.map((r) => 1 / r.half);
      for (let i = 0; i < n; i++) {
        const a = (v[0][i] - ranges[0].mid) * f[0], b = (v[1][i] - ranges[1].mid) * f[1], c = (v[2][i] - ranges[2].mid) * f[2];
        const w = 1 / (m[3] * a + m[7] * b + m[11] * c + m[15]);
        px[i] = w > 0 ? (m[0] * a + m[4] * b + m[8] * c + m[12]) * w : 9;
        py[i] = w > 0 ? (m[1] * a + m[5] * b + m[9] * c + m[13]) * w : 9;
      }
      this.projected = { x: px, y: py };
      this.grid = null;
    }
    return this.projected;
  }

  index() {
    const { x, y } = this.plane();
    if (!this.grid) {
      const [a, b] = this.axes.length === 2 ? this.ranges.map((r) => r.span) : [{ low: -1, high: 1 }, { low: -1, high: 1 }];
      this.grid = this.lastGrid = new Grid(x, y, [a.low, b.low], [a.high, b.high], this.lastGrid);
    }
    return this.grid;
  }

  /* From the window of the map in pixels to the units of the plane, and back. */
  unproject(px, py) {
    const a = (px / this.size.w) * 2 - 1, b = 1 - (py / this.size.h) * 2;
    if (this.axes.length === 3) return [a, b];
    const { cx, cy, k } = this.view, [rx, ry] = this.ranges;
    return [(a / (k * 0.94) + cx) * rx.half + rx.mid, (b / (k * 0.94) + cy) * ry.half + ry.mid];
  }

  project(x, y) {
    let a = x, b = y;
    if (this.axes.length === 2) {
      const { cx, cy, k } = this.view, [rx, ry] = this.ranges;
      a = ((x - rx.mid) / rx.half - cx) * k * 0.94;
      b = ((y - ry.mid) / ry.half - cy) * k * 0.94;
    }
    return [((a + 1) / 2) * this.size.w, ((1 - b) / 2) * this.size.h];
  }

  project3(p) {
    const m = this.matrix(), w = m[3] * p[0] + m[7] * p[1] + m[11] * p[2] + m[15];
    const a = (m[0] * p[0] + m[4] * p[1] + m[8] * p[2] + m[12]) / w, b = (m[1] * p[0] + m[5] * p[1] + m[9] * p[2] + m[13]) / w;
    return [((a + 1) / 2) * this.size.w, ((1 - b) / 2) * this.size.h];
  }

  locate(row) {
    const { x, y } = this.plane(), [px, py] = this.project(x[row], y[row]), box = this.stage.getBoundingClientRect();
    return { x: box.left + this.stage.clientLeft + px, y: box.top + this.stage.clientTop + py };
  }

  // Drawing

  request() {
    if (this.requested || this.destroyed || this.failed) return;
    this.requested = true;
    requestAnimationFrame((now) => this.frame(now));
  }

  motion() {
    if (!this.moving) this.before = null;
    this.moving = performance.now();
    this.projected = this.axes.length === 3 ? null : this.projected;
    this.request();
  }

  isSettled() {
    return this.ready && !this.moving && !this.stale && !this.partial && this.progress >= this.uploaded;
  }

  pointSize() {
    const k = this.axes.length === 2 ? this.view.k : 1, expected = Math.max(this.shown / Math.max(1, k) ** 1.4, 1);
    return Math.min(Math.max(0.55 * Math.sqrt((this.size.w * this.size.h) / expected), 1), 9) * this.size.ratio;
  }

  frame(now) {
    this.requested = false;
    if (this.destroyed || !this.n || !this.size || [...this.axes, this.color].some((name) => !this.columns[name].values)) return;
    const gap = now - (this.before ?? now);
    this.before = now;
    this.frames++;
    if (this.moving && now - this.moving > REST_MS) {
      this.moving = 0;
      this.before = null;
      this.progress = 0;
      this.topStale = true;
      this.writeAddress();
      this.syncTurn();
    }
    if (this.moving) {
      if (gap > 0 && gap < 1000) this.lod = Math.min(Math.max(this.lod * (gap > 42 ? Math.max(0.6, 36 / gap) : gap < 26 ? 1.12 : 1), 25000), Math.max(this.n, 25000));
      if (this.stale) this.upload(this.lod);
      this.draw(0, Math.min(Math.round(this.lod), this.uploaded), true);
      this.paintOverlay();
      this.request();
      return;
    }
    if (this.stale || this.partial) {
      this.upload(Infinity);
      this.progress = 0;
    }
    if (this.progress < this.uploaded || this.progress === 0) {
      const first = this.progress, count = Math.min(this.uploaded - first, this.renderer.chunk);
      this.draw(first, count, first === 0);
      if (this.progress < this.uploaded) this.request();
    }
    this.paintOverlay();
    if (this.isSettled()) for (const done of this.waiting.splice(0)) done();
  }

  syncTurn() {
    this.selects.turn.value = ((this.camera.turn % 360) + 360) % 360;
    this.selects.tilt.value = this.camera.tilt;
  }

  draw(first, count, anew) {
    const diameter = this.pointSize();
    this.renderer.add(first, count, anew, { matrix: this.matrix(), diameter, deep: this.axes.length === 3 ? DISTANCE : 0 });
    this.progress = first + count;
    this.renderer.paint(this.shown / Math.max(this.progress, 1), this.densest(diameter, this.size), diameter > 3 ? 0.75 : this.dark ? 0.5 : 0.32);
  }

  /* About the most points that lie on one pixel. While the map moves, the last answer holds. */
  densest(diameter, size) {
    const zoom = this.axes.length === 2 ? this.view.k : this.camera.k;
    if (!this.peak || (this.topStale && !this.moving)) {
      const grid = this.index(), [x0, y0] = this.unproject(0, size.h), [x1, y1] = this.unproject(size.w, 0);
      const cell = ((grid.high[0] - grid.low[0]) / (x1 - x0)) * ((grid.high[1] - grid.low[1]) / (y1 - y0)) * ((size.w * size.h * size.ratio ** 2) / grid.side ** 2);
      this.peak = { rows: (grid.densest(x0, y0, x1, y1) / Math.max(cell, 1e-9)) * (this.shown / Math.max(this.n, 1)), zoom };
      this.topStale = false;
    }
    return Math.max(this.peak.rows * (this.peak.zoom / zoom) ** 2 * diameter * diameter, 1.5);
  }

  labelled() {
    return this.columns[this.color].kind === "category" ? this.columns[this.color] : this.columns.cluster;
  }

  /* The median position of each category among the rows shown, from at most 400 of its rows. */
  medianPositions() {
    const column = this.labelled(), key = `${column.name} ${this.axes}`;
    if (this.medians && this.mediansOf === key) return this.medians;
    const { n, step, bits } = this, most = 400, m = column.names.length, parts = Array.from({ length: m }, () => []), axes = this.axes.map((name) => this.columns[name].values);
    let open = m;
    for (let i = 0, j = 0; i < n && open > 0; i++, j += step, j >= n && (j -= n)) {
      const part = parts[column.values[j]];
      if (bits[j] || part.length >= most) continue;
      part.push(j);
      if (part.length === most) open--;
    }
    this.mediansOf = key;
    this.medians = column.order.filter((code) => parts[code].length >= Math.min(most, Math.max(1, 0.004 * this.selected)) && !/^(noise|other|none)$/i.test(column.names[code])).map((code) => ({
      text: column.names[code], color: column.colors[code],
      at: axes.map((values) => parts[code].map((j) => values[j]).sort((a, b) => a - b)[parts[code].length >> 1]),
    }));
    return this.medians;
  }

  paintOverlay() {
    const { size } = this, c = this.overlay.getContext("2d"), three = this.axes.length === 3;
    c.setTransform(size.sharp, 0, 0, size.sharp, 0, 0);
    c.clearRect(0, 0, size.w, size.h);
    const family = getComputedStyle(this.root).fontFamily, small = size.w < 520;
    const write = (text, x, y, align = "center", weight = 400, px = 12) => {
      c.font = `${weight} ${px}px ${family}`;
      c.textAlign = align;
      c.lineWidth = 3.5;
      c.lineJoin = "round";
      c.strokeStyle = this.paper;
      c.fillStyle = this.ink;
      c.strokeText(text, x, y);
      c.fillText(text, x, y);
    };
    c.textBaseline = "middle";
    const taken = [];
    if (three) this.paintCube(c, write);
    else {
      const [x0, y0] = this.unproject(0, size.h), [x1, y1] = this.unproject(size.w, 0);
      c.globalAlpha = 0.12;
      c.fillStyle = this.ink;
      const xs = ticksOf(x0, x1, size.w / 110), ys = ticksOf(y0, y1, size.h / 80);
      for (const v of xs) c.fillRect(Math.round(this.project(v, 0)[0]), 0, 1, size.h);
      for (const v of ys) c.fillRect(0, Math.round(this.project(0, v)[1]), size.w, 1);
      c.globalAlpha = 1;
      for (const v of xs) write(number(v), Math.min(Math.max(this.project(v, 0)[0], 18), size.w - 18), size.h - 10, "center", 400, 11);
      for (const v of ys) if (this.project(0, v)[1] < size.h - 28 && this.project(0, v)[1] > 24) write(number(v), 6, this.project(0, v)[1], "left", 400, 11);
      write(shorten(this.columns[this.axes[0]].label, 40), size.w - 8, size.h - 26, "right", 600);
      write(shorten(this.columns[this.axes[1]].label, 40), 8, 12, "left", 600);
    }
    this.placed = [];
    const px = small ? 11 : 13, most = small ? 8 : MAX_LABELS;
    c.font = `600 ${px}px ${family}`;
    for (const label of this.medianPositions()) {
      if (this.placed.length >= most) break;
      const [x, y] = three ? this.project3(label.at.map((v, d) => (v - this.ranges[d].mid) / this.ranges[d].half)) : this.project(...label.at);
      if (!(x > 0 && x < size.w && y > 0 && y < size.h)) continue;
      // At the median, else a little beside it; a name in several lines, else its first line.
      for (const deep of [small ? 2 : 3, 1]) {
        const lines = linesOf(label.text, small ? 20 : 26, deep), half = Math.max(...lines.map((line) => c.measureText(line).width)) / 2 + 6, tall = (lines.length * (px + 3)) / 2 + 3;
        const boxes = [[0, 0], [0, -1.2], [0, 1.2], [-0.7, 0], [0.7, 0], [-0.7, 1], [0.7, -1]].map(([dx, dy]) => {
          const left = Math.min(Math.max(x + dx * half, half + 2), size.w - half - 2), top = Math.min(Math.max(y + dy * tall, tall + 2), size.h - tall - 2);
          return [left - half, top - tall, left + half, top + tall];
        });
        const box = boxes.find((own) => !taken.some((b) => b[0] < own[2] && own[0] < b[2] && b[1] < own[3] && own[1] < b[3]));
        if (!box) continue;
        taken.push(box);
        this.placed.push({ text: label.text, lines, x: (box[0] + box[2]) / 2, y: (box[1] + box[3]) / 2 });
        break;
      }
    }
    for (const { lines, x, y } of this.placed) lines.forEach((line, i) => write(line, x, y + (i - (lines.length - 1) / 2) * (px + 3), "center", 600, px));
    const shape = this.drawing ?? (three ? null : this.lasso?.map((p) => this.project(...p)));
    if (shape?.length > 1) {
      c.beginPath();
      shape.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
      c.closePath();
      c.fillStyle = "#56b4e922";
      c.fill();
      c.strokeStyle = this.dark ? "#56b4e9" : "#0072b2";
      c.lineWidth = 2;
      c.stroke();
    }
    if (this.over >= 0 && !this.moving) {
      const { x, y } = this.plane(), [a, b] = this.project(x[this.over], y[this.over]);
      c.beginPath();
      c.arc(a, b, Math.max(5, this.pointSize() / this.size.ratio / 2 + 3), 0, 7);
      c.strokeStyle = this.ink;
      c.lineWidth = 2;
      c.stroke();
    }
    if (this.keyed && this.root.getRootNode().activeElement === this.stage) {
      c.fillStyle = this.ink;
      c.fillRect(size.w / 2 - 7, size.h / 2 - 0.5, 14, 1);
      c.fillRect(size.w / 2 - 0.5, size.h / 2 - 7, 1, 14);
    }
  }

  /* The three axes of the cube at its lower corner, with their labels at the ends. */
  paintCube(c, write) {
    const corner = [-1, -1, -1];
    this.axes.forEach((name, d) => {
      const end = corner.map((v, i) => (i === d ? 1 : v)), [a, b] = [this.project3(corner), this.project3(end)];
      c.globalAlpha = 0.5;
      c.strokeStyle = this.ink;
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(...a);
      c.lineTo(...b);
      c.stroke();
      c.globalAlpha = 1;
      const keep = (v, most) => Math.min(Math.max(v, 50), most - 50);
      write(shorten(this.columns[name].label, 28), keep(b[0], this.size.w), Math.min(Math.max(b[1], 14), this.size.h - 14), "center", 600);
    });
  }

  // Pointer, touch, keyboard

  listen() {
    const { stage } = this, place = (e) => {
      const box = stage.getBoundingClientRect();
      return [e.clientX - box.left - stage.clientLeft, e.clientY - box.top - stage.clientTop];
    };
    stage.addEventListener("pointerdown", (e) => {
      if (!this.ready || e.button > 0) return;
      stage.setPointerCapture(e.pointerId);
      this.pointers.set(e.pointerId, place(e));
      this.keyed = false;
      this.pressed = { at: place(e), far: this.pointers.size > 1 };
      this.drawing = this.pointers.size === 1 && this.tool !== "pan" ? [place(e)] : null;
      this.pinch = null;
      this.hover(-1);
    });
    stage.addEventListener("pointermove", (e) => {
      if (!this.ready) return;
      const at = place(e), from = this.pointers.get(e.pointerId);
      if (!from) return this.seek(at, e.pointerType);
      this.pointers.set(e.pointerId, at);
      if (Math.hypot(at[0] - this.pressed.at[0], at[1] - this.pressed.at[1]) > 5) this.pressed.far = true;
      if (this.pointers.size === 2) return this.pinched();
      if (this.drawing) {
        const [a] = this.drawing;
        if (this.tool === "box") this.drawing = [a, [at[0], a[1]], at, [a[0], at[1]]];
        else if (Math.hypot(at[0] - this.drawing.at(-1)[0], at[1] - this.drawing.at(-1)[1]) > 3) this.drawing.push(at);
        this.request();
      } else if (this.pressed.far) this.drag(at[0] - from[0], at[1] - from[1]);
    });
    const end = (e) => {
      if (!this.pointers.delete(e.pointerId)) return;
      const shape = this.drawing;
      this.drawing = null;
      this.pinch = null;
      if (e.type === "pointercancel") return this.request();
      if (this.pressed.far && shape?.length > 2) this.select(this.simplified(shape).map((p) => this.unproject(...p)));
      else if (!this.pressed.far) this.pick(...place(e), e.pointerType === "touch" ? 18 : REACH);
      this.request();
    };
    stage.addEventListener("pointerup", end);
    stage.addEventListener("pointercancel", end);
    stage.addEventListener("pointerleave", () => this.hover(-1));
    stage.addEventListener("wheel", (e) => {
      e.preventDefault();
      this.zoomBy(Math.exp(-Math.max(-240, Math.min(240, e.deltaY * (e.deltaMode ? 24 : 1))) * 0.0022), place(e));
    }, { passive: false });
    stage.addEventListener("keydown", (e) => this.key(e));
    stage.addEventListener("focus", () => this.request());
    stage.addEventListener("blur", () => this.request());
  }

  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey || !this.ready) return;
    const arrows = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (arrows[e.key]) this.drag(...arrows[e.key]);
    else if (e.key === "+" || e.key === "=") this.zoomBy(1.4);
    else if (e.key === "-") this.zoomBy(1 / 1.4);
    else if (e.key === "0") this.fit();
    else if (e.key === "Escape") this.select(null);
    else if (e.key === "Enter") this.pick(this.size.w / 2, this.size.h / 2, Math.min(this.size.w, this.size.h) / 2);
    else return;
    this.keyed = true;
    e.preventDefault();
  }

  /* At most 100 corners of a drawn line (Douglas and Peucker), so that the address can hold it. */
  simplified(shape) {
    if (shape.length < 5) return shape;
    for (let tolerance = 1; ; tolerance *= 1.6) {
      const keep = new Set([0, shape.length - 1]), work = [[0, shape.length - 1]];
      while (work.length) {
        const [a, b] = work.pop(), [[ax, ay], [bx, by]] = [shape[a], shape[b]], length = Math.hypot(bx - ax, by - ay) || 1;
        let far = tolerance, at = -1;
        for (let i = a + 1; i < b; i++) {
          const d = length > 1 ? Math.abs((bx - ax) * (ay - shape[i][1]) - (ax - shape[i][0]) * (by - ay)) / length : Math.hypot(shape[i][0] - ax, shape[i][1] - ay);
          if (d > far) (far = d), (at = i);
        }
        if (at > 0) keep.add(at), work.push([a, at], [at, b]);
      }
      if (keep.size <= 100) return shape.filter((_, i) => keep.has(i));
    }
  }

  drag(dx, dy) {
    if (this.axes.length === 3) {
      this.camera.turn = (this.camera.turn - dx * 0.4 + 720) % 360;
      this.camera.tilt = Math.max(-85, Math.min(85, this.camera.tilt + dy * 0.4));
      this.moved3 = true;
      this.syncTurn();
    } else {
      this.view.cx -= (dx / this.size.w) * 2 / (this.view.k * 0.94);
      this.view.cy += (dy / this.size.h) * 2 / (this.view.k * 0.94);
      this.moved2 = true;
    }
    this.motion();
  }

  zoomBy(factor, at = [this.size.w / 2, this.size.h / 2]) {
    if (!this.ready) return;
    this.hover(-1);
    if (this.axes.length === 3) {
      this.camera.k = Math.min(Math.max(this.camera.k * factor, 0.02), 200);
      this.moved3 = true;
    } else {
      const before = this.view.k, k = Math.min(Math.max(before * factor, 0.05), 5000), a = (at[0] / this.size.w) * 2 - 1, b = 1 - (at[1] / this.size.h) * 2;
      this.view.cx += (a / 0.94) * (1 / before - 1 / k);
      this.view.cy += (b / 0.94) * (1 / before - 1 / k);
      this.view.k = k;
      this.moved2 = true;
    }
    this.motion();
  }

  pinched() {
    const [a, b] = [...this.pointers.values()], now = { x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2, apart: Math.max(Math.hypot(a[0] - b[0], a[1] - b[1]), 10) };
    this.drawing = null;
    this.pressed.far = true;
    if (this.pinch) {
      if (this.axes.length === 2) this.drag(now.x - this.pinch.x, now.y - this.pinch.y);
      this.zoomBy(now.apart / this.pinch.apart, [now.x, now.y]);
    }
    this.pinch = now;
  }

  fit() {
    this.view = { cx: 0, cy: 0, k: 1 };
    if (this.axes.length === 3) this.fit3();
    this.moved2 = this.moved3 = false;
    this.motion();
  }

  setTool(tool) {
    this.tool = tool;
    this.syncControls();
  }

  seek(at, type) {
    if (type === "touch" || this.seeking) return;
    this.seeking = true;
    requestAnimationFrame(() => {
      this.seeking = false;
      if (this.destroyed || this.moving || this.pointers.size) return;
      this.hover(this.find(...at, REACH), at);
    });
  }

  find(px, py, reach) {
    const [x, y] = this.unproject(px, py), [x1, y1] = this.unproject(px + reach, py - reach);
    return this.index().nearest(x, y, Math.abs(x1 - x), Math.abs(y1 - y), this.bits);
  }

  pick(px, py, reach) {
    const row = this.find(px, py, reach);
    if (row < 0) return;
    this.hover(row, [px, py]);
    this.options.onPick?.(row);
  }

  hover(row, at) {
    if (row >= 0 && at) {
      const right = at[0] > this.size.w * 0.6, low = at[1] > this.size.h * 0.6;
      Object.assign(this.card.style, { left: right ? "" : `${at[0] + 14}px`, right: right ? `${this.size.w - at[0] + 14}px` : "", top: low ? "" : `${at[1] + 12}px`, bottom: low ? `${this.size.h - at[1] + 12}px` : "" });
    }
    if (row === (this.over ?? -1)) return;
    this.over = row;
    this.stage.toggleAttribute("data-over", row >= 0);
    this.card.hidden = row < 0;
    this.request();
    if (row < 0) return;
    this.fillCard(row, {});
    const describe = this.options.describe ?? ((r) => this.described(r));
    clearTimeout(this.describing);
    this.describing = setTimeout(async () => {
      try {
        const said = await describe(row);
        if (this.over === row) this.fillCard(row, said);
      } catch {
        /* the card keeps the cluster of the row */
      }
    }, 40);
  }

  described(row) {
    const lines = Object.values(this.columns).filter((c) => c.values && !["x", "y", "z", "cluster", "title"].includes(c.name)).slice(0, 8)
      .map((c) => `${c.label}: ${c.kind === "number" ? number(c.values[row]) : c.kind === "category" ? c.names[c.values[row]] : c.values[row]}`);
    return { title: this.columns.title?.values?.[row] ?? this.columns.title?.source?.[row] ?? `Row ${row + 1}`, lines };
  }

  fillCard(row, { title, lines }) {
    const cluster = this.columns.cluster, code = cluster.values[row], color = this.columns[this.color];
    const own = color.kind === "number" ? `${color.label}: ${number(color.values[row])}` : color !== cluster ? `${color.label}: ${color.names[color.values[row]]}` : null;
    this.card.replaceChildren(...[title ? h("b", {}, title) : null, ...(lines ?? []).map((line) => h("span", {}, line)),
      own && !lines?.some((line) => line.startsWith(`${color.label}:`)) ? h("span", {}, own) : null,
      h("span", {}, h("i", { style: `background:rgb(${this.visible(cluster.colors[code])})` }), cluster.names[code])].filter(Boolean));
  }

  destroy() {
    this.destroyed = true;
    for (const done of this.waiting.splice(0)) done();
    clearTimeout(this.writing);
    this.resizing?.disconnect();
    this.scheme?.removeEventListener("change", this.onScheme);
    this.renderer?.destroy();
    this.root.remove();
    this.style.remove();
  }
}
