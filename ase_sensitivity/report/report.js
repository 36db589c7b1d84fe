// Draws the report: charts and structures by plotly, the table by hand. No state outlives the page.
const text = document.getElementById("data").textContent;
const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
const data = JSON.parse(await new Response(unpacked).text());

const $ = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const causeColors = Object.fromEntries(data.causes.map(({ name, colors }) => [name, colors]));
const color = (name) => name in causeColors ? causeColors[name][+dark.matches]
  : getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const narrow = () => window.innerWidth < 720;
const FLOOR = data.floor; // a zero has no logarithm
const CAUSES = ["none", ...data.causes.map(({ name }) => name)]; // the worst are drawn last
const MARKERS = ["circle", ...data.causes.map(({ marker }) => marker)];
const FEW = 2000; // points that SVG draws well
const config = { responsive: true, displaylogo: false, displayModeBar: false };
const zoomable = { ...config, displayModeBar: !narrow(),
  modeBarButtons: [["zoom2d", "pan2d", "autoScale2d", "toImage"]] };
const turnable = { ...config, displayModeBar: !narrow(),
  modeBarButtons: [["orbitRotation", "pan3d", "resetCameraDefault3d", "toImage"]] };

// Rows -------------------------------------------------------------------------------------------
const columns = data.columns;
const column = Object.fromEntries(columns.map((entry) => [entry.key, entry]));
const n = data.n_rows;
const value = (key, row) => {
  const entry = column[key];
  if (!entry) return null;
  const found = entry.values[row];
  return entry.words && found !== null ? entry.words[found] : found;
};
const cause = (row) => {
  const found = value("cause", row) || "none";
  return CAUSES.includes(found) ? found : "unknown";
};
const show = (found) => {
  if (found === null || found === undefined) return "";
  if (typeof found !== "number" || Number.isInteger(found)) return String(found);
  const size = Math.abs(found);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? found.toExponential(2) : String(+found.toPrecision(4));
};
const title = (row) => `Frame ${value("index", row)} of ${value("source", row)}`;
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // plotly obeys tags

let selected = data.worst.length ? data.worst[0] : 0;

// Look of all charts -----------------------------------------------------------------------------
const axis = (label, more = {}) => ({ title: { text: label, standoff: 8 }, gridcolor: color("line"),
  linecolor: color("line"), zerolinecolor: color("line"), automargin: true, ...more });
const logarithmic = (label, more = {}) => axis(label, { type: "log", exponentformat: "power", dtick: null,
  nticks: 8, ...more });
const layout = (more) => ({ paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  font: { color: color("text"), family: getComputedStyle(document.body).fontFamily, size: narrow() ? 11 : 13 },
  margin: { l: 10, r: 10, t: 34, b: 10 },
  modebar: { bgcolor: "rgba(0,0,0,0)", color: color("quiet"), activecolor: color("accent") }, hoverlabel: { align: "left" }, showlegend: false,
  hovermode: "closest", dragmode: narrow() ? false : "zoom", ...more });

// Frames -----------------------------------------------------------------------------------------
const quantity = $("quantity");
for (const entry of data.quantities) quantity.add(new Option(entry.label, entry.key));

const position = (row) => data.x.values ? data.x.values[row] : row;
function drawOverview() {
  if (!data.quantities.length) return;
  const chosen = data.quantities.find((entry) => entry.key === quantity.value);
  const kind = n > FEW ? "scattergl" : "scatter";
  const floor = chosen.log ? FLOOR : -Infinity;
  const rows = Object.fromEntries(CAUSES.map((name) => [name, []]));
  for (let row = 0; row < n; row++)
    if (value(chosen.key, row) !== null) rows[cause(row)].push(row);
  const traces = CAUSES.map((name, i) => ({ type: kind, mode: "markers", name: name === "none" ? "seen" : name,
    x: rows[name].map(position), y: rows[name].map((row) => Math.max(value(chosen.key, row), floor)),
    customdata: rows[name],
    text: n > FEW ? undefined : rows[name].map((row) => `${plain(title(row))}<br>${chosen.label} ${show(value(chosen.key, row))}`),
    hoverinfo: n > FEW ? "x+y+name" : "text+name",
    marker: { color: color(name), symbol: MARKERS[i], size: n > 20000 ? 3 : n > 300 ? 5 : 9, opacity: n > 300 ? .7 : .9 },
    visible: rows[name].length > 0 })).filter((trace) => trace.visible);
  const here = value(chosen.key, selected);
  traces.push({ type: kind, mode: "markers", name: "selected", showlegend: false, hoverinfo: "skip",
    x: here === null ? [] : [position(selected)], y: here === null ? [] : [Math.max(here, floor)],
    marker: { symbol: "circle-open", size: 18, color: color("text"), line: { width: 2.5, color: color("text") } } });
  const lines = data.thresholds[chosen.key] ?? [];
  Plotly.react("overview", traces, layout({ showlegend: true,
    legend: { orientation: "h", itemsizing: "constant", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: axis(data.x.label, { hoverformat: ".6~g" }),
    yaxis: (chosen.log ? logarithmic : axis)(chosen.unit ? `${chosen.label} (${chosen.unit})` : chosen.label),
    shapes: lines.map((line) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: line.value, y1: line.value,
      line: { color: color("quiet"), width: 1, dash: "dash" } })),
    annotations: lines.map((line) => ({ xref: "paper", x: 1, xanchor: "right", yanchor: "bottom",
      y: chosen.log ? Math.log10(line.value) : line.value, text: line.label, showarrow: false,
      font: { color: color("quiet"), size: 11 } })) }), zoomable);
}
quantity.onchange = drawOverview;

// One frame --------------------------------------------------------------------------------------
const structures = new Map(data.structures.map((entry) => [entry.row, entry]));
let modeNumber = 0, playing = !matchMedia("(prefers-reduced-motion: reduce)").matches, visible = true;
let drawn = null; // what the viewer shows: its structure and its spheres

const BALLS = [[60, ball(2)], [300, ball(1)], [Infinity, ball(0)]]; // the fewer atoms, the rounder
function ball(level) { // an octahedron, its faces divided
  let points = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]];
  let faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]];
  for (let round = 0; round <= level; round++) {
    const middle = new Map(), next = [];
    const between = (a, b) => {
      const key = a < b ? `${a} ${b}` : `${b} ${a}`;
      if (!middle.has(key)) {
        const sum = points[a].map((c, k) => c + points[b][k]), size = Math.hypot(...sum);
        middle.set(key, points.push(sum.map((c) => c / size)) - 1);
      }
      return middle.get(key);
    };
    for (const [a, b, c] of faces) {
      const ab = between(a, b), bc = between(b, c), ca = between(c, a);
      next.push([a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]);
    }
    faces = next;
  }
  return { points, faces };
}

const coordinates = (points) => [0, 1, 2].map((k) => points.map((point) => point === null ? null : point[k]));

function atomColors(structure) {
  const how = $("coloring").value;
  if (how === "species") return structure.numbers.map((z) => data.elements[z].color);
  const size = how === "loss" ? structure.force_loss : lengths(mode(structure));
  const largest = Math.max(...size, 1e-300);
  return size.map((s) => blend([150, 160, 175], [220, 50, 20], s / largest));
}
const blend = (from, to, share) => `rgb(${from.map((c, k) => Math.round(c + share * (to[k] - c))).join(",")})`;
const lengths = (vectors) => vectors.map((v) => Math.hypot(...v));
// after the modes comes the way to the partner, the structure that features confuse with this one
const partner = (structure) => modeNumber === structure.modes.length ? structure.partner?.vectors : undefined;
const mode = (structure) => partner(structure) ?? structure.modes[modeNumber] ?? structure.positions.map(() => [0, 0, 0]);

function bondsOf(structure) {
  const found = [], p = structure.positions, z = structure.numbers;
  if (p.length > 1500) return found;
  for (let i = 0; i < p.length; i++)
    for (let j = 0; j < i; j++) {
      const reach = 1.2 * (data.elements[z[i]].radius + data.elements[z[j]].radius);
      if (Math.hypot(p[i][0] - p[j][0], p[i][1] - p[j][1], p[i][2] - p[j][2]) < reach) found.push([i, j]);
    }
  return found;
}

function edgesOf(cell) {
  const corner = (a, b, c) => [0, 1, 2].map((k) => a * cell[0][k] + b * cell[1][k] + c * cell[2][k]);
  const edges = [];
  for (const [a, b] of [[0, 0], [0, 1], [1, 0], [1, 1]])
    edges.push(corner(0, a, b), corner(1, a, b), null, corner(a, 0, b), corner(a, 1, b), null,
      corner(a, b, 0), corner(a, b, 1), null);
  return edges;
}

function displaced(structure, phase) { // positions, swung along the mode, or between the partners
  const way = partner(structure);
  if (way) return structure.positions.map((p, i) => p.map((c, k) => c + (phase + 1) / 2 * way[i][k]));
  const vectors = mode(structure), most = Math.max(...lengths(vectors), 1e-12);
  const factor = phase * $("amplitude").value / most;
  return structure.positions.map((p, i) => p.map((c, k) => c + factor * vectors[i][k]));
}

function geometry(positions) { // spheres and bonds at these positions
  const { structure, shape, bonds } = drawn;
  const x = [], y = [], z = [];
  positions.forEach((p, i) => {
    const radius = .45 * data.elements[structure.numbers[i]].radius + .12;
    for (const point of shape.points) {
      x.push(p[0] + radius * point[0]); y.push(p[1] + radius * point[1]); z.push(p[2] + radius * point[2]);
    }
  });
  const ends = bonds.flatMap(([i, j]) => [positions[i], positions[j], null]);
  return [[x, y, z], coordinates(ends)];
}

function drawStructure() {
  const structure = structures.get(selected);
  drawn = { structure, shape: BALLS.find(([most]) => structure.positions.length <= most)[1],
    bonds: bondsOf(structure) };
  const { shape } = drawn, colors = atomColors(structure);
  const [[x, y, z], [bx, by, bz]] = geometry(partner(structure) ? structure.positions : displaced(structure, 0));
  const i = [], j = [], k = [], vertexcolor = [];
  structure.positions.forEach((_, atom) => {
    const start = atom * shape.points.length;
    for (const face of shape.faces) { i.push(start + face[0]); j.push(start + face[1]); k.push(start + face[2]); }
    for (let point = 0; point < shape.points.length; point++) vertexcolor.push(colors[atom]);
  });
  const traces = [
    { type: "mesh3d", x, y, z, i, j, k, vertexcolor, hoverinfo: "skip", flatshading: false,
      lighting: { ambient: .55, diffuse: .7, specular: .25, roughness: .5 }, lightposition: { x: 1e3, y: 1e3, z: 2e3 } },
    { type: "scatter3d", mode: "lines", x: bx, y: by, z: bz, hoverinfo: "skip", line: { color: color("none"), width: 7 } },
    // invisible, for the labels: a mesh has no atoms to point at
    { type: "scatter3d", mode: "markers", opacity: 0, marker: { size: 12 },
      ...named(coordinates(structure.positions)), hoverinfo: "text",
      text: structure.numbers.map((number, atom) => `${data.elements[number].symbol} ${atom}` +
        (structure.force_loss ? `<br>lost force ${show(structure.force_loss[atom])} eV/Å` : "")) },
  ];
  if (partner(structure)) { // both structures: the partner as rings and thin bonds
    const other = displaced(structure, 1);
    traces.push({ type: "scatter3d", mode: "markers", hoverinfo: "skip",
      marker: { size: 12, symbol: "circle-open", color: color("accent") }, ...named(coordinates(other)) },
    { type: "scatter3d", mode: "lines", hoverinfo: "skip", line: { color: color("accent"), width: 3 },
      ...named(coordinates(drawn.bonds.flatMap(([a, b]) => [other[a], other[b], null]))) });
  }
  if ($("arrows").checked) {
    const ends = displaced(structure, 1), rest = structure.positions;
    const factor = partner(structure) ? 1 : 2;
    const long = rest.map((p, atom) => p.map((c, k2) => c + factor * (ends[atom][k2] - c)));
    traces.push({ type: "scatter3d", mode: "lines", hoverinfo: "skip", line: { color: color("accent"), width: 6 },
      ...named(coordinates(rest.flatMap((p, atom) => [p, long[atom], null]))) });
    const moving = rest.map((_, atom) => atom).filter((atom) => Math.hypot(...long[atom].map((c, k2) => c - rest[atom][k2])) > .05);
    traces.push({ type: "cone", anchor: "tip", showscale: false, hoverinfo: "skip", sizemode: "absolute", sizeref: .3,
      colorscale: [[0, color("accent")], [1, color("accent")]],
      ...named(coordinates(moving.map((atom) => long[atom]))),
      ...named(coordinates(moving.map((atom) => { const d = long[atom].map((c, k2) => c - rest[atom][k2]); return d.map((c) => c / Math.hypot(...d)); })), "uvw") });
  }
  if (structure.pbc.some(Boolean))
    traces.push({ type: "scatter3d", mode: "lines", hoverinfo: "skip", line: { color: color("quiet"), width: 2 },
      ...named(coordinates(edgesOf(structure.cell))) });
  const hidden = { visible: false, showspikes: false };
  // plotly makes the box of all points one in volume; keep all of a long one in sight
  const corners = structure.positions.concat(edgesOf(structure.cell).filter(Boolean));
  const sides = coordinates(structure.pbc.some(Boolean) ? corners : structure.positions)
    .map((values) => 1.5 + values.reduce((most, v) => Math.max(most, v), -Infinity) - values.reduce((least, v) => Math.min(least, v), Infinity));
  const far = (narrow() ? 1.4 : 1.1) * Math.max(...sides) / Math.cbrt(sides[0] * sides[1] * sides[2]);
  Plotly.react("structure", traces, layout({ dragmode: "orbit", uirevision: selected, margin: { l: 0, r: 0, t: 0, b: 0 },
    scene: { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "data", uirevision: selected,
      camera: { projection: { type: "perspective" }, eye: { x: .8 * far, y: -.8 * far, z: .5 * far } } } }), turnable);
}
const named = (values, names = "xyz") => Object.fromEntries([...names].map((name, k) => [name, values[k]]));

let last = 0, busy = false;
async function animate(time) {
  requestAnimationFrame(animate);
  if (!drawn || !playing || !visible || busy || time - last < 40) return;
  last = time;
  busy = true;
  const [[x, y, z], [bx, by, bz]] = geometry(displaced(drawn.structure, Math.sin(time / 300)));
  await Plotly.restyle("structure", { x: [x, bx], y: [y, by], z: [z, bz] }, [0, 1]);
  busy = false;
}
new IntersectionObserver((entries) => { visible = entries[0].isIntersecting; }).observe($("structure"));

function drawAtoms() {
  const structure = structures.get(selected), loss = structure.force_loss;
  const lost = loss?.some((v) => v > 0) ? loss : null;
  const size = lost ?? lengths(mode(structure));
  let order = size.map((_, atom) => atom);
  if (order.length > 60) order = order.sort((a, b) => size[b] - size[a]).slice(0, 60).sort((a, b) => a - b);
  const label = lost ? "lost force (eV/Å)" : "motion in this mode";
  Plotly.react("atoms", [{ type: "bar", x: order.map((atom) => `${data.elements[structure.numbers[atom]].symbol} ${atom}`),
    y: order.map((atom) => size[atom]), marker: { color: color("accent") }, hovertemplate: "%{x}: %{y:.3g}<extra></extra>" }],
    layout({ dragmode: false, xaxis: axis(order.length < size.length ? "the 60 atoms with most" : "atom", { type: "category", gridcolor: "rgba(0,0,0,0)" }),
      yaxis: axis(label, { rangemode: "tozero", exponentformat: "power" }) }), config);
}

function drawFrame() {
  $("frame").dataset.row = selected;
  $("frame-title").textContent = title(selected);
  const facts = columns.filter((entry) => !["source", "index"].includes(entry.key) && value(entry.key, selected) !== null
      && !(entry.key.startsWith("n_") && value(entry.key, selected) === 0))
    .map((entry) => `${entry.label} ${show(value(entry.key, selected))}${entry.unit ? " " + entry.unit : ""}`);
  $("frame-facts").textContent = facts.join(" · ");
  const structure = structures.get(selected);
  $("structure-part").hidden = !structure;
  $("no-structure").hidden = Boolean(structure);
  drawn = null;
  if (structure) {
    modeNumber = 0;
    $("mode").replaceChildren(...structure.modes.map((_, i) =>
      new Option(`${i + 1}: sigma / sigma_max ${show(structure.ratios[i])}${structure.causes[i] ? ", " + structure.causes[i] : ""}`, i)));
    if (structure.partner?.vectors) $("mode").append(new Option("partner", structure.modes.length));
    $("partner").textContent = structure.partner?.text ?? "";
    const colorings = $("coloring").options;
    colorings[2].disabled = !structure.force_loss;
    if ($("coloring").value === "loss" && !structure.force_loss) $("coloring").value = "species";
    drawStructure();
    drawAtoms();
  } else
    $("no-structure").textContent = `The page holds the ${structures.size} worst structures; this one is in the results.`;
  const rank = data.worst.indexOf(selected);
  $("worse").disabled = rank === 0 || !data.worst.length;
  $("better").disabled = rank === data.worst.length - 1 || !data.worst.length;
}

function select(row, scroll = false) {
  selected = row;
  drawOverview();
  drawFrame();
  drawTable();
  if (scroll) $("frame").scrollIntoView({ behavior: "smooth", block: "nearest" });
}
$("worse").onclick = () => select(data.worst[Math.max(data.worst.indexOf(selected) - 1, 0)]);
$("better").onclick = () => select(data.worst[Math.min(data.worst.indexOf(selected) + 1, data.worst.length - 1)]);
$("mode").onchange = () => { modeNumber = +$("mode").value; drawStructure(); drawAtoms(); };
$("coloring").onchange = $("arrows").onchange = drawStructure;
$("amplitude").oninput = () => { if ($("arrows").checked || !playing) drawStructure(); };
const label = () => { $("play").textContent = playing ? "Pause" : "Play"; };
$("play").onclick = () => { playing = !playing; label(); };

// Forces and spectrum ----------------------------------------------------------------------------
function drawForces() {
  $("forces").hidden = !data.curve;
  if (!data.curve) return;
  Plotly.react("curve", [{ type: "scatter", mode: "lines+markers", x: data.curve.threshold,
    y: data.curve.irreducible.map((v) => Math.max(v, FLOOR)), line: { color: color("incompleteness"), width: 2, shape: "hv" },
    marker: { size: 4 }, hovertemplate: "usable above %{x:.1e}: %{y:.3g} eV/Å<extra></extra>" }],
    layout({ xaxis: logarithmic("smallest sigma / sigma_max a model can use"),
      yaxis: logarithmic("irreducible error (eV/Å)") }), zoomable);
  const symbols = Object.keys(data.species_loss);
  $("species").hidden = !symbols.some((symbol) => data.species_loss[symbol] > 0);
  Plotly.react("species", [{ type: "bar", x: symbols, y: Object.values(data.species_loss), width: .5, marker: { color: color("accent") },
    hovertemplate: "%{x}: %{y:.3g} eV/Å<extra></extra>" }],
    layout({ dragmode: false, xaxis: axis("species", { type: "category", gridcolor: "rgba(0,0,0,0)" }),
      yaxis: axis("lost force, rms (eV/Å)", { rangemode: "tozero", exponentformat: "power" }) }), config);
}

function drawSpectrum() {
  const map = data.spectrum;
  if (!map.z.length) return;
  $("spectrum-note").textContent = map.note;
  Plotly.react("spectrum", [{ type: "heatmap", z: map.z, x: map.rows.map(position), y: map.z.map((_, i) => i + 1),
    colorscale: "Viridis", zmax: 0, zmin: map.zmin, customdata: map.z.map(() => map.rows),
    hovertemplate: "value %{y}: 10^%{z:.2f}<extra></extra>",
    colorbar: { title: { text: narrow() ? "log<sub>10</sub>" : "log<sub>10</sub> sigma / sigma_max", side: "right" }, thickness: 12, outlinewidth: 0 } }],
    layout({ dragmode: false, xaxis: axis(data.x.label),
      yaxis: axis("singular value", { dtick: map.z.length > 12 ? null : 1, gridcolor: "rgba(0,0,0,0)" }) }), config);
}

// Table ------------------------------------------------------------------------------------------
const PAGE = 20;
let order = Array.from({ length: n }, (_, row) => row), page = 0, sorting = { key: null, down: false };
const hasCause = (row, name) => !name || cause(row) === name || value(`n_${name}`, row) > 0;
$("filter").add(new Option("any", ""));
for (const name of CAUSES.filter((entry) => order.some((row) => hasCause(row, entry)))) $("filter").add(new Option(name, name));

function arrange() {
  order = [];
  for (let row = 0; row < n; row++) if (hasCause(row, $("filter").value)) order.push(row);
  const { key, down } = sorting;
  if (key) {
    const sign = down ? -1 : 1;
    order.sort((a, b) => {
      const [p, q] = [value(key, a), value(key, b)];
      if (p === null || q === null) return (p === null) - (q === null);
      return sign * (p < q ? -1 : p > q ? 1 : 0);
    });
  }
  page = 0;
  drawTable();
}

const header = $("table").tHead.insertRow();
for (const entry of columns) {
  const cell = document.createElement("th"), button = document.createElement("button");
  button.textContent = entry.label;
  button.title = entry.unit ? `${entry.key} in ${entry.unit}` : entry.key;
  cell.className = entry.words ? "word" : "";
  cell.scope = "col";
  button.onclick = () => {
    sorting = { key: entry.key, down: sorting.key === entry.key && !sorting.down };
    for (const other of header.cells) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    for (const other of header.cells) other.firstChild.textContent = other.firstChild.textContent.replace(/ [▲▼]$/, "");
    button.textContent += sorting.down ? " ▼" : " ▲";
    arrange();
  };
  cell.append(button);
  header.append(cell);
}

function drawTable() {
  const pages = Math.max(1, Math.ceil(order.length / PAGE));
  const body = $("table").tBodies[0];
  body.replaceChildren();
  for (const row of order.slice(page * PAGE, (page + 1) * PAGE)) {
    const line = body.insertRow();
    line.dataset.row = row;
    line.setAttribute("aria-selected", row === selected);
    line.onclick = () => select(row, true);
    for (const entry of columns) {
      const cell = line.insertCell(), words = show(value(entry.key, row));
      cell.className = entry.words ? "word" : "";
      cell.title = entry.words ? words : "";
      if (entry.key === "index") {
        const button = document.createElement("button");
        button.textContent = words;
        button.setAttribute("aria-label", `Select ${title(row)}`);
        cell.append(button);
      } else cell.textContent = words;
    }
  }
  $("page").textContent = `${page + 1} of ${pages} (${order.length} frames)`;
  $("previous").disabled = page === 0;
  $("next").disabled = page >= pages - 1;
}
$("previous").onclick = () => { page--; drawTable(); };
$("next").onclick = () => { page++; drawTable(); };
$("filter").onchange = arrange;
$("csv").onclick = () => {
  const field = (found) => found === null ? "" : /[",\n\r]/.test(found) ? `"${String(found).replaceAll('"', '""')}"` : String(found);
  const lines = [columns.map((entry) => entry.key).join(",")];
  for (const row of order) lines.push(columns.map((entry) => field(value(entry.key, row))).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
  link.download = "frames.csv";
  link.click();
  URL.revokeObjectURL(link.href);
};

// All of it --------------------------------------------------------------------------------------
function draw() {
  drawOverview();
  drawForces();
  drawSpectrum();
}
$("kept").textContent = data.note;
label();
draw();
arrange();
if (n) drawFrame();
$("overview").on?.("plotly_click", (event) => {
  const row = event.points[0].customdata;
  if (row !== undefined) select(row, true);
});
$("spectrum").on?.("plotly_click", (event) => select(data.spectrum.rows[event.points[0].pointIndex[1]], true));
dark.addEventListener("change", () => { draw(); if (n) drawFrame(); });
requestAnimationFrame(animate);
document.documentElement.dataset.ready = "true";
