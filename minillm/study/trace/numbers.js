"use strict";
// Numbers: how they are printed, where they stand, what they are made of, and when an answer is right. Knows nothing
// of the page (tests run it alone).

// A number as Python prints it, and as the recording holds it: no digit is added or lost.
function exact(x, isFloat = true) {
  const text = Object.is(x, -0) ? "-0" : String(x);
  const small = text.match(/^(-?)0\.(0{4,})(\d)(\d*)$/);
  if (small) {
    const [, sign, zeros, first, rest] = small;
    return `${sign}${first}${rest && "."}${rest}e-${String(zeros.length + 1).padStart(2, "0")}`;
  }
  if (/e/.test(text)) return text.replace(/e([+-])(\d)$/, "e$10$2");
  return isFloat && /^-?\d+$/.test(text) ? text + ".0" : text;
}

// A number in about so many characters. It is cut, never rounded, and shows that it was.
function short(x, isFloat = true, room = 8) {
  let text = exact(x, isFloat);
  if (text.length <= room || !isFloat) return text;
  text = text.replace(/^(-?)0\.000(\d)(\d*)$/, "$1$2.$3e-04");
  const [digits, power] = text.split("e"), end = power === undefined ? "…" : "…e" + power;
  const least = power === undefined ? digits.indexOf(".") + 2 : digits.startsWith("-") ? 5 : 4;
  return digits.length <= least ? text : digits.slice(0, Math.max(least, room - end.length)) + end;
}

const isFloat = array => array.dtype.startsWith("float") || array.dtype.startsWith("bfloat");

const matrices = new WeakMap();

// An array seen as a matrix: its rows, its columns, and the number at a flat index (undefined: not recorded).
function matrixOf(array) {
  if (!matrices.has(array)) matrices.set(array, newMatrixOf(array));
  return matrices.get(array);
}

function newMatrixOf(array) {
  const width = array.shape.length ? array.shape.at(-1) : 1;
  const height = array.shape.slice(0, -1).reduce((a, b) => a * b, 1);
  const range = n => [...Array(n).keys()];
  if (array.whole) return {rows: range(height), cols: range(width), width, at: index => array.values[index]};
  const {rows, cols} = array, row = new Map(rows.map((r, i) => [r, i])), col = new Map(cols.map((c, i) => [c, i]));
  return {rows, cols, width,
          at: index => array.values[row.get(Math.floor(index / width)) * cols.length + col.get(index % width)]};
}

// The indices of a flat index: [0, 2, 5].
function indices(shape, flat) {
  const found = [];
  for (const size of [...shape].reverse()) {
    found.unshift(flat % size);
    flat = Math.floor(flat / size);
  }
  return found;
}

function nameAt(array, flat, byRow = false) {
  const {shape} = array;
  const place = byRow ? [...indices(shape.slice(0, -1), flat), ":"] : indices(shape, flat);
  return array.name + (place.length ? `[${place.join(", ")}]` : "");
}

// Which element of what was measured or explained a flat index is (index null: all were, in order); -1: none.
const positionIn = (found, index) => !found ? -1 : found.index ? found.index.indexOf(index) : index;
const sizeOf = array => array.shape.reduce((a, b) => a * b, 1);
const largestOf = ({stats}) => Math.max(Math.abs(stats.min), Math.abs(stats.max));

// What adds up to an element of a gradient: {byRow, terms: [{array, place, term}], count, rest}; null: not recorded.
// A term comes from an element, or from a row, of the gradients that came in; or was there before (a tied weight).
function termsOf(arrays, gradient, index) {
  const found = gradient.contributors, at = positionIn(found, index);
  if (at < 0) return null;
  const byRow = found.by === "position", flat = found.top[at], [count, rest] = found.rest[at], terms = [];
  for (let i = 0; i < flat.length; i += 2)
    terms.push({...sender(arrays, found, flat[i], byRow, index), term: flat[i + 1]});
  return {byRow, terms, count, rest};
}

// The array that a place counts into, and the place in it.
function sender(arrays, found, place, byRow, index) {
  if (place === -1) return {array: arrays[found.before], place: index, before: true};
  for (const array of found.arrays.map(id => arrays[id])) {
    const size = byRow ? sizeOf(array) / (array.shape.at(-1) || 1) : sizeOf(array);
    if (place < size) return {array, place};
    place -= size;
  }
  return {array: null, place};
}

// Is the element the sum of its terms, up to what float32 loses on the way?
function addUp({terms, rest}, element, largest) {
  const sum = terms.reduce((total, {term}) => total + term, rest);
  const size = terms.reduce((total, {term}) => total + Math.abs(term), Math.abs(rest));
  return Math.abs(sum - element) <= 1e-5 * size + 1e-6 * largest;
}

// The finite difference at an element: {value, bar, agrees}; null: none was made there. float32 loses about a
// millionth of the largest gradient: ten times that is added to the error bar.
function numericOf(gradient, index) {
  const at = positionIn(gradient.numeric, index), element = matrixOf(gradient).at(index);
  if (at < 0 || element === undefined) return null;
  const value = gradient.numeric.values[at], bar = gradient.numeric.bars[at];
  return {value, bar, agrees: Math.abs(element - value) <= bar + 1e-5 * largestOf(gradient)};
}

// The flat indices of the numbers of an array that were recorded, in their order.
function placesOf(array) {
  if (array.whole) return [...array.values.keys()];
  const width = array.shape.length ? array.shape.at(-1) : 1;
  return array.rows.flatMap(row => array.cols.map(col => row * width + col));
}

// What was typed into a blank, judged: {right, known}. Within one per cent is right; known: it is a number at all.
function judge(typed, expected) {
  const text = typed.trim().replace("−", "-").replace(",", ".");
  const value = text === "" ? NaN : Number(text);
  if (!Number.isFinite(value)) return {known: false, right: false};
  return {known: true, right: Math.abs(value - expected) <= 0.01 * Math.abs(expected)};
}

// A few places of so many, the same ones each time for a name: what the reader is to fill in.
function blanks(name, count, wanted) {
  let state = [...name].reduce((hash, letter) => (Math.imul(hash, 31) + letter.charCodeAt(0)) >>> 0, 7);
  const found = new Set();
  while (found.size < Math.min(wanted, count)) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    found.add(Math.floor(state / 2 ** 32 * count));
  }
  return found;
}

if (typeof document === "undefined")
  module.exports = {exact, short, matrixOf, indices, nameAt, termsOf, addUp, numericOf, judge, blanks,
                    placesOf, largestOf};
