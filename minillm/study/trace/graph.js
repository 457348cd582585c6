"use strict";
// The graph: which op stands in which row, and the arrows between them. Forward goes down on the left, the gradient
// comes up on the right; the optimizer's update is where it arrives. Knows nothing of the page (tests run it alone).

// The number of the block that a call belongs to; null: none is named.
function blockOf(call) {
  const found = call.where.match(/(?:^|\.)(\d+)(?:\.|$)/);
  return found ? Number(found[1]) : null;
}

// A call's steps, if it is a composite op.
function stepsOf(calls, call) {
  return call ? calls.filter(other => other.parent === call.id) : [];
}

// Rows of a phase from top to bottom: {forward, backward, group, inside}; one side may be missing; inside: the
// composite op whose step it is.
function rowsOf(calls, phase) {
  const outer = calls.filter(call => call.parent === null);
  const rows = outer.filter(call => call.phase === phase)
    .map(forward => ({forward, backward: calls[forward.partner] ?? null}));
  if (phase === "forward") insertUnpaired(rows, outer.filter(call => call.phase === "backward"));
  nameGroups(rows);
  if (phase === "forward")
    for (const backward of outer.filter(call => call.phase === "update"))
      rows.unshift({forward: null, backward, group: "update"});
  return rows.flatMap(row => [row, ...nestedRows(calls, row)]);
}

// A backward that has no forward (dx + da) stands above the backward before it.
function insertUnpaired(rows, backwards) {
  let last = rows.at(-1);
  for (const backward of backwards) {
    const own = rows.find(row => row.backward === backward) ?? {forward: null, backward};
    if (!rows.includes(own)) rows.splice(rows.indexOf(last), 0, own);
    last = own;
  }
}

// What stands before the blocks is the embedding, what stands after them the head; what names no place stays.
function nameGroups(rows) {
  let group = "embedding";
  for (const row of rows) {
    const block = blockOf(row.forward ?? row.backward);
    if (block !== null) group = `block ${block}`;
    else if (group.startsWith("block") && row.forward?.where) group = "head";
    row.group = group;
  }
}

// A composite op's steps: those that belong together side by side; the others fill the rows from above.
function nestedRows(calls, row) {
  const forward = stepsOf(calls, row.forward), backward = stepsOf(calls, row.backward).reverse(), rows = [];
  const partner = step => backward.find(other => other.id === step.partner) ?? null;
  const alone = backward.filter(other => !forward.some(step => partner(step) === other));
  for (const step of forward) rows.push({forward: step, backward: partner(step) ?? alone.shift() ?? null});
  for (const step of alone) rows.push({forward: null, backward: step});
  return rows.map(step => ({...step, group: row.group, inside: row.forward ?? row.backward}));
}

// Which call's outcome which other call reads, among these: [[from, to]], a pair once.
function edgesOf(arrays, calls) {
  const ids = new Set(calls.map(call => call.id)), found = new Map();
  for (const {made_by: from, used_by: readers} of Object.values(arrays))
    for (const to of readers)
      if (ids.has(from) && ids.has(to) && from !== to) found.set(`${from} ${to}`, [from, to]);
  return [...found.values()];
}

// The loss turns the way around, and what arrives at the top is what the optimizer takes: [[from, to]].
function bridges(calls) {
  const outer = calls.filter(call => call.parent === null).sort((a, b) => a.id - b.id), found = [];
  for (let i = 1; i < outer.length; i++) {
    const [before, call] = [outer[i - 1], outer[i]];
    if (call.phase === "update" || call.phase === "backward" && before.phase === "forward")
      found.push([before.id, call.id]);
  }
  return found;
}

// The path of an arrow between two boxes {x, y, width, height} of one column, straight.
function straight(from, to) {
  const down = to.y > from.y, start = down ? from.y + from.height : from.y, end = down ? to.y : to.y + to.height;
  return `M ${from.x + from.width / 2} ${start} L ${to.x + to.width / 2} ${end}`;
}

// The same along a lane so many pixels beside the column, past the boxes between.
function around(from, to, lane) {
  const edge = box => lane < 0 ? box.x : box.x + box.width, middle = box => box.y + box.height / 2;
  const [x1, y1, x2, y2] = [edge(from), middle(from), edge(to), middle(to)], way = Math.sign(y2 - y1);
  return `M ${x1} ${y1} C ${x1 + lane * 1.4} ${y1} ${x1 + lane} ${y1 + way * 12} ${x1 + lane} ${y1 + way * 24} `
       + `L ${x2 + lane} ${y2 - way * 24} C ${x2 + lane} ${y2 - way * 12} ${x2 + lane * 1.4} ${y2} ${x2} ${y2}`;
}

// From the left column to the right one.
function across(from, to) {
  return `M ${from.x + from.width} ${from.y + from.height / 2} L ${to.x} ${to.y + to.height / 2}`;
}

if (typeof document === "undefined") module.exports = {blockOf, rowsOf, edgesOf, bridges};
