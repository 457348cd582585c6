"use strict";
// Arrays as tables: numbers or colours, a page of rows at a time. What a reader is to fill in is not shown anywhere.

const data = JSON.parse(document.getElementById("data").textContent);
const state = {call: null, made: new Set(), digits: "short", practice: false, answers: new Map(), opener: null, address: ""};
const CELLS = 800, BLANKS = 3;                  // most cells of a page of a table; blanks in a table

function element(id) {
  return document.getElementById(id);
}

// An element: box("td.num", {title: "…"}, "text", other, …). Text is text, never HTML.
function box(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split("."), made = document.createElement(tag);
  made.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  return fill(made, ...children);
}

// Put children into an element in place of what it holds. Lists are flattened; what is null or false is left out.
function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(9).filter(child => child instanceof Node || typeof child === "string"));
  return parent;
}

// A token as it is shown: blanks and control characters are seen.
function shown(text) {
  const seen = text.replace(/ /g, "␣").replace(/\n/g, "\\n").replace(/\t/g, "\\t");
  return seen.replace(/\p{C}/gu, c => `\\u{${c.codePointAt(0).toString(16)}}`) || "∅";
}

const shapeText = array => `(${array.shape.join(", ")})`;
const isOne = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

// ---- blanks ----

// The places of an array that the reader is to fill in: of what the open op computed, in the rows that are shown first.
function blanksOf(array) {
  const {rows, cols, width} = matrixOf(array), first = rows.slice(0, rowsAPage(cols));
  const places = [...blanks(array.id, first.length * cols.length, BLANKS)];
  const found = places.map(place => first[Math.floor(place / cols.length)] * width + cols[place % cols.length]);
  return new Set(found.filter(index => array.whole || termsOf(data.arrays, array, index)));      // else nobody could tell
}

const rowsAPage = cols => Math.max(1, Math.min(16, Math.floor(CELLS / cols.length)));
const keyOf = (array, index) => `${array.id}/${index}`;

function isBlank(array, index) {
  if (!state.practice || !state.made.has(array.id) || !isFloat(array) || state.answers.has(keyOf(array, index))) return false;
  array.blanks ??= blanksOf(array);
  return array.blanks.has(index);
}

// The number at a place as text, or a question mark.
function textAt(array, index, full = false) {
  if (isBlank(array, index)) return "?";
  const value = matrixOf(array).at(index);
  return value === undefined ? "not recorded" : full || state.digits === "all" ? exact(value, isFloat(array))
                                                                              : short(value, isFloat(array));
}

// ---- tables ----

// What a row stands for: a token, a head and a token; else its index.
function rowLabel(array, row) {
  const {tokens, model: {config}} = data, lead = array.shape.slice(0, -1), place = indices(lead, row);
  const token = position => box("b", {}, shown(tokens[position].text)), last = tokens.length - 1;
  const decoding = data.calls[array.made_by ?? array.used_by[0]]?.phase === "decode";
  const positions = lead.at(-1), at = decoding && positions === 1 ? last : place.at(-1), heads = lead.length === 3 && lead[1] === config.n_head;
  if (array.kind === "parameter" || array.shape[0] === config.vocab_size) {
    const known = lead.length === 1 && lead[0] === config.vocab_size && tokens.findIndex(one => one.id === row);
    return known >= 0 && known !== false ? [`${row} `, token(known)] : place.join(", ");
  }
  if (lead.length > 2 && !heads || !lead.length) return place.join(", ");
  const name = [last, last + 1].includes(positions) || at === last ? [`${at} `, token(at)] : [String(at)];
  return heads ? [`head ${place[1]}, `, ...name] : name;
}

// A table of an array, which is built when it is asked for. choose(array, index): what a click on a number does.
function matrix(array, title, choose) {
  const found = matrixOf(array), size = rowsAPage(found.cols), figure = box("figure.matrix");
  let start = 0;
  const turn = by => {
    start += by;
    draw();
    figure.querySelector(by > 0 ? ".next:enabled, .before" : ".before:enabled, .next")?.focus();
  };
  const draw = () => {
    const rows = found.rows.slice(start, start + size), more = found.rows.length > size;
    fill(figure,
      box("figcaption", {}, box("strong", {}, title), ` ${shapeText(array)} `, statsText(array)),
      box("div.wide", {}, grid(array, title, rows, found, choose)),
      more && box("p.pages", {}, box("button.before", {type: "button", disabled: start === 0, onclick: () => turn(-size)}, "earlier rows"),
                  ` rows ${rows[0]} to ${rows.at(-1)} `,
                  box("button.next", {type: "button", disabled: start + size >= found.rows.length, onclick: () => turn(size)}, "later rows")),
      array.whole || histogram(array));
  };
  draw();
  figure.classList.add("live");
  return Object.assign(figure, {array, redraw: draw, turnTo: index => {
    const at = found.rows.indexOf(Math.floor(index / found.width)), page = at - at % size;
    if (at >= 0 && page !== start) turn(page - start);
  }});
}

// A part of the page that is built anew when blanks appear, are filled in, or digits are wanted.
function live(build) {
  const made = box("div.live", {}, build());
  made.redraw = () => fill(made, build());
  return made;
}

function redrawAll() {
  for (const part of document.querySelectorAll(".live")) part.redraw();
}

function grid(array, title, rows, {cols, width}, choose) {
  const largest = isFloat(array) && largestOf(array) || 1;
  const cell = (row, col) => {
    const index = row * width + col, blank = isBlank(array, index), checked = blank ? null : numericOf(array, index);
    const value = matrixOf(array).at(index), answer = state.answers.get(keyOf(array, index));
    const said = `${nameAt(array, index)} ${blank ? "is a blank" : `= ${textAt(array, index, true)}`}`;
    const mark = answer ? (answer.right ? ".right" : ".wrong") : checked ? (checked.agrees ? ".agrees" : ".differs") : "";
    const made = box(`td${blank ? ".blank" : mark}`, {
      "data-array": array.id, "data-index": index, tabindex: "-1", title: said, "aria-label": said}, textAt(array, index));
    if (!blank && isFloat(array)) colour(made, value / largest);
    return made;
  };
  const table = box("table.grid", {role: "grid", "aria-label": `${title} ${shapeText(array)}`},
    box("thead", {}, box("tr", {}, box("td"), cols.map(col => box("th", {scope: "col"}, String(col))))),
    box("tbody", {}, rows.map(row => box("tr", {}, box("th", {scope: "row"}, rowLabel(array, row)), cols.map(col => cell(row, col))))));
  table.querySelector("td[tabindex]")?.setAttribute("tabindex", "0");
  table.addEventListener("click", ({target}) => pick(target.closest("td[data-index]"), choose));
  table.addEventListener("keydown", event => walk(event, table, choose));
  return table;
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
function walk(event, table, choose) {
  const cell = event.target.closest("td[data-index]");
  if (!cell) return;
  const row = [...cell.parentElement.querySelectorAll("td[data-index]")], at = row.indexOf(cell);
  const beside = line => line?.querySelectorAll("td[data-index]")[at];
  const to = {ArrowRight: () => row[at + 1], ArrowLeft: () => row[at - 1], Home: () => row[0], End: () => row.at(-1),
              ArrowDown: () => beside(cell.parentElement.nextElementSibling),
              ArrowUp: () => beside(cell.parentElement.previousElementSibling)}[event.key];
  if (to || event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    event.stopPropagation();
    if (!to) pick(cell, choose);
    else if (to()) goTo(to());
  }
}

// ---- what is said of an array as a whole ----

function statsText(array) {
  const {norm, mean, min, max} = array.stats ?? {};
  if (norm === undefined) return box("span.soft", {}, array.dtype);
  const part = (name, value) => [`${name} `, box("span", {title: exact(value)}, short(value)), " "];
  return box("span.soft", {}, `${array.dtype} · `, part("norm", norm), "· ", part("mean", mean), "· ", part("from", min), part("to", max));
}

function histogram(array) {
  const found = array.stats?.histogram, [rows, cols] = [array.rows.length, array.cols.length];
  const said = box("p.soft", {}, `${rows} × ${cols} of its ${array.shape.join(" × ")} numbers are here.`);
  if (!found) return said;
  const most = Math.max(...found.counts), wide = 100 / found.counts.length;
  const bins = found.counts.map((count, i) => svg("rect", {class: "bin", x: i * wide + 0.4, width: wide - 0.8,
                                                           y: 40 - 40 * count / most, height: 40 * count / most}));
  const picture = svg("svg", {viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img",
    "aria-label": `histogram of all ${array.shape.join(" × ")} numbers: ${found.counts.join(", ")}`}, ...bins);
  return box("div.histogram", {}, said, picture,
             box("p.ends", {}, box("span", {title: exact(found.low)}, short(found.low)), box("span", {title: exact(found.high)}, short(found.high))));
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A plain table with a caption: head and rows of texts or elements; the caption is for readers who cannot see.
function table(caption, head, rows, kind = "") {
  return box("div.wide", {}, box(`table.plain${kind}`, {}, box("caption.unseen", {}, caption),
    box("thead", {}, box("tr", {}, head.map(text => box("th", {scope: "col"}, text)))),
    box("tbody", {}, rows.map(row => box("tr", {}, row.map((cell, i) => i ? box("td", {}, cell) : box("th", {scope: "row"}, cell)))))));
}
