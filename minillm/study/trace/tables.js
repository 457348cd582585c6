"use strict";
// Arrays as tables: numbers or colours, a page of rows at a time. What a reader is to fill in is not shown anywhere.

const data = JSON.parse(document.getElementById("data").textContent);
// call: the one that is open; made: ids of what its op computed; answers: to blanks, by place; opener: the box in the
// graph that the focus goes back to; address: the part of the page's address that has been followed.
const state = {call: null, made: new Set(), digits: "short", practice: false, answers: new Map(), opener: null,
               address: ""};
const CELLS = 800, BLANKS = 3;                  // most cells of a page of a table; blanks in a table

function element(id) {
  return document.getElementById(id);
}

// An element: box("td.num", {title: "…"}, "text", other, …); attributes may be left out. Text is text, never HTML.
function box(kind, ...parts) {
  const [tag, ...classes] = kind.split("."), made = document.createElement(tag);
  const plain = parts[0] && typeof parts[0] === "object" && !Array.isArray(parts[0]) && !(parts[0] instanceof Node);
  made.className = classes.join(" ");
  for (const [name, value] of Object.entries(plain ? parts.shift() : {}))
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  return fill(made, ...parts);
}

// Put children into an element in place of what it holds. Lists are flattened; what is null or false is left out.
function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(9).filter(child => child instanceof Node || typeof child === "string"));
  return parent;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function button(text, action, disabled = false) {
  return box("button", {type: "button", disabled, onclick: action}, text);
}

// A token as it is shown: blanks and control characters are seen.
function shown(text) {
  const seen = text.replace(/ /g, "␣").replace(/\n/g, "\\n").replace(/\t/g, "\\t");
  return seen.replace(/\p{C}/gu, c => `\\u{${c.codePointAt(0).toString(16)}}`) || "∅";
}

const shapeText = array => `(${array.shape.join(", ")})`;
const isOne = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const full = x => box("span", {title: exact(x)}, short(x));

// {key: [those of a list that have it]}, as a Map, in their order.
function grouped(list, keyOf) {
  const found = new Map();
  for (const one of list) found.set(keyOf(one), [...(found.get(keyOf(one)) ?? []), one]);
  return found;
}

// A part of the page that is built anew when blanks appear, are filled in, or other digits are wanted.
function live(build) {
  const made = box("div.live", build());
  return Object.assign(made, {redraw: () => fill(made, build())});
}

function redrawAll() {
  for (const part of document.querySelectorAll(".live")) part.redraw();
}

// What is built when it is unfolded.
function fold(summary, build, open = false) {
  const made = box("details.fold", {open}, box("summary", summary));
  const unfold = () => { if (made.open && made.children.length === 1) made.append(...[build()].flat(9)); };
  made.addEventListener("toggle", unfold);
  unfold();
  return Object.assign(made, {unfold});
}

// A table of texts or elements with a head; the caption is for readers who cannot see it.
function table(caption, head, rows, kind = "") {
  const cells = row => row.map((cell, i) => i ? box("td", cell) : box("th", {scope: "row"}, cell));
  return box("div.wide", box(`table.plain${kind}`, box("caption.unseen", caption),
    box("thead", box("tr", head.map(text => box("th", {scope: "col"}, text)))),
    box("tbody", rows.map(row => box("tr", cells(row))))));
}

// ---- blanks ----

const rowsAPage = cols => Math.max(1, Math.min(16, Math.floor(CELLS / cols.length)));
const keyOf = (array, index) => `${array.id}/${index}`;

// The places of an array that the reader is to fill in: in the rows that are shown first, and of a cut array only where
// the terms are known, else nobody could tell.
function blanksOf(array) {
  const {rows, cols, width} = matrixOf(array), first = rows.slice(0, rowsAPage(cols)), found = new Set();
  for (const place of blanks(array.id, first.length * cols.length, BLANKS)) {
    const index = first[Math.floor(place / cols.length)] * width + cols[place % cols.length];
    if (array.whole || termsOf(data.arrays, array, index)) found.add(index);
  }
  return found;
}

// Is it to be filled in? So are only results of the op that is open.
function isBlank(array, index) {
  if (!state.practice || !state.made.has(array.id) || !isFloat(array)) return false;
  array.blanks ??= blanksOf(array);
  return array.blanks.has(index) && !state.answers.has(keyOf(array, index));
}

// The number at a place as text, or a question mark.
function textAt(array, index, all = state.digits === "all") {
  const value = matrixOf(array).at(index);
  if (value === undefined) return "not recorded";
  return isBlank(array, index) ? "?" : (all ? exact : short)(value, isFloat(array));
}

// ---- tables of arrays ----

// What a row stands for: a token, a head and a token; else its index.
function rowLabel(array, row) {
  const {tokens, model: {config}} = data, lead = array.shape.slice(0, -1), place = indices(lead, row);
  const token = position => box("b", shown(tokens[position].text)), last = tokens.length - 1;
  if (array.kind === "parameter" || array.shape[0] === config.vocab_size) {
    const known = lead.length === 1 && lead[0] === config.vocab_size ? tokens.findIndex(one => one.id === row) : -1;
    return known >= 0 ? [`${row} `, token(known)] : place.join(", ");
  }
  const heads = lead.length === 3 && lead[1] === config.n_head;
  if (lead.length > 2 && !heads || !lead.length) return place.join(", ");
  const decoding = data.calls[array.made_by ?? array.used_by[0]]?.phase === "decode";
  const at = decoding && lead.at(-1) === 1 ? last : place.at(-1);
  const known = [last, last + 1].includes(lead.at(-1)) || at === last;
  return [heads && `head ${place[1]}, `, String(at), known && [" ", token(at)]];
}

// A table of an array, a page of its rows at a time. choose(array, index): what a click on a number does.
function matrix(array, title, choose) {
  const found = matrixOf(array), size = rowsAPage(found.cols), figure = box("figure.matrix.live");
  let start = 0;
  const pages = rows => box("p.pages", button("earlier rows", () => turn(-size), start === 0),
    ` rows ${rows[0]} to ${rows.at(-1)} `, button("later rows", () => turn(size), start + size >= found.rows.length));
  const redraw = () => {
    const rows = found.rows.slice(start, start + size);
    fill(figure, box("figcaption", box("strong", title), ` ${shapeText(array)} `, statsText(array)),
         box("div.wide", grid(array, title, rows, found, choose)), found.rows.length > size && pages(rows),
         array.whole || histogram(array));
  };
  const turn = by => {
    start += by;
    redraw();
    figure.querySelector(by > 0 ? ".pages :last-child:enabled, .pages button" : ".pages button:enabled")?.focus();
  };
  const turnTo = index => {
    const at = found.rows.indexOf(Math.floor(index / found.width));
    if (at >= 0 && at - at % size !== start) turn(at - at % size - start);
  };
  redraw();
  return Object.assign(figure, {array, redraw, turnTo});
}

function grid(array, title, rows, {cols, width}, choose) {
  const made = box("table.grid", {role: "grid", "aria-label": `${title} ${shapeText(array)}`},
    box("thead", box("tr", box("td"), cols.map(col => box("th", {scope: "col"}, String(col))))),
    box("tbody", rows.map(row => box("tr", box("th", {scope: "row"}, rowLabel(array, row)),
                                     cols.map(col => cellOf(array, row * width + col))))));
  made.querySelector("td[tabindex]")?.setAttribute("tabindex", "0");
  made.addEventListener("click", ({target}) => pick(target.closest("td[data-index]"), choose));
  made.addEventListener("keydown", event => walk(event, choose));
  return made;
}

// A number in its table: coloured by its size, marked by its finite difference or by the reader's answer.
function cellOf(array, index) {
  const blank = isBlank(array, index), answer = state.answers.get(keyOf(array, index));
  const checked = blank ? null : numericOf(array, index), value = matrixOf(array).at(index);
  const mark = blank ? ".blank" : answer ? (answer.right ? ".right" : ".wrong")
    : checked ? (checked.agrees ? ".agrees" : ".differs") : "";
  const said = `${nameAt(array, index)} ${blank ? "is a blank" : `= ${textAt(array, index, true)}`}`
    + (checked ? `; its finite difference ${exact(checked.value)} ${checked.agrees ? "agrees" : "differs"}` : "");
  const below = checked && `≈ ${(state.digits === "all" ? exact : short)(checked.value)}`;
  const given = {"data-array": array.id, "data-index": index, "data-below": below, tabindex: "-1", title: said,
                 "aria-label": said};
  const made = box(`td${mark}`, given, textAt(array, index), array.kind === "token" && tokenOf(value));
  if (!blank && isFloat(array)) colour(made, value / (largestOf(array) || 1));
  return made;
}

// The text of a token of the prompt, after its id.
function tokenOf(id) {
  const token = data.tokens.find(one => one.id === id);
  return token && [" ", box("b", shown(token.text))];
}

// A background: green above zero, red below, stronger the larger; 1 is the largest number of the array.
function colour(cell, share) {
  cell.style.setProperty("--ink", share < 0 ? "var(--warn)" : "var(--accent)");
  cell.style.setProperty("--much", `${Math.round(Math.min(1, Math.abs(share)) * 100)}%`);
}

function pick(cell, choose) {
  if (!cell) return;
  for (const other of document.querySelectorAll("td.chosen")) other.classList.remove("chosen");
  cell.classList.add("chosen");
  goTo(cell);
  choose(data.arrays[cell.dataset.array], Number(cell.dataset.index));
  cell.scrollIntoView({block: "nearest", inline: "nearest"});
}

function goTo(cell) {
  for (const other of cell.closest("table").querySelectorAll("td[tabindex='0']")) other.setAttribute("tabindex", "-1");
  cell.setAttribute("tabindex", "0");
  cell.focus();
}

// Arrow keys walk among the numbers of a table; Enter or a space chooses one.
function walk(event, choose) {
  const cell = event.target.closest("td[data-index]");
  if (!cell) return;
  const row = [...cell.parentElement.querySelectorAll("td[data-index]")], at = row.indexOf(cell);
  const beside = line => line?.querySelectorAll("td[data-index]")[at], line = cell.parentElement;
  const to = {ArrowRight: () => row[at + 1], ArrowLeft: () => row[at - 1], Home: () => row[0], End: () => row.at(-1),
              ArrowDown: () => beside(line.nextElementSibling), ArrowUp: () => beside(line.previousElementSibling)};
  const chooses = event.key === "Enter" || event.key === " ";
  if (!chooses && !(event.key in to)) return;
  event.preventDefault();
  event.stopPropagation();
  if (chooses) return pick(cell, choose);
  const next = to[event.key]();
  if (next) goTo(next);
}

// ---- what is said of an array as a whole ----

function statsText(array) {
  const {norm, mean, min, max} = array.stats ?? {};
  return box("span.soft", array.dtype, isFloat(array) && norm !== undefined && [
    " · norm ", full(norm), " · mean ", full(mean), " · from ", full(min), " to ", full(max)]);
}

// How all numbers of an array are spread of which only a cut is here.
function histogram(array) {
  const all = array.shape.join(" × "), found = array.stats?.histogram;
  const said = `${array.rows.length} × ${array.cols.length} of its ${all} numbers are here`;
  if (!found) return box("p.soft", `${said}.`);
  const most = Math.max(...found.counts), wide = 100 / found.counts.length;
  const bins = found.counts.map((count, i) => svg("rect", {class: "bin", x: i * wide + 0.4, width: wide - 0.8,
                                                           y: 40 - 40 * count / most, height: 40 * count / most}));
  const label = `histogram of all ${all} numbers: ${found.counts.join(", ")}`;
  return box("div.histogram", box("p.soft", `${said}; all of them:`),
    svg("svg", {viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": label}, ...bins),
    box("p.ends", full(found.low), full(found.high)));
}
