"use strict";
// The panel of an op: formulas, its arrays with their gradients beside them, code, cost; the card of a number.

const STEPS = {"+": "add", "@": "matmul", "*": "scale"};
const opName = call => call.op ?? STEPS[call.function] ?? call.function;

// Forward and backward of one op, by either.
function pairOf(call) {
  const partner = data.calls[call.partner] ?? null;
  const isBackward = call.function.endsWith("_backward") || partner?.function.endsWith("_forward");
  const [forward, backward] = call.phase === "backward" && isBackward ? [partner, call] : [call, partner];
  return {forward, backward};
}

// [[name, array]] of a call's inputs or outputs.
function arraysOf(puts) {
  return puts.map(put => [put.name, data.arrays[put.array]]).filter(([, array]) => array);
}

const callLink = (call, text = opName(call)) => box("a", {href: `#call-${call.id}`}, text);

// Open the panel of a call; the focus goes to its heading.
function openCall(call) {
  const {forward, backward} = pairOf(call), panel = element("panel"), one = forward ?? backward;
  state.call = call;
  state.made = new Set([forward, backward].flatMap(made => made?.outputs ?? []).map(output => output.array));
  const heading = box("h2", {tabindex: "-1"}, opName(one), one.where && box("small", one.where));
  const close = box("button.close", {type: "button", onclick: closePanel}, "Close");
  fill(panel, box("header", heading, close), summary(one), related(call, backward), formulas(one),
       numbers(forward, backward), attentionOf(one), code(forward, backward), cost(forward, backward),
       box("div", {id: "card", role: "region", "aria-live": "polite", "aria-label": "the number that is chosen"}));
  panel.scrollTop = 0;
  cover(true);
  markOpen(call);
  heading.focus({preventScroll: true});
}

function summary(call) {
  const said = (data.ops[call.op]?.summary ?? "").split("`").map((part, i) => i % 2 ? box("code", part) : part);
  return [box("p", call.op ? said : box("code", call.called?.text ?? call.function)),
          call.phase === "update" && box("p", box("a", {href: "#update"}, "Its numbers, weight by weight"))];
}

// Links to the composite op that it is a step of, and to its own steps.
function related(call, backward) {
  const outer = data.calls[call.parent], links = steps => steps.map(step => [" ", callLink(step)]);
  const steps = stepsOf(data.calls, pairOf(call).forward), back = stepsOf(data.calls, backward);
  return (outer || steps.length > 0) && box("p.soft", outer && ["A step of ", callLink(outer), ". "],
    steps.length > 0 && ["Its steps:", links(steps)], back.length > 0 && [" · backward:", links(back)]);
}

function formulas(call) {
  const typeset = typesetOf(call.op), docstring = data.ops[call.op]?.docstring;
  return [typeset && [box("h3", "Formulas"), typeset],
          docstring && fold("the derivation, as the op's file has it", () => box("pre", docstring))];
}

// A copy of an op's formulas; null: it has none.
function typesetOf(op) {
  const found = document.querySelector(`template[data-formulas="${op}"]`)?.content;
  return found?.childElementCount ? box("ol.formulas", found.cloneNode(true)) : null;
}

// The maps of an attention's heads.
function attentionOf(call) {
  const heads = data.attention.filter(head => head.call === call.id);
  return heads.length > 0 && [box("h3", "Who attends to whom"), headMaps(heads)];
}

// ---- code and cost ----

function code(forward, backward) {
  const lines = [["forward", forward], ["backward", backward]].filter(([, call]) => call).flatMap(([way, call]) => [
    ...call.outputs.filter(output => output.source).map(output => [output.name, ...sourceCells(output.source)]),
    ...(call.called ? [[`${way}, called`, ...sourceCells(call.called)]] : [])]);
  return lines.length > 0 && [box("h3", "Code"),
                              table("the lines that compute it", ["result", "where", "line"], lines, ".code")];
}

const sourceCells = ({file, line, text}) => [box("code", `${file}:${line}`), box("code", text)];

// The line of source that computes an array.
const sourceLine = source => source && box("p.line", box("code", source.text), " ",
                                           box("span.soft", `${source.file}:${source.line}`));

function cost(forward, backward) {
  const ran = [forward, backward].filter(call => call && (call.seconds !== null || call.flops !== null));
  const rows = ran.map(call => [`${call.function} on ${call.backend ?? "numpy"}`, ...costCells(call)]);
  return rows.length > 0 && [box("h3", "Cost"),
                             table("time, FLOPs and bytes", ["function", "time", "FLOPs", "bytes"], rows)];
}

const costCells = ({seconds, flops, bytes}) => [timeText(seconds), countText(flops), countText(bytes)];
const countText = count => count === null ? "–" : count.toLocaleString("en");

// A time in a unit that suits it; a shift of the decimal point, of what was measured to far fewer digits than twelve.
function timeText(seconds) {
  if (seconds === null) return "–";
  const [unit, factor] = seconds < 1e-2 ? ["µs", 1e6] : ["ms", 1e3];
  return box("span.time", {title: `${exact(seconds)} s`}, `${Number((seconds * factor).toPrecision(12))} ${unit}`);
}

// ---- arrays ----

// The arrays of an op, each with its gradient beside it: what comes in, what goes out, then its parameters.
function numbers(forward, backward) {
  const one = forward ?? backward, back = backward && backward !== one ? backward : null;
  const sources = new Map([...one.outputs, ...(back?.outputs ?? [])].map(output => [output.array, output.source]));
  const grads = back ? arraysOf([...back.outputs, ...back.inputs]) : [];
  const ways = [["in", one.inputs], ["out", one.outputs]];
  const all = ways.flatMap(([way, puts]) => arraysOf(puts).map(put => [way, ...put]));
  const isParameter = ([, , array]) => array.kind === "parameter";
  return [box("h3", "Numbers"), settings(one),
          [...all.filter(item => !isParameter(item)), ...all.filter(isParameter)].map(([way, name, array]) =>
            arrayPart(way, name, array, gradientsOf(name, array, grads), sources))];
}

// Inputs and results that are no arrays.
function settings(call) {
  const plain = [...call.inputs, ...call.outputs].filter(put => !put.array && put.value !== undefined);
  const text = value => typeof value === "number" ? exact(value, !Number.isInteger(value)) : String(value);
  return plain.length > 0 && box("p.soft", plain.map(put => `${put.name} = ${text(put.value)}`).join(" · "));
}

// What this op sends back to an array, and the whole gradient where other ops send something, too: [[label, array]].
function gradientsOf(name, array, grads) {
  const found = new Map(), whole = data.arrays[array.gradient];
  for (const [label, gradient] of grads)
    if (gradient.of === array.id && (!found.has(gradient.id) || label === `d${name}`))
      found.set(gradient.id, [label, gradient]);
  if (whole && !found.has(whole.id)) found.set(whole.id, [found.size ? "whole gradient" : `d${name}`, whole]);
  return [...found.values()];
}

function arrayPart(way, name, array, gradients, sources) {
  const said = array.kind === "parameter" ? array.name : array.role;
  const one = (array, label) => box("div", matrix(array, label, show), sourceLine(sources.get(array.id)),
                                    measured(array));
  const build = () => box("div.beside", one(array, name), gradients.map(([label, gradient]) => one(gradient, label)));
  const made = fold([box("b", name), box("span.soft", ` ${way} · ${shapeText(array)} · ${said}`)], build,
                    array.kind !== "parameter");
  return Object.assign(made, {arrays: [array, ...gradients.map(([, gradient]) => gradient)]});
}

const verdictOf = agrees => box(`span.${agrees ? "agrees" : "differs"}`, agrees ? "agrees" : "differs");

// The finite differences of a gradient: how many agree, and all of them on demand.
function measured(gradient) {
  const index = placesOf(gradient).filter(at => numericOf(gradient, at));
  if (!index.length) return null;
  const agreeing = index.filter(at => numericOf(gradient, at).agrees).length, all = index.length;
  const row = at => {
    const {value, bar, agrees} = numericOf(gradient, at);
    return [nameAt(gradient, at), textAt(gradient, at, true), isBlank(gradient, at) ? "?" : exact(value), exact(bar),
            verdictOf(agrees)];
  };
  const head = ["element", "gradient", "finite difference", "error bar", ""];
  const said = `${agreeing} of ${isOne(all, "finite difference")} agree`;
  return fold(box(`span.${agreeing === all ? "agrees" : "differs"}`, said),
              () => live(() => table("finite differences of the loss", head, index.map(row), ".terms")));
}

// ---- the card of a number ----

function show(array, index) {
  const card = element("card"), answer = state.answers.get(keyOf(array, index));
  if (!card) return;
  state.address = `#call-${state.call.id}/${array.id}/${index}`;
  history.replaceState(null, "", state.address);
  if (isBlank(array, index)) return ask(card, array, index);
  const number = box("p.number", box("b", nameAt(array, index)), " = ",
                     box("span.value", textAt(array, index, true)), " ",
                     array.kind !== "gradient" && box("span.soft", array.role));
  fill(card, box("div", number, answer && verdict(answer, array, index), relatives(array, index),
                 difference(array, index)), contributions(array, index));
  card.scrollTop = 0;
}

// Its gradient, or what it is the gradient of.
function relatives(array, index) {
  const gradient = data.arrays[array.gradient], of = data.arrays[array.of];
  return [gradient && box("p", "its gradient: ", numberLink(gradient, index, textAt(gradient, index, true))),
          of && sizeOf(of) === sizeOf(array) && box("p", "the gradient of ", numberLink(of, index, nameAt(of, index)),
                                                    ` of ${maker(of)}, which is ${textAt(of, index, true)}`)];
}

function difference(array, index) {
  const found = numericOf(array, index);
  if (found)
    return box("p", "finite difference: ", box("span.value", `${exact(found.value)} ± ${exact(found.bar)}`), " ",
               verdictOf(found.agrees));
  return array.numeric && box("p.soft", "no finite difference was made here");
}

// Which op made an array, in words.
function maker(array) {
  const made = data.calls[array.made_by];
  return made ? `${opName(made)} ${made.where}` : array.role;
}

// A link to a number in the panel of the op that made it, or reads it; only its text where it was not recorded.
function numberLink(array, index, text) {
  const made = data.calls[array.made_by] ?? data.calls[array.used_by[0]];
  const there = made && matrixOf(array).at(index) !== undefined;
  return there ? box("a", {href: `#call-${made.id}/${array.id}/${index}`}, text) : text;
}

// What adds up to an element of a gradient, the largest first; each leads to where it comes from.
function contributions(array, index) {
  const found = termsOf(data.arrays, array, index);
  if (!found) return array.contributors && box("p.soft", "What adds up to it was not recorded.");
  const largest = Math.max(...found.terms.map(({term}) => Math.abs(term)), Math.abs(found.rest)) || 1;
  const rows = found.terms.map(sent => [senderLink(sent, found.byRow), exact(sent.term), bar(sent.term / largest)]);
  if (found.count) rows.push([others(found), exact(found.rest), bar(found.rest / largest)]);
  const right = addUp(found, matrixOf(array).at(index), largestOf(array));
  return box("div", box("h4", "What adds up to it"),
    rows.length ? table(`terms of ${nameAt(array, index)}`, ["sent by", "term", ""], rows, ".terms")
                : box("p", "Nothing does: each term is zero."),
    box("p.sum", "sum: ", box("b", textAt(array, index, true)), " ",
        box(`span.${right ? "agrees" : "differs"}`, `the terms ${right ? "" : "do not "}add up to it`)));
}

const others = ({count}) => `${isOne(count, "more term")}, together`;

function senderText({array, place, before}, byRow) {
  if (!array) return String(place);
  return before ? `${nameAt(array, place)} of ${maker(array)}, already there` : nameAt(array, place, byRow);
}

function senderLink(sent, byRow) {
  const text = senderText(sent, byRow);
  return byRow || !sent.array ? text : numberLink(sent.array, sent.place, text);
}

function bar(share) {
  const made = box("i");
  made.style.width = `${Math.min(100, Math.abs(share) * 100)}%`;
  return box(`span.bar${share < 0 ? ".minus" : ""}`, {"aria-hidden": "true"}, made);
}

// ---- fill in the blank ----

// Ask for the number of a blank.
function ask(card, array, index) {
  const name = nameAt(array, index), said = box("p", {role: "status"});
  const field = box("input", {inputmode: "decimal", autocomplete: "off", "aria-label": name});
  const check = event => {
    event.preventDefault();
    if (judge(field.value, 0).known) answerBlank(array, index, field.value);
    else said.textContent = "Type a number, such as -0.25 or 1e-3.";
  };
  fill(card, box("form", {onsubmit: check}, box("label", `${name} = `, field), box("button", "Check"),
                 button("Show it", () => answerBlank(array, index, ""))),
       box("p.soft", "Within one per cent is right. The formulas and the other numbers are above."), said,
       hint(array, index));
  field.focus();
}

// The terms without their sum.
function hint(array, index) {
  const found = termsOf(data.arrays, array, index);
  if (!found?.terms.length) return null;
  const rows = found.terms.map(sent => [senderText(sent, found.byRow), exact(sent.term)]);
  if (found.count) rows.push([others(found), exact(found.rest)]);
  return fold("a hint: the terms that add up to it", () => table("terms", ["sent by", "term"], rows));
}

// Judge what was typed into a blank ("": the reader gave up), and show it everywhere.
function answerBlank(array, index, typed) {
  const {right} = judge(typed, matrixOf(array).at(index));
  state.answers.set(keyOf(array, index), {typed, right});
  score();
  redrawAll();
  show(array, index);
  const cell = document.querySelector(`#panel td[data-array="${array.id}"][data-index="${index}"]`);
  cell?.classList.add("chosen");
  if (cell) goTo(cell);
}

function verdict({typed, right}, array, index) {
  const expected = textAt(array, index, true);
  return box(`p.verdict.${right ? "agrees" : "differs"}`, {role: "status"},
    right ? `Right: it is ${expected}.`
      : typed ? `Wrong: you typed ${typed}, it is ${expected}.` : `It is ${expected}.`,
    box("span.soft", scoreText()), nextBlank());
}

// A button that leads to the next blank after the chosen number, or the first; none if there is none left.
function nextBlank() {
  const panel = element("panel"), left = () => [...panel.querySelectorAll("td.blank")];
  const follows = cell =>
    panel.querySelector("td.chosen")?.compareDocumentPosition(cell) & Node.DOCUMENT_POSITION_FOLLOWING;
  return left().length > 0 && button("Next blank", () => pick(left().find(follows) ?? left()[0], show));
}

function scoreText() {
  const answers = [...state.answers.values()], right = answers.filter(answer => answer.right).length;
  return answers.length ? `${right} of ${answers.length} right` : "open an op: some of its numbers are blanks";
}

function score() {
  element("score").textContent = state.practice ? scoreText() : "";
}
