// The page to send: its map, its search, and links to folded clusters. It follows the text of points.js in one module.
const sample = JSON.parse(document.getElementById("sample").textContent);
const clusterOf = new Map(sample.clusters.map(([id, name, color, ink, label]) => [id, { id, name, color, ink, label }]));
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
const labels = sample.wide ? new Int32Array(bytes(sample.cluster)) : new Int16Array(bytes(sample.cluster));

// A link to a folded cluster opens what it is in.
function reveal() {
  const target = document.getElementById(location.hash.slice(1)); // the ids are plain ASCII
  if (!target) return;
  for (let at = target.parentElement; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);

// The map of the sample takes the place of the picture, which stays where it cannot be drawn.
function draw() {
  const picture = document.getElementById("map");
  if (!picture || !labels.length) return;
  const coordinate = (text, [low, high]) => Float32Array.from(new Uint16Array(bytes(text)), (v) => (v === 65535 ? NaN : low + (v / 65534) * (high - low)));
  const place = document.createElement("div");
  place.id = "points";
  picture.before(place);
  try {
    const map = mount(place, { x: coordinate(sample.x, sample.spans[0]), y: coordinate(sample.y, sample.spans[1]), cluster: labels }, {
      clusters: [...clusterOf.values()],
      columns: { x: { label: sample.axes[0] }, y: { label: sample.axes[1] } },
      height: 480,
      url: null,
      describe(row) {
        const [title, creator, group] = sample.items[row] ?? [];
        const name = clusterOf.get(labels[row])?.name ?? String(labels[row]);
        return { title: title || name, lines: [creator, group, title ? name : ""].filter(Boolean) };
      },
    });
    if (map.stats().failed) throw new Error(map.stats().failed);
    picture.hidden = true;
    if (labels.length < sample.rows) {
      const note = document.createElement("p");
      note.className = "quiet";
      note.textContent = `The map shows a sample of ${labels.length.toLocaleString("en")} of ${sample.rows.toLocaleString("en")} ${sample.word}.`;
      place.append(note);
    }
  } catch {
    place.remove();
  }
}
draw();
reveal(); // after the map has its height

// The search: every word typed must occur in the title, the creator or the group, without regard to case and accents.
const query = document.getElementById("query");
if (query) {
  const found = document.getElementById("found");
  const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const folded = sample.items.map((item) => fold(item.slice(0, 3).join(" ")));
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const line = (row) => {
    const [title, creator, , address] = sample.items[row], { name = "", color = "#b8b8b8", ink = "#1f2328", label = "" } = clusterOf.get(labels[row]) ?? {};
    const chip = make("a", label, "chip");
    chip.href = "#cluster-" + labels[row];
    chip.title = name;
    chip.style.setProperty("--chip", color);
    chip.style.setProperty("--chip-ink", ink);
    const text = make(address ? "a" : "bdi", title);
    if (address) Object.assign(text, { href: address, target: "_blank", rel: "noopener noreferrer" });
    const li = make("li", "");
    li.append(chip, " ", text);
    if (creator) li.append(make("span", " · " + creator, "quiet"));
    li.append(make("span", " · " + name, "quiet"));
    return li;
  };
  query.addEventListener("input", () => {
    const words = fold(query.value).split(/\s+/).filter(Boolean), hits = new Map();
    // The same title and creator is one result.
    if (words.length) folded.forEach((text, row) => words.every((word) => text.includes(word)) && !hits.has(text) && hits.set(text, row));
    found.replaceChildren(...[...hits.values()].slice(0, 20).map(line));
    if (words.length && !hits.size) found.append(make("li", "Nothing in the sample matches.", "quiet"));
    if (hits.size > 20) found.append(make("li", `and ${(hits.size - 20).toLocaleString("en")} more`, "quiet"));
  });
}
