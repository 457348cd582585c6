"use strict";
// An answer's Markdown as elements of the page. markdown-it parses it; what it finds becomes elements of the kinds below,
// made one by one, so that no text of a model is ever read as HTML: it can bring no script, no style, no picture.

const ELEMENTS = new Set("p h1 h2 h3 h4 h5 h6 ul ol li blockquote em strong s a table thead tbody tr th td".split(" "));
const parser = (typeof require === "undefined" ? markdownit : require("./vendor/markdown-it.js"))(
  {html: false, linkify: true, breaks: true});

// Put the Markdown `text` into an element, in place of what it held.
function showMarkdown(parent, text) {
  parent.replaceChildren();
  append(parser.parse(text, {}), parent);
}

function append(tokens, parent) {
  const open = [parent];
  for (const token of tokens) {
    const into = open.at(-1);
    if (token.type === "inline") append(token.children, into);
    else if (token.nesting < 0) open.pop();
    else if (token.nesting === 0) into.append(leaf(token));
    else open.push(token.hidden || !ELEMENTS.has(token.tag) ? into : container(token, into));    // hidden: p in a tight list
  }
}

function container(token, into) {
  const made = document.createElement(token.tag);
  if (token.tag === "a") linkTo(made, token.attrGet("href"));
  if (token.tag === "ol" && token.attrGet("start")) made.start = Number(token.attrGet("start"));
  const aligned = /^text-align:(\w+)$/.exec(token.attrGet("style") ?? "");
  if (aligned) made.style.textAlign = aligned[1];
  if (token.tag === "table") into = into.appendChild(box("div", "wide"));
  return into.appendChild(made);
}

// Links to the web and to a mailbox alone; they open elsewhere and tell nothing of this page.
function linkTo(made, address) {
  if (!/^(https?|mailto):/i.test(address)) return;
  Object.assign(made, {href: address, title: address, target: "_blank", rel: "noopener noreferrer nofollow"});
}

function leaf(token) {
  if (token.type === "fence" || token.type === "code_block") {
    const code = box("code", "", token.content), made = box("pre", "");
    made.append(code);
    return made;
  }
  if (token.type === "code_inline") return box("code", "", token.content);
  if (token.type === "softbreak" || token.type === "hardbreak") return document.createElement("br");
  if (token.type === "hr") return document.createElement("hr");
  if (token.type === "image") {                 // nothing is loaded from elsewhere: a link that the user may follow
    const made = box("a", "", token.content || "picture");
    linkTo(made, token.attrGet("src"));
    return made;
  }
  return document.createTextNode(token.content);
}

function box(tag, className, text = "") {
  return Object.assign(document.createElement(tag), {className, textContent: text});
}

if (typeof module !== "undefined") module.exports = {showMarkdown};
