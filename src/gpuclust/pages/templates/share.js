"use strict";
// A link to a folded cluster opens what it is in.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let at = target.parentElement; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();

// The search: every word typed must occur in the title, the creator or the group, without regard to case and accents.
const sample = document.getElementById("sample");
if (sample) {
  const { names, colors, items } = JSON.parse(sample.textContent);
  const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const folded = items.map((item) => fold(item.slice(0, 3).join(" ")));
  const query = document.getElementById("query"), found = document.getElementById("found");
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const line = ([title, creator, , cluster, address]) => {
    const li = document.createElement("li"), [color, ink, label] = colors[cluster] ?? ["#b8b8b8", "#1f2328", String(cluster)];
    const chip = make("a", label, "chip");
    chip.href = "#cluster-" + cluster;
    chip.title = names[cluster] ?? "";
    chip.style.setProperty("--chip", color);
    chip.style.setProperty("--chip-ink", ink);
    const text = make(address ? "a" : "bdi", title);
    if (address) Object.assign(text, { href: address, target: "_blank", rel: "noopener noreferrer" });
    li.append(chip, " ", text);
    if (creator) li.append(make("span", " · " + creator, "quiet"));
    li.append(make("span", " · " + (names[cluster] ?? ""), "quiet"));
    return li;
  };
  query.addEventListener("input", () => {
    const words = fold(query.value).split(/\s+/).filter(Boolean);
    const hits = words.length ? items.filter((_, i) => words.every((word) => folded[i].includes(word))) : [];
    found.replaceChildren(...hits.slice(0, 20).map(line));
    if (words.length && !hits.length) found.append(make("li", "Nothing in the sample matches.", "quiet"));
    if (hits.length > 20) found.append(make("li", `and ${(hits.length - 20).toLocaleString("en")} more`, "quiet"));
  });
}
