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

const NEAR = 100;                   // pixels from the end of the talk
const page = {store: null, conversation: null, running: null, filtered: false};

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

function button(name, action) {
  const made = Object.assign(document.createElement("button"), {type: "button", className: name.toLowerCase(), textContent: name});
  made.addEventListener("click", () => action(made));
  return made;
}

// ---- turns ----

// A turn as an element: its words, and for an answer its tokens, which are shown in their place when asked for.
function addTurn(kind, text = "", turn = null) {
  const made = box("div", `turn ${kind}`), words = box("div", "words", text);
  if (kind === "assistant") made.append(box("div", "tokens"));
  made.append(words);
  made.turn = turn;
  element("talk").append(made);
  toEnd();
  return made;
}

function atEnd() {
  const talk = element("talk");
  return talk.scrollHeight - talk.scrollTop - talk.clientHeight < NEAR;
}

function toEnd() {
  element("talk").scrollTop = element("talk").scrollHeight;
}

function wordsOf(shown) {
  return shown.querySelector(".words");
}

// Show the conversation's turns: those that are shown stay, with their tokens; those that are gone go.
function draw() {
  const turns = page.conversation.turns, shown = new Set();
  for (const old of [...element("talk").children])
    if (old.matches(".error") || (old.turn && !turns.includes(old.turn))) old.remove();
    else shown.add(old.turn);
  for (const turn of turns.filter(turn => !shown.has(turn))) {
    const made = addTurn(turn.role, turn.role === "user" ? turn.content : "", turn);
    if (turn.role === "assistant") showMarkdown(wordsOf(made), turn.content);
    addFooter(made, turn.content, "");
  }
  toEnd();
}

// What stands under a turn: how an answer went, and what can be done.
function addFooter(shown, text, line) {
  const footer = box("small", "");
  if (line) footer.append(box("div", "", line));
  if (navigator.clipboard) footer.append(button("copy", async copy => {       // there is none but on https and this machine
    await navigator.clipboard.writeText(text);
    copy.textContent = "copied";
  }));
  if (shown.turn?.role === "user") footer.append(button("edit", () => edit(shown)));
  if (shown.turn) footer.append(button("again", regenerate));
  shown.append(footer);
}

// Change what the user said: what came after it goes, and the model answers anew.
function edit(shown) {
  const form = document.createElement("form"), area = document.createElement("textarea"), parts = [...shown.children];
  area.value = shown.turn.content;
  form.append(area, button("Cancel", () => shown.replaceChildren(...parts)), box("button", "save", "Send"));
  form.addEventListener("submit", event => {
    event.preventDefault();
    if (page.running || !area.value.trim()) return;
    shown.replaceChildren(...parts);                                // what is there again if there is no answer
    const turns = page.conversation.turns;
    ask([...turns.slice(0, turns.indexOf(shown.turn)), {role: "user", content: area.value}]);
  });
  shown.replaceChildren(form);
  area.focus();
}

function addPiece(tokens, piece) {
  const span = box("span", "", piece.text);
  span.dataset.p = Math.exp(piece.logprob).toPrecision(3);
  span.style.setProperty("--hue", hue(piece.logprob));
  span.style.setProperty("--strength", 1 - 0.7 * Math.exp(piece.logprob));    // what was sure need not shine
  span.title = describe(piece);
  tokens.append(span);
}

// Take away what the last tokens hold beyond the answer's text (the beginning of a stop string).
function trimTo(tokens, text) {
  let extra = tokens.textContent.length - text.length;
  while (extra > 0 && tokens.lastChild) {
    const end = tokens.lastChild.textContent;
    tokens.lastChild.textContent = end.slice(0, Math.max(0, end.length - extra));
    if (!tokens.lastChild.textContent) tokens.lastChild.remove();
    extra -= end.length;
  }
}

// ---- asking ----

async function send(event) {
  event?.preventDefault();
  const prompt = element("prompt").value, chat = settingsNow().mode === "chat";
  if (page.running || (chat && !prompt.trim())) return;
  if (!chat) return await continueText(prompt);
  element("prompt").value = "";
  await ask([...page.conversation.turns, {role: "user", content: prompt}]);
}

// The last answer goes, and another comes in its place.
async function regenerate() {
  const turns = page.conversation.turns;
  if (!page.running) await ask(turns.at(-1).role === "user" ? [...turns] : turns.slice(0, -1));
}

// Have these turns answered, the last of which is the user's. If no answer begins, all is as it was before.
async function ask(turns) {
  const conversation = page.conversation, before = conversation.turns, shown = [...element("talk").children];
  conversation.turns = turns;
  if (turns.length <= before.length) conversation.skipped = 0;
  draw();
  keep(conversation);
  const error = await running(() => answer(conversation, {...settingsNow(), mode: "chat"}));
  if (conversation.turns === turns) {
    conversation.turns = before;
    if (page.conversation === conversation) element("talk").replaceChildren(...shown);
    if (!before.includes(turns.at(-1))) element("prompt").value ||= turns.at(-1).content;
  }
  if (error && page.conversation === conversation) addTurn("error", error.message);
  keep(conversation);
}

// A text and its continuation are shown, and not kept.
async function continueText(prompt) {
  addTurn("user", prompt);
  const error = await running(() => answer({turns: []}, settingsNow(), prompt));
  if (error) addTurn("error", error.message);
}

// Do something that the user can stop; returns what went wrong, unless it was the user.
async function running(work) {
  setRunning(new AbortController());
  try {
    await work();
  } catch (error) {
    return error.name === "AbortError" ? null : error;
  } finally {
    setRunning(null);
  }
}

function setRunning(controller) {
  page.running = controller;
  element("send").disabled = Boolean(controller);
  element("stop").disabled = !controller;
  document.body.classList.toggle("running", Boolean(controller));
  element("talk").setAttribute("aria-busy", Boolean(controller));             // read aloud when it is whole
  element("status").textContent = controller ? "waiting …" : "";
}

// Ask, and leave out the oldest turns as long as the conversation does not fit into the model's context.
async function answer(conversation, settings, prompt) {
  const path = settings.mode === "chat" ? "v1/chat/completions" : "v1/completions", {signal} = page.running;
  for (let skipped = conversation.skipped; ; skipped += 2) {
    const started = performance.now(), sent = conversation.turns.slice(skipped);
    const body = JSON.stringify(requestBody(settings, sent, prompt, page.filtered));
    const response = await fetch(path, {method: "POST", headers: headers(), signal, body});
    if (response.ok) {
      if (skipped > conversation.skipped) element("status").textContent = "the oldest turns are forgotten: the context is full";
      conversation.skipped = skipped;
      return await show(response, conversation, settings, started);
    }
    const {error} = await response.json().catch(() => ({error: {message: `the server answered ${response.status}`}}));
    if (error.code !== "context_length_exceeded" || sent.length < 3) throw new Error(error.message);
  }
}

// Write an answer as it comes. What came is kept when the user stops it.
async function show(response, conversation, settings, started) {
  const chat = settings.mode === "chat", turn = {role: "assistant", content: ""};
  const shown = addTurn("assistant", "", chat ? turn : null), tokens = shown.querySelector(".tokens");
  const write = () => { if (chat) showMarkdown(wordsOf(shown), turn.content); else wordsOf(shown).textContent = turn.content; };
  const pieces = new Pieces();
  const talk = element("talk");
  let finish = "stopped", usage = null, first = null, waiting = 0, following = true, top = 0;
  const writeOn = () => {                                           // who reads further up is left there, and who has
    following &&= talk.scrollTop >= top;                            // scrolled up since the last look, too
    write();
    if (following) toEnd();
    top = talk.scrollTop;
  };
  wordsOf(shown).classList.toggle("plain", !chat);
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      if (!waiting) [following, top] = [atEnd(), talk.scrollTop];
      const read = readChunk(chunk);
      if (read.tokens.length || read.text) first ??= performance.now() - started;
      for (const token of read.tokens) {
        const piece = pieces.push(token);
        if (piece) addPiece(tokens, piece);
      }
      turn.content += read.text;
      finish = read.finish ?? finish;
      usage = read.usage ?? usage;
      waiting ||= requestAnimationFrame(() => {                     // once a frame, however fast the tokens come
        waiting = 0;
        writeOn();
      });
    }
  } finally {
    cancelAnimationFrame(waiting);
    writeOn();
    trimTo(tokens, turn.content);
    if (chat) conversation.turns = [...conversation.turns, turn];
    const line = usage ? summary(usage, finish, first ?? 0, performance.now() - started) : "stopped";
    addFooter(shown, turn.content, line);
    if (following) toEnd();
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

// ---- conversations ----

// Show a conversation; an answer that is being written in another ends here.
function open(conversation) {
  page.running?.abort();
  page.conversation = conversation;
  storageOf(window, "sessionStorage").setItem("minillm.current", conversation.id);
  element("talk").replaceChildren();
  draw();
  list();
}

function keep(conversation) {
  if (conversation.deleted || !(conversation.turns.length || conversation.title)) return;
  conversation.changed = Date.now();
  if (!page.store.save(conversation)) element("status").textContent = "not kept: the browser has no room for it";
  list();
}

function list() {
  element("list").replaceChildren(...page.store.list().map(item));
}

// A line of the list. The conversation that is open is the one in hand, not its copy in the storage.
function item(stored) {
  const current = stored.id === page.conversation.id, conversation = current ? page.conversation : stored;
  const line = box("li", current ? "current" : ""), title = titleOf(conversation);
  const opening = button("open", () => { fold(false); open(conversation); });
  Object.assign(opening, {textContent: title, title, ariaCurrent: String(current)});
  line.append(opening, button("rename", () => rename(conversation, line)),
              button("delete", pressed => remove(conversation, pressed)));
  return line;
}

function rename(conversation, line) {
  const field = Object.assign(document.createElement("input"), {value: titleOf(conversation), ariaLabel: "name"});
  field.addEventListener("blur", () => {
    conversation.title = field.value.trim();
    page.store.save(conversation);
    list();
  });
  field.addEventListener("keydown", event => {
    if (event.key === "Escape") field.value = conversation.title;
    if (["Escape", "Enter"].includes(event.key) && !event.isComposing) field.blur();
  });
  line.replaceChildren(field);
  field.select();
}

// The first press asks, the second deletes.
function remove(conversation, pressed) {
  if (!pressed.classList.contains("sure")) {
    pressed.classList.add("sure");
    pressed.textContent = "really?";
    pressed.addEventListener("blur", list);
    return;
  }
  conversation.deleted = true;
  page.store.remove(conversation);
  if (conversation === page.conversation) open(page.store.list()[0] ?? newConversation());
  else list();
}

// Another tab has written: show what it wrote.
function onStorage({key}) {
  const found = page.store.list().find(other => other.id === page.conversation.id);
  if (key === PREFIX + page.conversation.id && found && !page.running) open(found);
  else list();
}

// ---- the rest ----

// On a phone the side bar is folded away.
function fold(open = !document.body.classList.contains("unfolded")) {
  document.body.classList.toggle("unfolded", open);
  element("fold").setAttribute("aria-expanded", open);
}

// Every slider shows its value; the mode shows its own fields; answers show their words or their tokens.
function refresh() {
  for (const slider of document.querySelectorAll("input[type=range]"))
    slider.parentElement.querySelector("output").textContent = slider.value;
  const settings = settingsNow();
  document.body.classList.toggle("text", settings.mode === "text");
  document.body.classList.toggle("coloured", Boolean(settings.colour));
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
  element("new").addEventListener("click", () => {
    fold(false);
    open(newConversation());
    element("prompt").focus();
  });
  element("fold").addEventListener("click", () => fold());
  element("settings").addEventListener("input", refresh);
  element("settings").addEventListener("submit", event => event.preventDefault());
  element("settings").elements.key.addEventListener("change", connect);
  window.addEventListener("storage", onStorage);
  refresh();
  page.store = new Conversations(storageOf(window, "localStorage"));
  const all = page.store.list(), current = storageOf(window, "sessionStorage").getItem("minillm.current");
  open(all.find(conversation => conversation.id === current) ?? all[0] ?? newConversation());
  connect().catch(() => { element("model").textContent = "the server does not answer"; });
}

if (typeof document !== "undefined") begin();
else module.exports = {splitEvents, requestBody, readChunk, bytesOf, Pieces, hue, percent, describe, summary};
