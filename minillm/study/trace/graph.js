"use strict";
// The graph: which op stands in which row, and the arrows between them. Forward goes down on the left, the gradient
// comes up on the right; the optimizer's update is where it arrives.

// The number of the block that a call belongs to; null: none is named.
function blockOf(call) {
  const found = call.where.match(/(?:^|\.)(\d+)(?:\.|$)/);
  return found ? Number(found[1]) : null;
}

// A call's steps, if it is a composite op.
function stepsOf(calls, call) {
  return call ? calls.filter(other => other.parent === call.id) : [];
}

// Rows of a phase from top to bottom: {forward, backward, group, inside}; one side may be missing;
// inside: the composite op whose step it is. A backward that has
// no forward (dx + da) stands above the backward before it.
function rowsOf(calls, phase) {
  const outer = calls.filter(call => call.parent === null);
  const rows = outer.filter(call => call.phase === phase)
    .map(forward => ({forward, backward: calls[forward.partner] ?? null}));
  if (phase === "forward") {
    let last = rows.at(-1);
    for (const backward of outer.filter(call => call.phase === "backward")) {
      const own = rows.find(row => row.backward === backward);
      if (!own) rows.splice(rows.indexOf(last), 0, {forward: null, backward});
      last = own ?? rows[rows.indexOf(last) - 1];
    }
  }
  const updates = outer.filter(call => phase === "forward" && call.phase === "update").reverse();
  let group = "embedding";
  for (const row of rows) {
    const block = blockOf(row.forward ?? row.backward);
    if (block !== null) group = `block ${block}`;
    else if (group.startsWith("block") && row.forward?.where) group = "head";
    row.group = group;
  }
  rows.unshift(...updates.map(backward => ({forward: null, backward, group: "update"})));
  return rows.flatMap(row => [row, ...nestedRows(calls, row)]);
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
  for (const array of Object.values(arrays))
    if (ids.has(array.made_by))
      for (const reader of array.used_by)
        if (ids.has(reader) && reader !== array.made_by) found.set(`${array.made_by} ${reader}`, [array.made_by, reader]);
  return [...found.values()];
}

// The way of an arrow between two boxes {x, y, width, height}: straight to a neighbour, else along a lane at the side.
function arrow(from, to, side, lane) {
  const x = from.x + from.width / 2, down = to.y > from.y;
  const start = down ? from.y + from.height : from.y, end = down ? to.y : to.y + to.height;
  if (!lane) return `M ${x} ${start} L ${to.x + to.width / 2} ${end}`;
  const edge = side === "left" ? from.x : from.x + from.width, edge2 = side === "left" ? to.x : to.x + to.width;
  const out = side === "left" ? -lane : lane, y1 = from.y + from.height / 2, y2 = to.y + to.height / 2;
  return `M ${edge} ${y1} C ${edge + out * 1.4} ${y1} ${edge + out} ${y1 + (down ? 12 : -12)} ${edge + out} ${y1 + (down ? 24 : -24)} `
       + `L ${edge2 + out} ${y2 - (down ? 24 : -24)} C ${edge2 + out} ${y2 - (down ? 12 : -12)} ${edge2 + out * 1.4} ${y2} ${edge2} ${y2}`;
}

// The loss turns the way around, and what arrives at the top is what the optimizer takes.
function bridges(calls) {
  const outer = calls.filter(call => call.parent === null).sort((a, b) => a.id - b.id), found = [];
  for (const [i, call] of outer.entries())
    if (i && (call.phase === "update" || call.phase === "backward" && outer[i - 1].phase === "forward")) found.push([outer[i - 1], call]);
  return found;
}

// An arrow from the left column to the right one.
function across(from, to) {
  return `M ${from.x + from.width} ${from.y + from.height / 2} L ${to.x} ${to.y + to.height / 2}`;
}

if (typeof document === "undefined") module.exports = {blockOf, rowsOf, edgesOf, bridges, arrow};
