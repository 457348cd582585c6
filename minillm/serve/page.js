"use strict";
// The chat page: it talks to the server it came from, by OpenAI's protocol, and to nobody else.
// The first half knows nothing of the page (tests run it alone); the second half is the page.

// ---- the protocol ----

// The data of the whole server-sent events in `text`, and the rest that is not whole yet.
function splitEvents(text) {
  const parts = text.split("\n\n");
  const rest = parts.pop();
  return [parts.map(part => part.replace(/^data: ?/, "")), rest];
}

// The body of a request: settings that were left alone are left out, so that the server's own defaults hold.
// A server that filters its answers refuses log-probabilities.
function requestBody(settings, turns, prompt, filtered = false) {
  const body = {stream: true, stream_options: {include_usage: true}, temperature: Number(settings.temperature)};
  const neutral = {top_p: 1, min_p: 0, repetition_penalty: 1};
  for (const [name, value] of Object.entries(neutral))
    if (Number(settings[name]) !== value) body[name] = Number(settings[name]);
  for (const name of ["top_k", "max_tokens", "seed"])
    if (settings[name] !== "") body[name] = Number(settings[name]);
  if (settings.stop) body.stop = settings.stop;
  const chat = settings.mode === "chat";
  if (!filtered) Object.assign(body, chat ? {logprobs: true, top_logprobs: 3} : {logprobs: 3});
  if (!chat) return {...body, prompt, max_tokens: body.max_tokens ?? 100};
  const system = settings.system ? [{role: "system", content: settings.system}] : [];
  return {...body, messages: [...system, ...turns]};
}

// A chunk of either endpoint as {text, tokens: [{bytes, logprob, top: [[text, logprob]]}], finish, usage}.
function readChunk(chunk) {
  const choice = chunk.choices[0] ?? {};
  const probs = choice.logprobs ?? {};
  const tokens = probs.content
    ? probs.content.map(t => ({bytes: t.bytes, logprob: t.logprob, top: t.top_logprobs.map(o => [o.token, o.logprob])}))
    : (probs.tokens ?? []).map((name, i) => ({bytes: bytesOf(name), logprob: probs.token_logprobs[i],
                                              top: Object.entries(probs.top_logprobs[i])}));
  return {text: choice.text ?? choice.delta?.content ?? "", tokens, finish: choice.finish_reason ?? null,
          usage: chunk.usage ?? null};
}

// A token's bytes from its name at /v1/completions, where a part of a character is written as bytes:\xe2\x98.
function bytesOf(name) {
  if (!name.startsWith("bytes:\\x")) return [...new TextEncoder().encode(name)];
  return [...name.matchAll(/\\x([0-9a-f]{2})/g)].map(found => parseInt(found[1], 16));
}

// Tokens to pieces of text {text, logprob, tops}: tokens that make one character together become one piece.
class Pieces {
  constructor() {
    this.decoder = new TextDecoder("utf-8");
    this.open = null;
  }
  push(token) {
    const piece = this.open ?? {text: "", logprob: 0, tops: []};
    piece.text += this.decoder.decode(new Uint8Array(token.bytes), {stream: true});
    piece.logprob += token.logprob;
    piece.tops.push(token.top);
    this.open = piece.text === "" ? piece : null;
    return this.open ? null : piece;
  }
}

// Red is unlikely, green is likely: an angle of the colour wheel, by the logarithm, so that 10% is half way to 1%.
function hue(logprob) {
  return Math.round(120 * Math.max(0, 1 + logprob / Math.log(1000)));
}

function percent(logprob) {
  const p = 100 * Math.exp(logprob);
  return (p >= 10 ? p.toFixed(0) : p.toPrecision(2)) + "%";
}

function describe(piece) {
  const line = ([text, logprob]) => `${percent(logprob)}  ${JSON.stringify(text)}`;
  const others = piece.tops.length === 1 ? piece.tops[0].map(line) : [];
  return [line([piece.text, piece.logprob]), ...(others.length ? ["likeliest:", ...others] : [])].join("\n");
}

// The line under an answer. times: milliseconds to the first token and to the last.
function summary(usage, finish, first, last) {
  const written = usage.completion_tokens;
  const speed = (written - 1) / (last - first) * 1000;
  const rate = last > first ? (speed < 100 ? speed.toPrecision(3) : speed.toFixed(0)) + " tokens/s" : "";
  const {accepted_prediction_tokens: kept = 0, rejected_prediction_tokens: rejected = 0} = usage.completion_tokens_details ?? {};
  const drafted = kept + rejected;
  const accepted = drafted ? `${Math.round(100 * kept / drafted)}% of ${drafted} draft tokens accepted` : "";
  return [`${usage.prompt_tokens} + ${written} tokens`, `first after ${Math.round(first)} ms`, rate, accepted,
          finish === "length" ? "cut at its longest" : ""].filter(Boolean).join(" · ");
}

// ---- the page ----

const page = {turns: [], running: null, filtered: false};

function element(id) {
  return document.getElementById(id);
}

function settingsNow() {
  return Object.fromEntries(new FormData(element("settings")));
}

function headers() {
  const key = settingsNow().key;
  return {"content-type": "application/json", ...(key ? {authorization: `Bearer ${key}`} : {})};
}

function addTurn(kind, text = "") {
  const turn = document.createElement("div");
  turn.className = `turn ${kind}`;
  turn.textContent = text;
  element("talk").append(turn);
  turn.scrollIntoView({block: "end"});
  return turn;
}

function addPiece(turn, piece) {
  const span = document.createElement("span");
  span.textContent = piece.text;
  span.dataset.p = Math.exp(piece.logprob).toPrecision(3);
  span.style.setProperty("--hue", hue(piece.logprob));
  span.style.setProperty("--strength", 1 - 0.7 * Math.exp(piece.logprob));    // what was sure need not shine
  span.title = describe(piece);
  turn.append(span);
}

// Take away what the last tokens hold beyond the answer's text (the beginning of a stop string).
function trimTo(turn, text) {
  let extra = turn.textContent.length - text.length;
  while (extra > 0 && turn.lastChild) {
    const end = turn.lastChild.textContent;
    turn.lastChild.textContent = end.slice(0, Math.max(0, end.length - extra));
    if (!turn.lastChild.textContent) turn.lastChild.remove();
    extra -= end.length;
  }
}

async function send(event) {
  event?.preventDefault();
  const settings = settingsNow(), prompt = element("prompt").value;
  if (page.running || (!prompt && settings.mode === "chat")) return;
  addTurn("user", prompt);
  if (settings.mode === "chat") {
    page.turns.push({role: "user", content: prompt});
    element("prompt").value = "";
  }
  await ask(settings, prompt);
}

// The last answer goes, and another comes in its place.
async function regenerate() {
  if (page.running || page.turns.at(-1)?.role !== "assistant") return;
  page.turns.pop();
  element("talk").lastElementChild.remove();
  await ask({...settingsNow(), mode: "chat"}, page.turns.at(-1).content);
}

async function ask(settings, prompt) {
  setRunning(new AbortController());
  try {
    await answer(settings, prompt);
  } catch (error) {
    if (error.name !== "AbortError") addTurn("error", error.message);
    if (page.turns.at(-1)?.role === "user") {       // not answered: as if it had not been said
      page.turns.pop();
      element("prompt").value ||= prompt;
    }
  } finally {
    setRunning(null);
    save();
  }
}

// The conversation outlives a reload, in this tab.
function save() {
  sessionStorage.setItem("turns", JSON.stringify(page.turns));
}

function restore() {
  page.turns = JSON.parse(sessionStorage.getItem("turns") ?? "[]");
  for (const {role, content} of page.turns)
    if (role === "user") addTurn(role, content);
    else addFooter(addTurn(role, content), content, "", true);
}

// What stands under an answer: how it went, and what can be done with it.
function addFooter(turn, text, line, chat) {
  const footer = Object.assign(document.createElement("small"), {textContent: line});
  if (navigator.clipboard) footer.append(button("copy", async copy => {       // there is none but on https and this machine
    await navigator.clipboard.writeText(text);
    copy.textContent = "copied";
  }));
  if (chat) footer.append(button("again", regenerate));
  turn.append(footer);
  footer.scrollIntoView({block: "nearest"});
}

function button(name, action) {
  const made = Object.assign(document.createElement("button"), {type: "button", className: name, textContent: name});
  made.addEventListener("click", () => action(made));
  return made;
}

function setRunning(controller) {
  page.running = controller;
  element("send").disabled = Boolean(controller);
  element("stop").disabled = !controller;
  if (controller) element("status").textContent = "waiting …";
}

// Ask, and forget the oldest turns as long as the conversation does not fit into the model's context.
async function answer(settings, prompt) {
  const all = [...page.turns];
  const path = settings.mode === "chat" ? "v1/chat/completions" : "v1/completions";
  for (;;) {
    const started = performance.now();
    const body = JSON.stringify(requestBody(settings, page.turns, prompt, page.filtered));
    const response = await fetch(path, {method: "POST", headers: headers(), signal: page.running.signal, body});
    if (response.ok) return await show(response, settings, started);
    const {error} = await response.json().catch(() => ({error: {message: `the server answered ${response.status}`}}));
    if (error.code !== "context_length_exceeded" || settings.mode === "text" || page.turns.length < 3) {
      page.turns.splice(0, page.turns.length, ...all);
      throw new Error(error.message);
    }
    page.turns.splice(0, 2);
    element("status").textContent = "the oldest turns were forgotten: the context is full";
  }
}

// Write an answer as it comes. What came is kept when the user stops it.
async function show(response, settings, started) {
  const turn = addTurn("assistant");
  const pieces = new Pieces(), turns = page.turns;
  let text = "", finish = "stopped", usage = null, first = null;
  turn.classList.toggle("coloured", Boolean(settings.colour));
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      const read = readChunk(chunk);
      if (read.tokens.length || read.text) first ??= performance.now() - started;
      for (const token of read.tokens) {
        const piece = pieces.push(token);
        if (piece) addPiece(turn, piece);
      }
      if (!chunk.choices[0]?.logprobs && read.text) turn.append(read.text);   // a server that filters shows no tokens
      text += read.text;
      finish = read.finish ?? finish;
      usage = read.usage ?? usage;
      element("talk").scrollTop = element("talk").scrollHeight;
    }
  } finally {
    trimTo(turn, text);
    if (settings.mode === "chat") turns.push({role: "assistant", content: text});
    const line = usage ? summary(usage, finish, first ?? 0, performance.now() - started) : "stopped";
    addFooter(turn, text, line, settings.mode === "chat");
    element("status").textContent = "";
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", whole;
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    [whole, rest] = splitEvents(rest + value);
    yield* whole;
  }
}

function clear() {
  page.running?.abort();
  page.turns = [];
  save();
  element("talk").replaceChildren();
  element("status").textContent = "";
}

// On a phone the settings are folded away.
function fold() {
  const open = document.body.classList.toggle("unfolded");
  element("fold").setAttribute("aria-expanded", open);
}

// Every slider shows its value; the mode shows its own fields; the colours of all answers go on and off.
function refresh() {
  for (const slider of document.querySelectorAll("input[type=range]"))
    slider.parentElement.querySelector("output").textContent = slider.value;
  const settings = settingsNow();
  document.body.classList.toggle("text", settings.mode === "text");
  for (const turn of document.querySelectorAll(".assistant"))
    turn.classList.toggle("coloured", Boolean(settings.colour));
}

async function connect() {
  const response = await fetch("v1/models", {headers: headers()});
  const answer = await response.json();
  const model = answer.data?.[0];
  page.filtered = Boolean(model?.filtered);
  element("model").textContent = !model ? answer.error.message
    : `${model.id} · context ${model.context_length} tokens` + (model.speculative ? " · speculative decoding" : "");
}

function begin() {
  element("ask").addEventListener("submit", send);
  element("prompt").addEventListener("keydown", event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  });
  element("stop").addEventListener("click", () => page.running?.abort());
  element("clear").addEventListener("click", clear);
  element("fold").addEventListener("click", fold);
  element("settings").addEventListener("input", refresh);
  element("settings").addEventListener("submit", event => event.preventDefault());
  element("settings").elements.key.addEventListener("change", connect);
  refresh();
  restore();
  connect().catch(() => { element("model").textContent = "the server does not answer"; });
}

if (typeof document !== "undefined") begin();
else module.exports = {splitEvents, requestBody, readChunk, bytesOf, Pieces, hue, percent, describe, summary};
