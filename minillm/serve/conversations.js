"use strict";
// Conversations outlive a reload and the browser. Each has a key of its own in the browser's storage, so that two tabs
// with different ones do not overwrite each other's.

const PREFIX = "minillm.conversation.";
const TITLE = 60;                   // characters

// turns: [{role, content}]; skipped: how many of the oldest are not sent any more, since the context is full.
function newConversation() {
  return {id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, title: "", turns: [], skipped: 0, changed: Date.now()};
}

// What the list calls it: the name it was given, else the beginning of what was asked first.
function titleOf(conversation) {
  const asked = conversation.turns.find(turn => turn.role === "user")?.content ?? "";
  const words = asked.trim().replace(/\s+/g, " ");
  return conversation.title || (words.length > TITLE ? words.slice(0, TITLE - 1) + "…" : words) || "New conversation";
}

// What storage holds under a key, or null: another program may have written there.
function parsed(text) {
  try {
    const {id, title, turns, skipped, changed} = JSON.parse(text);
    const whole = turns.every(turn => ["user", "assistant"].includes(turn.role) && typeof turn.content === "string");
    const typed = typeof id === "string" && typeof title === "string" && Number.isInteger(skipped) && Number.isFinite(changed);
    return whole && typed ? {id, title, turns, skipped, changed} : null;
  } catch {
    return null;
  }
}

class Conversations {
  constructor(storage) {
    this.storage = storage;
  }
  // All of them, the last changed first.
  list() {
    const keys = Array.from({length: this.storage.length}, (_, i) => this.storage.key(i));
    const found = keys.filter(key => key.startsWith(PREFIX)).map(key => parsed(this.storage.getItem(key)));
    return found.filter(Boolean).sort((a, b) => b.changed - a.changed);
  }
  // Whether there was room for it.
  save(conversation) {
    try {
      this.storage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
      return true;
    } catch {
      return false;
    }
  }
  remove(conversation) {
    this.storage.removeItem(PREFIX + conversation.id);
  }
}

// A browser that keeps nothing (its user forbade it) gets a storage that lasts as long as the page.
function storageOf(window, name) {
  try {
    return window[name];
  } catch {
    const kept = new Map();
    return {get length() { return kept.size; }, key: i => [...kept.keys()][i], getItem: key => kept.get(key) ?? null,
            setItem: (key, value) => kept.set(key, value), removeItem: key => kept.delete(key)};
  }
}

if (typeof module !== "undefined") module.exports = {newConversation, titleOf, parsed, Conversations, storageOf, PREFIX};
