"use strict";
// The page: the graph with its keys, what the address names, the tools; the sections are built when there is time.

const LANE = 16;                                // pixels beside a column where arrows go past boxes
const NARROW = "(max-width: 60rem)";            // as in page.css: the panel covers the page

// ---- the graph ----

const groupName = group => group === "head" ? "output head and loss" : group;

function drawGraph(phase) {
  const rows = rowsOf(data.calls, phase), groups = grouped(rows, row => row.group), graph = element("graph");
  graph.className = phase;
  fill(graph, svg("svg", {"aria-hidden": "true"}));
  for (const [group, inGroup] of groups) {
    const holder = section(graph, groupName(group), groups.size < 6 || !/^block [1-9]/.test(group));
    for (const row of inGroup.filter(row => !row.inside)) {
      const one = row.forward ?? row.backward, steps = inGroup.filter(step => step.inside === one);
      holder.append(rowOf(row));
      if (steps.length)
        section(holder, `${isOne(steps.length, "step")} inside ${opName(one)}`, false, ".steps")
          .append(...steps.map(rowOf));
    }
  }
  items().forEach((item, i) => item.setAttribute("tabindex", i ? "-1" : "0"));
  filter();
}

// A part of the graph that folds: its button, and the box of its rows, which is returned.
function section(parent, name, open, kind = "") {
  const rows = box("div.rows", {hidden: !open});
  const head = box(`button.head${kind}`,
    {type: "button", "aria-expanded": String(open), onclick: () => unfold(head)}, name);
  parent.append(head, rows);
  return rows;
}

function unfold(head, open = head.nextElementSibling.hidden) {
  head.nextElementSibling.hidden = !open;
  head.setAttribute("aria-expanded", String(open));
  arrows();
}

// Unfold what hides a box of the graph.
function uncover(item) {
  for (let rows; (rows = item?.closest(".rows[hidden]"));) unfold(rows.previousElementSibling, true);
}

const rowOf = row => box("div.row", node(row.forward, "left"), node(row.backward, "right"));

function node(call, side) {
  if (!call) return box(`span.${side}`);
  const output = data.arrays[call.outputs[0]?.array], where = call.where || call.function;
  const label = `${opName(call)} ${call.where}, ${call.phase}${output ? `, gives ${shapeText(output)}` : ""}`;
  return box(`button.node.${side}`,
    {type: "button", "data-call": call.id, "aria-label": label, onclick: () => visit(`#call-${call.id}`)},
    box("b", breakable(opName(call))), box("small", where.replace(/^.*?\d+\./, "")),
    output && box("small.shape", output.shape.join("×")));
}

// A name that may break after its underscores.
const breakable = name => name.split(/(?<=_)/).flatMap((part, i) => i ? [box("wbr"), part] : [part]);

const items = () => [...element("graph").querySelectorAll("button")].filter(item => item.offsetParent);
const nodeOf = call => call && element("graph").querySelector(`[data-call="${call.id}"]`);

// Arrows between the ops that are shown; for what is folded, from and to its button.
function arrows() {
  const graph = element("graph"), places = placesOfNodes(), ends = [...places.keys()].map(id => data.calls[id]);
  const path = (from, to, d, side) => svg("path", {d, "data-from": from, "data-to": to, class: side,
                                                   "marker-end": `url(#tip-${side})`});
  const drawn = edgesOf(data.arrays, ends).map(([from, to]) => {
    const [a, b] = [places.get(from), places.get(to)], lane = a.side === "left" ? -LANE : LANE;
    if (a.item === b.item || a.side !== b.side) return null;
    return path(from, to, Math.abs(a.at - b.at) > 1 ? around(a, b, lane) : straight(a, b), a.side);
  });
  const turns = bridges(ends).map(([from, to]) => {
    const [a, b] = [places.get(from), places.get(to)];
    return a.item !== b.item && path(from, to, (a.side === b.side ? straight : across)(a, b), "right");
  });
  fill(graph.querySelector("svg"), svg("defs", {}, tip("left"), tip("right")), drawn, turns);
  mark();
}

// Where the ops of the graph are, steps of composite ops left out: {call id: {x, y, width, height, item, side, at}}.
// item: the box that is seen; at: its place in its column.
function placesOfNodes() {
  const graph = element("graph"), frame = graph.getBoundingClientRect();
  const found = new Map(), columns = {left: [], right: []};
  for (const box of graph.querySelectorAll(".node")) {
    if (box.closest(".steps + .rows")) continue;
    const side = box.classList.contains("left") ? "left" : "right";
    const item = box.closest(".rows[hidden]")?.previousElementSibling ?? box, part = item === box ? 1 : 0.5;
    const {left, top, width, height} = item.getBoundingClientRect();
    const x = left - frame.left + (part < 1 && side === "right" ? width / 2 : 0);
    if (columns[side].at(-1) !== item) columns[side].push(item);
    found.set(Number(box.dataset.call), {x, y: top - frame.top, width: width * part, height, item, side,
                                         at: columns[side].length});
  }
  return found;
}

function tip(side) {
  return svg("marker", {id: `tip-${side}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8,
                        markerUnits: "userSpaceOnUse", orient: "auto"},
             svg("path", {d: "M 0 0 L 8 4 L 0 8 z", class: side}));
}

// Show in the graph which op is open.
function markOpen(call) {
  const phase = call.phase === "decode" ? "decode" : "forward";
  if (!element("graph").classList.contains(phase)) {
    document.querySelector(`[name=phase][value=${phase}]`).checked = true;
    drawGraph(phase);
  }
  state.opener = nodeOf(call) ?? nodeOf(pairOf(call).forward);
  uncover(state.opener);
  if (state.opener) rove(state.opener);
  mark();
}

// The op that is open, and its arrows.
function mark() {
  const pair = state.call ? Object.values(pairOf(state.call)) : [];
  const open = new Set(pair.filter(Boolean).map(call => String(call.id))), graph = element("graph");
  for (const item of graph.querySelectorAll(".node")) {
    item.classList.toggle("open", open.has(item.dataset.call));
    item.setAttribute("aria-current", open.has(item.dataset.call));
  }
  for (const path of graph.querySelectorAll("path[data-from]"))
    path.classList.toggle("open", open.has(path.dataset.from) || open.has(path.dataset.to));
}

// One box of the graph is reached by the tab key: the last that had the focus.
function rove(item) {
  for (const other of element("graph").querySelectorAll("button[tabindex='0']")) other.setAttribute("tabindex", "-1");
  item.setAttribute("tabindex", "0");
}

// Arrow keys walk among the ops: up and down in a column, left and right between forward and backward; on the button
// of a part that folds they fold and unfold.
function walkGraph(event) {
  const item = event.target.closest("#graph button"), isHead = item?.matches(".head");
  if (!item || !/^(Arrow|Home|End)/.test(event.key)) return;
  event.preventDefault();
  const side = item.matches(".right") ? ".right" : ".left";
  const column = items().filter(other => isHead || other.matches(`.head, ${side}`)), at = column.indexOf(item);
  const beside = isHead ? null : item.parentElement.querySelector(`.node${side === ".left" ? ".right" : ".left"}`);
  if (isHead && /Left|Right/.test(event.key)) unfold(item, event.key === "ArrowRight");
  const to = {ArrowDown: column[at + 1], ArrowUp: column[at - 1], Home: column[0], End: column.at(-1),
              ArrowLeft: beside, ArrowRight: beside}[event.key];
  if (!to) return;
  rove(to);
  to.focus();
}

// Only the ops whose name or place holds what is searched stay bright.
function filter() {
  const wanted = element("search").value.trim().toLowerCase(), nodes = [...element("graph").querySelectorAll(".node")];
  const matches = item => {
    const call = data.calls[item.dataset.call];
    return `${opName(call)} ${call.function} ${call.where}`.toLowerCase().includes(wanted);
  };
  const found = nodes.filter(matches);
  for (const item of nodes) item.classList.toggle("dim", !found.includes(item));
  if (wanted) found.forEach(uncover);
  element("found").textContent = wanted ? `${found.length} of ${isOne(nodes.length, "op")}` : "";
  arrows();
}

// ---- what is open ----

function visit(address) {
  if (location.hash !== address) location.hash = address;
  follow(null, true);
}

// A link to an op or a number opens it at once, also where it is open already.
function onClick(event) {
  const link = event.target.closest("a[href^='#call-']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  visit(link.hash);
}

// The address names what is open: #call-7, or #call-7/a12/5 with a number chosen.
function follow(event, again = false) {
  if (state.address === location.hash && !again) return;
  state.address = location.hash;
  const found = location.hash.match(/^#call-(\d+)(?:\/(a\d+)\/(\d+))?$/);
  const call = found && data.calls[Number(found[1])];
  if (!call) return cover(false);
  const array = data.arrays[found[2]], isOpen = state.call && pairOf(state.call).forward === pairOf(call).forward;
  if (!isOpen || !array) openCall(call);
  else cover(true);
  if (array) reveal(array, Number(found[3]));
}

// Choose a number of the panel: unfold its array, and turn to the page where it stands.
function reveal(array, index) {
  const panel = element("panel"), at = `td[data-array="${array.id}"][data-index="${index}"]`;
  const cell = () => panel.querySelector(at);
  for (const part of panel.querySelectorAll("details.fold"))
    if (!cell() && part.arrays?.includes(array)) {
      part.open = true;
      part.unfold();
    }
  for (const figure of panel.querySelectorAll("figure.matrix")) if (figure.array === array) figure.turnTo(index);
  if (cell()) pick(cell(), show);
  else show(array, index);
}

// On a narrow screen the panel covers the page, of which nothing else can be reached then.
function cover(opened) {
  document.body.classList.toggle("opened", opened);
  for (const part of document.querySelectorAll("#top, #tools, .map, main > section:not(#way)"))
    part.inert = opened && matchMedia(NARROW).matches;
}

function closePanel() {
  cover(false);
  if (state.opener?.offsetParent) state.opener.focus();
}

function onKey(event) {
  const inSearch = event.target.id === "search";
  if (event.key === "/" && !event.target.matches("input, select")) {
    event.preventDefault();
    element("search").focus();
  } else if (event.key === "Escape" && inSearch) {
    event.target.value = "";
    filter();
    items()[0]?.focus();
  } else if (event.key === "Escape" && state.call) closePanel();
  else if (event.key === "Enter" && inSearch) {
    event.preventDefault();
    const first = items().find(item => item.matches(".node:not(.dim)"));
    if (first) rove(first);
    first?.focus();
  }
}

// ---- the whole ----

function practise() {
  state.practice = !state.practice;
  element("practice").setAttribute("aria-pressed", state.practice);
  score();
  redrawAll();
}

function wantDigits({target}) {
  state.digits = target.value;
  document.body.classList.toggle("colours", target.value === "colours");
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
  document.addEventListener("click", onClick);
  element("graph").addEventListener("keydown", walkGraph);
  element("search").addEventListener("input", filter);
  element("tools").addEventListener("submit", event => event.preventDefault());
  element("digits").addEventListener("change", wantDigits);
  element("practice").addEventListener("click", practise);
  for (const radio of document.querySelectorAll("[name=phase]"))
    radio.addEventListener("change", () => drawGraph(radio.value));
  window.addEventListener("hashchange", follow);
  window.addEventListener("resize", () => cover(document.body.classList.contains("opened")));
  drawGraph("forward");
  new ResizeObserver(arrows).observe(element("graph"));
  follow();
  setTimeout(() => whenIdle(buildSections), 100);
}

begin();
