"use strict";
// The panel of an op: formulas, code, costs, and its arrays with their gradients beside them; the card of a number.

const STEPS = {"+": "add", "@": "matmul"};
const opName = call => call.op ?? STEPS[call.function] ?? call.function;

// Forward and backward of one op, by either.
function pairOf(call) {
  const partner = call.partner === null ? null : data.calls[call.partner];
  return call.phase === "backward" && (partner?.function.endsWith("_forward") || call.function.endsWith("_backward"))
    ? {forward: partner, backward: call} : {forward: call, backward: partner};
}

const arraysOf = list => list.filter(item => item.array).map(item => [item.name, data.arrays[item.array]]).filter(([, array]) => array);

// Open the panel of a call, perhaps with a number chosen in it.
function openCall(call, array = null, index = null) {
  const {forward, backward} = pairOf(call), panel = element("panel"), one = forward ?? backward;
  state.call = call;
  state.made = new Set([forward, backward].flatMap(made => made?.outputs ?? []).map(output => output.array));
  const heading = box("h2", {tabindex: "-1"}, opName(one), one.where && box("small", {}, one.where));
  fill(panel,
    box("header", {}, heading, box("button.close", {type: "button", onclick: closePanel}, "Close")),
    box("p", {}, summaryOf(one)), one.phase === "update" && box("p", {}, box("a", {href: "#update"}, "Its numbers, weight by weight")), related(one, backward), formulas(one),
    numbers(forward, backward), attentionOf(one), code(forward, backward), cost(forward, backward),
    box("div", {id: "card", role: "region", "aria-live": "polite", "aria-label": "the number that is chosen"}));
  panel.scrollTop = 0;
  cover(true);
  markOpen(call);
  heading.focus({preventScroll: true});
  if (array) show(array, index);
}

function summaryOf(call) {
  return call.op ? data.ops[call.op]?.summary ?? "" : box("code", {}, call.called?.text ?? call.function);
}

// Links to the composite op that it is a step of, and to its own steps.
function related(call, backward) {
  const outer = call.parent === null ? null : data.calls[call.parent], steps = stepsOf(data.calls, call);
  if (!outer && !steps.length) return null;
  const link = step => [callLink(step, opName(step)), " "];
  return box("p.soft", {}, outer && ["A step of ", callLink(outer, opName(outer)), ". "],
             steps.length > 0 && ["Its steps: ", steps.map(link)],
             backward && steps.length > 0 && ["· backward: ", stepsOf(data.calls, backward).map(link)]);
}

const callLink = (call, text) => box("a", {href: `#call-${call.id}`}, text);

function formulas(call) {
  const typeset = document.querySelector(`template[data-formulas="${call.op}"]`), docstring = data.ops[call.op]?.docstring;
  return [typeset?.content.childElementCount ? [box("h3", {}, "Formulas"), box("ol.formulas", {}, typeset.content.cloneNode(true))] : null,
          docstring ? fold("the derivation, as the op's file has it", () => box("pre", {}, docstring)) : null];
}

// What is built when it is unfolded.
function fold(summary, build, open = false) {
  const made = box("details.fold", {}, box("summary", {}, summary));
  const unfold = () => { if (made.open && made.children.length === 1) made.append(...[build()].flat(9)); };
  made.addEventListener("toggle", unfold);
  made.open = open;
  unfold();
  return Object.assign(made, {unfold});
}

const place = source => box("code", {}, `${source.file}:${source.line}`);

function code(forward, backward) {
  const lines = [["forward", forward], ["backward", backward]].filter(([, call]) => call).flatMap(([way, call]) => [
    ...call.outputs.filter(output => output.source).map(output => [output.name, place(output.source), box("code", {}, output.source.text)]),
    call.called && [`${way}, called`, place(call.called), box("code", {}, call.called.text)]]).filter(Boolean);
  return lines.length ? [box("h3", {}, "Code"), table("the lines that compute it", ["result", "where", "line"], lines, ".code")] : null;
}

function cost(forward, backward) {
  const rows = [forward, backward].filter(Boolean).filter(call => call.seconds !== null || call.flops !== null)
    .map(call => [`${call.function} on ${call.backend ?? "numpy"}`, timeText(call.seconds), countText(call.flops), countText(call.bytes)]);
  return rows.length ? [box("h3", {}, "Cost"), table("time, FLOPs and bytes", ["function", "time", "FLOPs", "bytes"], rows)] : null;
}

const countText = count => count === null ? "–" : count.toLocaleString("en");

// A time in a unit that suits it; a shift of the decimal point, of what was measured to far fewer digits than twelve.
function timeText(seconds) {
  if (seconds === null) return "–";
  const [unit, factor] = seconds < 1e-2 ? ["µs", 1e6] : ["ms", 1e3];
  return box("span.time", {title: `${exact(seconds)} s`}, `${Number((seconds * factor).toPrecision(12))} ${unit}`);
}

function settings(call) {
  const set = [...call.inputs, ...call.outputs].filter(item => !item.array && item.value !== undefined);
  return set.length ? box("p.soft", {}, set.map(item => `${item.name} = ${typeof item.value === "number" ? exact(item.value, !Number.isInteger(item.value)) : item.value}`).join(" · ")) : null;
}

// The maps of an attention's heads.
function attentionOf(call) {
  const heads = data.attention.filter(head => head.call === call.id);
  return heads.length ? [box("h3", {}, "Who attends to whom"), box("div.heads", {}, heads.map(head => live(() => attentionMap(head))))] : null;
}

// The arrays of an op, each with its gradient beside it: what comes in, what goes out, then its parameters.
function numbers(forward, backward) {
  const one = forward ?? backward, grads = backward && backward !== one ? arraysOf([...backward.outputs, ...backward.inputs]) : [];
  const sources = new Map([...one.outputs, ...(backward?.outputs ?? [])].map(output => [output.array, output.source]));
  const all = [...arraysOf(one.inputs).map(item => ["in", ...item]), ...arraysOf(one.outputs).map(item => ["out", ...item])];
  const order = item => item[2].kind === "parameter" ? 1 : 0;
  return [box("h3", {}, "Numbers"), settings(one), all.sort((a, b) => order(a) - order(b))
    .map(([way, name, array]) => arrayPart(way, name, array, gradientsOf(name, array, grads), sources))];
}

// What this op sends back to an array, and the whole gradient where other ops send something, too.
function gradientsOf(name, array, grads) {
  const found = new Map(), whole = data.arrays[array.gradient];
  for (const [label, gradient] of grads)
    if (gradient.of === array.id && (!found.has(gradient.id) || label === `d${name}`)) found.set(gradient.id, [label, gradient]);
  if (whole && !found.has(whole.id)) found.set(whole.id, [found.size ? "whole gradient" : `d${name}`, whole]);
  return [...found.values()];
}

function arrayPart(way, name, array, gradients, sources) {
  const said = array.kind === "parameter" ? array.name : array.role;
  const summary = [box("b", {}, name), box("span.soft", {}, ` ${way} · ${shapeText(array)} · ${said}`)];
  const build = () => box("div.beside", {}, box("div", {}, matrix(array, name, show), line(sources.get(array.id))),
    gradients.map(([label, gradient]) => box("div.gradient", {}, matrix(gradient, label, show), line(sources.get(gradient.id)), measured(gradient))));
  const made = fold(summary, build, array.kind !== "parameter");
  return Object.assign(made, {arrays: [array, ...gradients.map(([, gradient]) => gradient)]});
}

// The line of source that computes an array.
const line = source => source && box("p.line", {}, box("code", {}, source.text), " ", box("span.soft", {}, `${source.file}:${source.line}`));

// The finite differences of a gradient: how many agree, and all of them on demand.
function measured(gradient) {
  const index = gradient.numeric && (gradient.numeric.index ?? placesOf(gradient)).filter(at => numericOf(gradient, at));
  if (!index?.length) return null;
  const agreeing = index.filter(at => numericOf(gradient, at).agrees).length, all = index.length;
  const row = at => {
    const {value, bar, agrees} = numericOf(gradient, at);
    return [nameAt(gradient, at), textAt(gradient, at, true), isBlank(gradient, at) ? "?" : exact(value), exact(bar),
            box(`span.${agrees ? "agrees" : "differs"}`, {}, agrees ? "agrees" : "differs")];
  };
  return fold(box("span", {class: agreeing === all ? "agrees" : "differs"}, `${agreeing} of ${isOne(all, "finite difference")} agree`),
              () => live(() => table("finite differences of the loss", ["element", "gradient", "finite difference", "error bar", ""], index.map(row), ".terms")));
}

// ---- the card of a number ----

function show(array, index) {
  const card = element("card");
  if (!card) return;
  state.address = `#call-${state.call.id}/${array.id}/${index}`;
  history.replaceState(null, "", state.address);
  if (isBlank(array, index)) return ask(card, array, index);
  const answer = state.answers.get(keyOf(array, index));
  const about = box("div", {},
    box("p.number", {}, box("b", {}, nameAt(array, index)), " = ", box("span.value", {}, textAt(array, index, true)), " ",
        box("span.soft", {}, array.role)),
    answer && verdictText(answer, array, index), partOf(array, index), difference(array, index));
  fill(card, about, contributions(array, index));
  card.scrollTop = 0;
}

// Its gradient, or what it is the gradient of.
function partOf(array, index) {
  const gradient = data.arrays[array.gradient], of = data.arrays[array.of];
  return [gradient && box("p", {}, "its gradient: ", numberLink(gradient, index, textAt(gradient, index, true))),
          of && sameSize(of, array) && box("p", {}, "the gradient of ", numberLink(of, index, nameAt(of, index)),
                                    ` of ${where(of)}, which is ${textAt(of, index, true)}`)];
}

const sameSize = (a, b) => sizeOf(a) === sizeOf(b);

function difference(array, index) {
  const found = numericOf(array, index);
  if (!found) return array.kind === "gradient" && array.numeric ? box("p.soft", {}, "no finite difference was made here") : null;
  return box("p", {}, `finite difference: ${exact(found.value)} ± ${exact(found.bar)} `,
             box(`span.${found.agrees ? "agrees" : "differs"}`, {}, found.agrees ? "agrees" : "differs"));
}

// A link to a number in the panel of the op that made it, or reads it.
function numberLink(array, index, text) {
  const made = data.calls[array.made_by] ?? data.calls[array.used_by[0]];
  return made && matrixOf(array).at(index) !== undefined ? box("a", {href: `#call-${made.id}/${array.id}/${index}`}, text) : text;
}

// What adds up to an element of a gradient, the largest first; each leads to where it comes from.
function contributions(array, index) {
  const found = termsOf(data.arrays, array, index);
  if (!found) return array.contributors && box("p.soft", {}, "What adds up to it was not recorded.");
  const largest = Math.max(...found.terms.map(({term}) => Math.abs(term)), Math.abs(found.rest)) || 1;
  const rows = found.terms.map(sent => [senderLink(sent, found.byRow), exact(sent.term), bar(sent.term / largest)]);
  if (found.count) rows.push([`${isOne(found.count, "more term")}, together`, exact(found.rest), bar(found.rest / largest)]);
  const right = addUp(found, matrixOf(array).at(index), largestOf(array));
  return box("div", {}, box("h4", {}, "What adds up to it"), rows.length ? table(`terms of ${nameAt(array, index)}`, ["sent by", "term", ""], rows, ".terms") : box("p", {}, "Nothing does: each term is zero."),
          box("p.sum", {}, "sum: ", box("b", {}, textAt(array, index, true)), " ",
              box(`span.${right ? "agrees" : "differs"}`, {}, right ? "the terms add up to it" : "the terms do not add up to it")));
}

function senderText({array, place, before}, byRow) {
  return !array ? String(place) : before ? `${nameAt(array, place)} of ${where(array)}, already there` : nameAt(array, place, byRow);
}

// Where an array was made, in words.
const where = array => (call => call ? `${opName(call)} ${call.where}` : array.role)(data.calls[array.made_by]);

function senderLink(sent, byRow) {
  return byRow || !sent.array ? senderText(sent, byRow) : numberLink(sent.array, sent.place, senderText(sent, byRow));
}

function bar(share) {
  const made = box("i"), track = box(`span.bar${share < 0 ? ".minus" : ""}`, {"aria-hidden": "true"}, made);
  made.style.width = `${Math.min(100, Math.abs(share) * 100)}%`;
  return track;
}

// ---- fill in the blank ----

function ask(card, array, index) {
  const field = box("input", {inputmode: "decimal", autocomplete: "off", "aria-label": nameAt(array, index)});
  const said = box("p", {role: "status"}), name = nameAt(array, index);
  const done = typed => answerBlank(array, index, typed);
  const form = box("form", {onsubmit: event => {
    event.preventDefault();
    if (!judge(field.value, 0).known) { said.textContent = "Type a number, such as -0.25 or 1e-3."; return; }
    done(field.value);
  }}, box("label", {}, `${name} = `, field), box("button", {}, "Check"), box("button", {type: "button", onclick: () => done("")}, "Show it"));
  fill(card, form, box("p.soft", {}, "Within one per cent is right. The formulas and the other numbers are above."), said,
                       hint(array, index));
  field.focus();
}

// The terms without their sum.
function hint(array, index) {
  const found = termsOf(data.arrays, array, index);
  if (!found?.terms.length) return null;
  const rows = () => [...found.terms.map(sent => [senderText(sent, found.byRow), exact(sent.term)]),
                      ...(found.count ? [[`${isOne(found.count, "more term")}, together`, exact(found.rest)]] : [])];
  return fold("a hint: the terms that add up to it", () => table("terms", ["sent by", "term"], rows()));
}

// Judge what was typed into a blank ("": the reader gave up), and show it everywhere.
function answerBlank(array, index, typed) {
  const expected = matrixOf(array).at(index);
  state.answers.set(keyOf(array, index), {typed, right: judge(typed, expected).right});
  score();
  redrawAll();
  show(array, index);
  const cell = document.querySelector(`td[data-array="${array.id}"][data-index="${index}"]`);
  if (cell) { cell.classList.add("chosen"); goTo(cell); }
}

function verdictText({typed, right}, array, index) {
  const expected = textAt(array, index, true);
  return box(`p.verdict.${right ? "agrees" : "differs"}`, {role: "status"},
             right ? `Right: it is ${expected}.` : typed ? `Wrong: you typed ${typed}, it is ${expected}.` : `It is ${expected}.`,
             box("span.soft", {}, scoreText()), nextBlank());
}

// A button that leads to the next blank after the chosen number, or the first; none if there is none left.
function nextBlank() {
  const left = () => [...element("panel").querySelectorAll("td.blank")], chosen = () => element("panel").querySelector("td.chosen");
  const next = () => left().find(cell => chosen()?.compareDocumentPosition(cell) & Node.DOCUMENT_POSITION_FOLLOWING) ?? left()[0];
  return left().length > 0 && box("button", {type: "button", onclick: () => pick(next(), show)}, "Next blank");
}

function scoreText() {
  const answers = [...state.answers.values()];
  return answers.length ? `${answers.filter(answer => answer.right).length} of ${answers.length} right` : "open an op: some of its numbers are blanks";
}

function score() {
  element("score").textContent = state.practice ? scoreText() : "";
}
