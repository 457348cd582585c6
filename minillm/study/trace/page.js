"use strict";
// The page: the graph with its keys, what the address names, the tools; the sections are built when there is time.

const LANE = 16;

// ---- the graph ----

const groupName = group => ({update: "update", embedding: "embedding", head: "output head and loss"})[group] ?? group;

function drawGraph(phase) {
  const rows = rowsOf(data.calls, phase), blocks = new Set(rows.map(row => row.group)).size, graph = element("graph");
  graph.className = phase;
  graph.replaceChildren(svg("svg", {"aria-hidden": "true"}));
  let group = null, holder = null;
  for (const row of rows) {
    if (row.group !== group) {
      group = row.group;
      holder = section(graph, groupName(group), blocks < 6 || !/^block [1-9]/.test(group));
    }
    if (!row.inside) {
      const line = rowOf(row), steps = rows.filter(step => step.inside && step.inside === (row.forward ?? row.backward));
      holder.append(line);
      if (steps.length) section(holder, `${isOne(steps.length, "step")} inside ${opName(row.forward ?? row.backward)}`, false, "steps").append(...steps.map(rowOf));
    }
  }
  items().forEach((item, i) => item.setAttribute("tabindex", i ? "-1" : "0"));
  filter();
}

// A part of the graph that folds: its button, and the box of its rows.
function section(parent, name, open, kind = "block") {
  const rows = box("div.rows", {hidden: !open});
  const head = box(`button.head.${kind}`, {type: "button", "aria-expanded": String(open), onclick: () => unfold(head)}, name);
  head.rows = rows;
  parent.append(head, rows);
  return rows;
}

function unfold(head, open = head.rows.hidden) {
  head.rows.hidden = !open;
  head.setAttribute("aria-expanded", String(open));
  arrows();
}

const rowOf = row => box("div.row", {}, node(row.forward, "left"), node(row.backward, "right"));

function node(call, side) {
  if (!call) return box(`span.${side}`);
  const output = data.arrays[call.outputs[0]?.array], where = call.where || call.function;
  return box(`button.node.${side}`, {type: "button", "data-call": call.id, onclick: () => visit(`#call-${call.id}`),
    "aria-label": `${opName(call)} ${call.where}, ${call.phase}${output ? `, gives ${shapeText(output)}` : ""}`},
    box("b", {}, breakable(opName(call))), box("small", {}, where.replace(/^.*?\d+\./, "")), output && box("small.shape", {}, output.shape.join("×")));
}

// A name that may break after its underscores.
const breakable = name => name.split(/(?<=_)/).flatMap((part, i) => i ? [box("wbr"), part] : [part]);

const items = () => [...element("graph").querySelectorAll("button")].filter(item => item.offsetParent);
const nodeOf = id => element("graph").querySelector(`[data-call="${id}"]`);

// Arrows between the ops that are shown; for what is folded, from and to its button.
function arrows() {
  const graph = element("graph"), picture = graph.querySelector("svg"), frame = graph.getBoundingClientRect();
  const boxOf = item => {
    const {left, top, width, height} = item.getBoundingClientRect();
    return {x: left - frame.left, y: top - frame.top, width, height};
  };
  const nodes = [...graph.querySelectorAll(".node")].filter(item => !item.closest(".steps + .rows"));
  const calls = nodes.map(item => data.calls[item.dataset.call]), anchor = new Map(), columns = {left: [], right: []};
  for (const item of nodes) {
    const side = item.classList.contains("left") ? "left" : "right", folded = item.closest(".rows[hidden]");
    const head = folded?.previousElementSibling, place = boxOf(head ?? item), half = place.width / 2;
    if (head) Object.assign(place, {x: side === "left" ? place.x : place.x + half, width: half});
    anchor.set(Number(item.dataset.call), {place, side, item: head ?? item});
    if (columns[side].at(-1) !== (head ?? item)) columns[side].push(head ?? item);
  }
  const paths = edgesOf(data.arrays, calls).map(([from, to]) => {
    const [a, b] = [anchor.get(from), anchor.get(to)];
    if (a.item === b.item || a.side !== b.side) return null;
    const column = columns[a.side], apart = Math.abs(column.indexOf(a.item) - column.indexOf(b.item));
    return svg("path", {d: arrow(a.place, b.place, a.side, apart > 1 ? LANE : 0), "data-from": from, "data-to": to, class: a.side, "marker-end": `url(#tip-${a.side})`});
  });
  paths.push(...bridges(calls).map(([from, to]) => {
    const [a, b] = [anchor.get(from.id), anchor.get(to.id)];
    const d = a.side === b.side ? arrow(a.place, b.place, a.side, 0) : across(a.place, b.place);
    return a.item === b.item ? null : svg("path", {d, "data-from": from.id, "data-to": to.id, class: "right", "marker-end": "url(#tip-right)"});
  }));
  picture.replaceChildren(svg("defs", {}, tip("left"), tip("right")), ...paths.filter(Boolean));
  mark();
}

function tip(side) {
  return svg("marker", {id: `tip-${side}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto"},
             svg("path", {d: "M 0 0 L 8 4 L 0 8 z", class: side}));
}

// Show which op is open, and its arrows.
function markOpen(call) {
  const wanted = pairOf(call), phase = call.phase === "decode" ? "decode" : "forward";
  if (!element("graph").classList.contains(phase)) {
    document.querySelector(`[name=phase][value=${phase}]`).checked = true;
    drawGraph(phase);
  }
  const item = nodeOf(call.id) ?? nodeOf(wanted.forward?.id);
  for (let rows = item?.closest(".rows[hidden]"); rows; rows = item.closest(".rows[hidden]")) unfold(rows.previousElementSibling);
  state.opener = item;
  if (item) rove(item);
  mark();
}

function mark() {
  const open = new Set(state.call ? Object.values(pairOf(state.call)).filter(Boolean).map(call => String(call.id)) : []);
  for (const item of element("graph").querySelectorAll(".node")) {
    const is = open.has(item.dataset.call);
    item.classList.toggle("open", is);
    if (is) item.setAttribute("aria-current", "true"); else item.removeAttribute("aria-current");
  }
  for (const path of element("graph").querySelectorAll("path[data-from]"))
    path.classList.toggle("open", open.has(path.dataset.from) || open.has(path.dataset.to));
}

function rove(item) {
  for (const other of element("graph").querySelectorAll("button[tabindex='0']")) other.setAttribute("tabindex", "-1");
  item.setAttribute("tabindex", "0");
}

// Arrow keys walk among the ops: up and down in a column, left and right between forward and backward.
function walkGraph(event) {
  const item = event.target.closest("#graph button");
  if (!item) return;
  const column = items().filter(other => other === item || other.classList.contains("head")
    || other.classList.contains("left") === item.classList.contains("left") || item.classList.contains("head"));
  const at = column.indexOf(item), beside = item.parentElement.querySelector(`.node.${item.classList.contains("left") ? "right" : "left"}`);
  const head = item.classList.contains("head");
  const to = {ArrowDown: column[at + 1], ArrowUp: column[at - 1], Home: column[0], End: column.at(-1),
              ArrowLeft: head ? item : beside, ArrowRight: head ? item : beside}[event.key];
  if (!(event.key in {ArrowDown: 1, ArrowUp: 1, Home: 1, End: 1, ArrowLeft: 1, ArrowRight: 1})) return;
  event.preventDefault();
  if (head && /Left|Right/.test(event.key)) unfold(item, event.key === "ArrowRight");
  if (!to) return;
  rove(to);
  to.focus();
}

// Show only the ops whose name or place holds what is searched.
function filter() {
  const wanted = element("search").value.trim().toLowerCase(), graph = element("graph");
  const nodes = [...graph.querySelectorAll(".node")];
  const matches = item => (item.textContent + " " + data.calls[item.dataset.call].where + " " + data.calls[item.dataset.call].function).toLowerCase().includes(wanted);
  let found = 0;
  for (const item of nodes) {
    const is = !wanted || matches(item);
    item.classList.toggle("dim", !is);
    found += is && wanted ? 1 : 0;
    if (is && wanted) for (let rows = item.closest(".rows[hidden]"); rows; rows = item.closest(".rows[hidden]")) unfold(rows.previousElementSibling);
  }
  element("found").textContent = wanted ? `${found} of ${isOne(nodes.length, "op")}` : "";
  arrows();
}

// ---- what is open ----

function visit(address) {
  if (location.hash !== address) location.hash = address;
  follow(null, true);
}

// The address names what is open: #call-7, or #call-7/a12/5 with a number chosen.
function follow(event, again = false) {
  if (state.address === location.hash && !again) return;
  state.address = location.hash;
  const found = location.hash.match(/^#call-(\d+)(?:\/(a\d+)\/(\d+))?$/), call = found && data.calls[Number(found[1])];
  if (!call) return cover(false);
  const array = data.arrays[found[2]], index = Number(found[3]);
  if (!(state.call && pairOf(state.call).forward === pairOf(call).forward && array && element("card"))) openCall(call);
  if (array) reveal(array, index);
}

// Choose a number of the panel, turned to the page where it stands.
function reveal(array, index) {
  const cell = () => element("panel").querySelector(`td[data-array="${array.id}"][data-index="${index}"]`);
  for (const part of element("panel").querySelectorAll("details.fold"))
    if (!cell() && part.arrays?.includes(array)) { part.open = true; part.unfold(); }
  for (const figure of element("panel").querySelectorAll("figure.matrix")) if (figure.array === array) figure.turnTo(index);
  if (cell()) pick(cell(), show); else show(array, index);
}

// On a narrow screen the panel covers the page, of which nothing else can be reached then.
function cover(opened) {
  document.body.classList.toggle("opened", opened);
  const narrow = matchMedia("(max-width: 60rem)").matches;
  for (const part of document.querySelectorAll("#top, #tools, .map, main > section:not(#way)")) part.inert = opened && narrow;
}

function closePanel() {
  cover(false);
  const item = state.opener;
  if (item?.offsetParent) item.focus();
}

function onKey(event) {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    element("search").focus();
  } else if (event.key === "Escape" && event.target.id === "search") {
    event.target.value = "";
    filter();
    items()[0]?.focus();
  } else if (event.key === "Escape" && state.call) closePanel();
  else if (event.key === "Enter" && event.target.id === "search") {
    event.preventDefault();
    const first = items().find(item => item.classList.contains("node") && !item.classList.contains("dim"));
    if (first) { rove(first); first.focus(); }
  }
}

// ---- the whole ----

function practise() {
  state.practice = !state.practice;
  element("practice").setAttribute("aria-pressed", String(state.practice));
  score();
  redrawAll();
}

const whenIdle = work => window.requestIdleCallback ? requestIdleCallback(work, {timeout: 500}) : setTimeout(work, 1);

// Build what is still empty, one section whenever the browser has time.
function buildSections() {
  const [name, build] = Object.entries(SECTIONS).find(([name]) => !element(name).dataset.built) ?? [];
  if (!name) return;
  element(name).dataset.built = "yes";
  fill(element(name).lastElementChild, build());
  whenIdle(buildSections);
}

function begin() {
  document.addEventListener("keydown", onKey);
  element("graph").addEventListener("keydown", walkGraph);
  element("search").addEventListener("input", filter);
  element("tools").addEventListener("submit", event => event.preventDefault());
  element("digits").addEventListener("change", ({target}) => {
    state.digits = target.value;
    document.body.classList.toggle("colours", target.value === "colours");
    redrawAll();
  });
  element("practice").addEventListener("click", practise);
  for (const radio of document.querySelectorAll("[name=phase]")) radio.addEventListener("change", () => drawGraph(radio.value));
  window.addEventListener("hashchange", follow);
  window.addEventListener("resize", () => cover(document.body.classList.contains("opened")));
  drawGraph("forward");
  new ResizeObserver(arrows).observe(element("graph"));
  follow();
  setTimeout(() => whenIdle(buildSections), 100);
}

begin();
