"use strict";
// The sections below the graph: attention maps, logit lens, AdamW, the decoding step, costs.

// ---- attention ----

function attentionSection() {
  const layers = [...new Set(data.attention.map(head => `${head.phase} ${head.layer}`))];
  if (!layers.length) return box("p", {}, "No attention was recorded.");
  return [box("p", {}, "Row: the token that asks; column: the token that it attends to. A row's probabilities add up to 1. "
              + "What comes later is never seen. The stronger the colour, the likelier."),
          layers.map((layer, i) => {
            const heads = data.attention.filter(head => `${head.phase} ${head.layer}` === layer), [phase, number] = layer.split(" ");
            return fold(`${phase === "forward" ? "training" : "decoding"} step, block ${number}: ${isOne(heads.length, "head")}`,
                        () => [box("p.soft", {}, "computed by ", callLink(data.calls[heads[0].call], `${opName(data.calls[heads[0].call])} ${data.calls[heads[0].call].where}`)),
                               box("div.heads", {}, heads.map(head => live(() => attentionMap(head))))],
                        i < 1 || layers.length < 6);
          })];
}

const FEW_KEYS = 8;                             // more, and the map has colours only unless all digits are wanted

function attentionMap({layer, head, queries, keys, values}) {
  const label = position => shown(data.tokens[position].text), dense = keys.length > FEW_KEYS && state.digits !== "all";
  const cell = (q, k) => {
    const value = values[q * keys.length + k], later = keys[k] > queries[q];
    const made = box("td", {title: `${label(queries[q])} → ${label(keys[k])}: ${exact(value)}`},
                     later ? "" : state.digits === "all" ? exact(value) : short(value, true, 6));
    if (!later) colour(made, Math.sqrt(value));
    return made;
  };
  return box("figure.attention", {}, box("figcaption", {}, box("strong", {}, `head ${head}`)),
    box("div.wide", {}, box(`table.grid${dense ? ".dense" : ""}`, {}, box("caption.unseen", {}, `block ${layer}, head ${head}: who attends to whom`),
      box("thead", {}, box("tr", {}, box("td"), keys.map(k => box("th", {scope: "col"}, label(k))))),
      box("tbody", {}, queries.map((q, i) => box("tr", {}, box("th", {scope: "row"}, label(q)), keys.map((_, j) => cell(i, j))))))));
}

// ---- logit lens ----

function lensSection() {
  if (!data.lens.length) return box("p", {}, "Nothing was recorded.");
  const positions = data.lens[0].positions.map(found => found.position);
  const details = box("div", {role: "status"});
  const target = position => data.tokens[position + 1];
  const cell = (state, i) => {
    const found = state.positions[i], [best] = found.top, right = target(found.position)?.id === best.id;
    const made = box(`button.lens${right ? ".right" : ""}`, {type: "button", title: `${shown(best.text)}: ${exact(best.probability)}`,
      onclick: () => fill(details, lensList(state.label, found, target(found.position)))},
      box("b", {}, shown(best.text)), " ", box("small", {}, short(best.probability, true, 6)));
    colour(made, best.probability);
    return made;
  };
  return [box("p", {}, "What the model would say if it stopped there: the residual stream, through the last LayerNorm and the output head. "
              + "Each cell has the likeliest next token and its probability; one that is outlined is the token that does come next."),
          table("the likeliest next token after each sublayer", ["residual stream", ...positions.map(p => `${p} ${shown(data.tokens[p].text)}`)],
                data.lens.map(state => [state.label, ...positions.map((_, i) => cell(state, i))]), ".lenses"), details];
}

function lensList(label, found, target) {
  const rows = found.top.map(one => [[shown(one.text), target?.id === one.id ? box("span.agrees", {}, " comes next") : ""],
                                     exact(one.probability), bar(one.probability)]);
  return [box("h3", {}, `${label}, position ${found.position}: after “${shown(data.tokens[found.position].text)}”`),
          table("likeliest next tokens", ["token", "probability", ""], rows, ".terms")];
}

// ---- AdamW ----

const FIRST = 12;

function updateSection() {
  const {training} = data, typeset = document.querySelector('template[data-formulas="adamw"]');
  const said = ["lr", "beta1", "beta2", "eps", "weight_decay", "step", "norm", "clip", "scale", "moments"];
  const names = {norm: "gradient norm", clip: "clipped at", scale: "clipping: g times", step: "step", weight_decay: "weight decay"};
  const select = box("select", {"aria-label": "parameter"}, data.parameters.map((p, i) => box("option", {value: String(i)}, p.name)));
  const shownTable = box("div");
  const draw = () => fill(shownTable, updateTable(data.parameters[Number(select.value)]));
  select.addEventListener("change", draw);
  draw();
  return [box("p", {}, `The loss was ${exact(training.loss_before)}; after the update it is ${exact(training.loss_after)} on the same tokens.`),
          box("dl.settings", {}, said.filter(name => training[name] !== undefined && training[name] !== null).map(name =>
            box("div", {}, box("dt", {}, names[name] ?? name), box("dd", {}, typeof training[name] === "number" ? box("span", {title: exact(training[name])}, short(training[name], name !== "step", 11)) : training[name])))),
          typeset?.content.childElementCount ? box("ol.formulas", {}, typeset.content.cloneNode(true)) : null,
          box("p", {}, box("label", {}, "Parameter ", select)), shownTable];
}

// The update of a parameter, element by element: w, g, m and v before and after, the step, the new w.
function updateTable(parameter) {
  const value = data.arrays[parameter.value], gradient = data.arrays[parameter.gradient];
  const index = placesOf(value);
  let start = 0;
  const column = {
    w: i => value.values[i], g: i => gradient && matrixOf(gradient).at(index[i]),
    m: i => parameter.m?.[i] ?? 0, v: i => parameter.v?.[i] ?? 0, "new m": i => parameter.m_after[i],
    "new v": i => parameter.v_after[i], update: i => parameter.update[i], "new w": i => parameter.after[i]};
  const figure = box("figure.live");
  const cell = (name, i) => {
    const x = column[name](i);
    if (x === undefined || x === null) return "–";
    const text = state.digits === "all" ? exact(x) : short(x, true, 9);
    return box("span", {title: exact(x)}, name === "g" ? numberLink(gradient, index[i], text) : text);
  };
  const turn = by => { start += by; draw(); };
  const draw = () => {
    const rows = index.slice(start, start + FIRST).map((at, i) => [nameAt({name: "", shape: value.shape}, at), ...Object.keys(column).map(name => cell(name, start + i))]);
    fill(figure, table(`the update of ${parameter.name}`, [parameter.name, ...Object.keys(column)], rows, ".update"),
      box("p.pages", {}, box("button", {type: "button", disabled: start === 0, onclick: () => turn(-FIRST)}, "earlier"),
          ` ${start + 1} to ${start + rows.length} of ${index.length}${parameter.decayed ? "" : ", without weight decay"} `,
          box("button", {type: "button", disabled: start + FIRST >= index.length, onclick: () => turn(FIRST)}, "later")));
  };
  figure.redraw = draw;
  draw();
  return figure;
}

// ---- decoding ----

function decodeSection() {
  const {token, position, cached, next} = data.decode, most = next[0]?.probability || 1;
  const calls = data.calls.filter(call => call.phase === "decode" && call.parent === null);
  return [box("p", {}, `The model reads “${shown(token.text)}” at position ${position}; keys and values of the ${isOne(cached, "token")} before it wait in the KV cache, so each op has one row. `,
              "Its ops: ", calls.map((call, i) => [i ? ", " : "", callLink(call, opName(call))]), "."),
          table("the likeliest next tokens", ["next token", "logit", "probability", ""],
                next.map(one => [shown(one.text), exact(one.logit), exact(one.probability), bar(one.probability / most)]), ".terms")];
}

// ---- costs ----

function costsSection() {
  const total = Object.entries(data.totals).map(([phase, t]) => [phase, timeText(t.seconds), countText(t.flops), countText(t.bytes)]);
  const ops = data.calls.filter(call => call.parent === null && call.seconds !== null), most = Math.max(...ops.map(call => call.seconds));
  const rows = ops.map(call => [[callLink(call, opName(call)), " ", box("span.soft", {}, `${call.where} ${call.phase}`)], timeText(call.seconds),
                                bar(call.seconds / most), countText(call.flops), countText(call.bytes)]);
  return [table("totals", ["phase", "time", "FLOPs", "bytes"], total, ".costs"),
          fold("each op", () => table("time, FLOPs and bytes of each op", ["op", "time", "", "FLOPs", "bytes"], rows, ".costs"), rows.length < 60)];
}

const SECTIONS = {attention: attentionSection, lens: lensSection, update: updateSection, decode: decodeSection, costs: costsSection};
