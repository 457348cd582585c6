"use strict";
// The sections below the graph: attention maps, logit lens, AdamW, the decoding step, costs.

// ---- attention ----

const FEW_KEYS = 8;                             // more, and a map has colours only, unless all digits are wanted

function attentionSection() {
  const layers = grouped(data.attention, head => `${head.phase} ${head.layer}`);
  if (!layers.size) return box("p", "No attention was recorded.");
  return [box("p", "Row: the token that asks; column: the token that it attends to. A row's probabilities add up to 1. "
              + "What comes later is never seen. The stronger the colour, the likelier."),
          [...layers.values()].map((heads, i) => attentionLayer(heads, i < 1 || layers.size < 6))];
}

function attentionLayer(heads, open) {
  const [{phase, layer, call}] = heads, made = data.calls[call];
  return fold(`${phase === "decode" ? "decoding" : "training"} step, block ${layer}: ${isOne(heads.length, "head")}`,
              () => [box("p.soft", "computed by ", callLink(made, `${opName(made)} ${made.where}`)), headMaps(heads)],
              open);
}

const headMaps = heads => box("div.heads", heads.map(head => live(() => attentionMap(head))));

function attentionMap({layer, head, queries, keys, values}) {
  const label = position => shown(data.tokens[position].text), all = state.digits === "all";
  const cell = (q, k) => {
    const value = values[q * keys.length + k];
    if (keys[k] > queries[q]) return box("td");
    const made = box("td", {title: `${label(queries[q])} → ${label(keys[k])}: ${exact(value)}`},
                     all ? exact(value) : short(value, true, 6));
    colour(made, Math.sqrt(value));
    return made;
  };
  return box("figure.attention", box("figcaption", box("strong", `head ${head}`)),
    box("div.wide", box(`table.grid${keys.length > FEW_KEYS && !all ? ".dense" : ""}`,
      box("caption.unseen", `block ${layer}, head ${head}: who attends to whom`),
      box("thead", box("tr", box("td"), keys.map(k => box("th", {scope: "col"}, label(k))))),
      box("tbody", queries.map((q, i) => box("tr", box("th", {scope: "row"}, label(q)),
                                                   keys.map((_, j) => cell(i, j))))))));
}

// ---- logit lens ----

function lensSection() {
  if (!data.lens.length) return box("p", "Nothing was recorded.");
  const details = box("div", {role: "status"}), positions = data.lens[0].positions.map(found => found.position);
  const row = ({label, positions}) => [label, ...positions.map(found => lensCell(label, found, details))];
  const head = ["residual stream", ...positions.map(p => `${p} ${shown(data.tokens[p].text)}`)];
  return [box("p", "What the model would say if it stopped there: the residual stream, through the last LayerNorm and "
              + "the output head. Each cell has the likeliest next token and its probability; one that is outlined is "
              + "the token that does come next."),
          table("the likeliest next token after each sublayer", head, data.lens.map(row), ".lenses"), details];
}

const comesNext = (found, one) => data.tokens[found.position + 1]?.id === one.id;

function lensCell(label, found, details) {
  const [best] = found.top, {text, probability} = best;
  const made = box(`button.lens${comesNext(found, best) ? ".right" : ""}`,
    {type: "button", title: `${shown(text)}: ${exact(probability)}`,
     onclick: () => fill(details, lensList(label, found))},
    box("b", shown(text)), " ", box("small", short(probability, true, 6)));
  colour(made, probability);
  return made;
}

function lensList(label, found) {
  const rows = found.top.map(one => [[shown(one.text), comesNext(found, one) && box("span.agrees", " comes next")],
                                     exact(one.probability), bar(one.probability)]);
  return [box("h3", `${label}, position ${found.position}: after “${shown(data.tokens[found.position].text)}”`),
          table("likeliest next tokens", ["token", "probability", ""], rows, ".terms")];
}

// ---- AdamW ----

const A_PAGE = 12;                              // elements of a parameter that are shown at once
const SETTINGS = {lr: "lr", beta1: "beta1", beta2: "beta2", eps: "eps", weight_decay: "weight decay", step: "step",
                  norm: "gradient norm", clip: "clipped at", scale: "clipping: g times", moments: "moments"};

function updateSection() {
  const {training} = data, options = data.parameters.map((p, i) => box("option", {value: String(i)}, p.name));
  const select = box("select", {"aria-label": "parameter"}, options), chosen = box("div");
  const draw = () => fill(chosen, updateTable(data.parameters[Number(select.value)]));
  const text = value => typeof value !== "number" ? value : Number.isInteger(value) ? exact(value, false) : full(value);
  const given = Object.entries(SETTINGS).filter(([name]) => (training[name] ?? null) !== null);
  select.addEventListener("change", draw);
  draw();
  const pair = ([name, label]) => box("div", box("dt", label), box("dd", text(training[name])));
  return [box("p", `The loss was ${exact(training.loss_before)}; after the update it is ${exact(training.loss_after)} `
              + "on the same tokens."),
          box("dl.settings", given.map(pair)),
          typesetOf("adamw"), box("p", box("label", "Parameter ", select)), chosen];
}

// The update of a parameter, element by element.
function updateTable(parameter) {
  const value = data.arrays[parameter.value], gradient = data.arrays[parameter.gradient], places = placesOf(value);
  const figure = box("figure.live"), element = {name: "", shape: value.shape};
  const columns = {w: value.values, g: gradient && places.map(matrixOf(gradient).at), m: parameter.m, v: parameter.v,
                   "new m": parameter.m_after, "new v": parameter.v_after, update: parameter.update,
                   "new w": parameter.after};
  const cell = (name, i) => {
    const x = columns[name] ? columns[name][i] : 0, text = state.digits === "all" ? exact(x) : short(x, true, 9);
    return box("span", {title: exact(x)}, name === "g" && gradient ? numberLink(gradient, places[i], text) : text);
  };
  let start = 0;
  const redraw = () => {
    const some = [...places.keys()].slice(start, start + A_PAGE), end = start + some.length;
    fill(figure, table(`the update of ${parameter.name}`, [parameter.name, ...Object.keys(columns)], some.map(
           i => [nameAt(element, places[i]), ...Object.keys(columns).map(name => cell(name, i))]), ".update"),
         box("p.pages", button("earlier", () => turn(-A_PAGE), start === 0),
             ` ${start + 1} to ${end} of ${places.length}${parameter.decayed ? "" : ", without weight decay"} `,
             button("later", () => turn(A_PAGE), end >= places.length)));
  };
  const turn = by => { start += by; redraw(); };
  redraw();
  return Object.assign(figure, {redraw});
}

// ---- decoding ----

function decodeSection() {
  const {token, position, cached, next} = data.decode, most = next[0]?.probability || 1;
  const calls = data.calls.filter(call => call.phase === "decode" && call.parent === null);
  const row = ({text, logit, probability}) => [shown(text), exact(logit), exact(probability), bar(probability / most)];
  return [box("p", `The model reads “${shown(token.text)}” at position ${position}; keys and values of the `
              + `${isOne(cached, "token")} before it wait in the KV cache, so each op has one row. Its ops: `,
              calls.map((call, i) => [i ? ", " : "", callLink(call)]), "."),
          table("the likeliest next tokens", ["next token", "logit", "probability", ""], next.map(row), ".terms")];
}

// ---- costs ----

function costsSection() {
  const totals = Object.entries(data.totals).map(([phase, total]) => [phase, ...costCells(total)]);
  const calls = data.calls.filter(call => call.parent === null && call.seconds !== null);
  const most = Math.max(...calls.map(call => call.seconds));
  const row = call => {
    const [time, flops, bytes] = costCells(call);
    return [[callLink(call), " ", box("span.soft", `${call.where} ${call.phase}`)], time, bar(call.seconds / most),
            flops, bytes];
  };
  const each = () => table("time, FLOPs and bytes of each op", ["op", "time", "", "FLOPs", "bytes"], calls.map(row),
                           ".costs");
  return [table("totals", ["phase", "time", "FLOPs", "bytes"], totals, ".costs"),
          fold("each op", each, calls.length < 60)];
}

const SECTIONS = {attention: attentionSection, lens: lensSection, update: updateSection, decode: decodeSection,
                  costs: costsSection};
