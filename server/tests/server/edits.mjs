// node edits.mjs SEED OUT_EDITS.jsonl OUT_EXPECTED.jsonl [KEYS]
//
// Writes a random but legal list of edits, and what they must leave behind. The expectation comes
// from the few lines of `apply` below, which share nothing with the product. Same seed, same files.
//
// A value here is its own JSON text, so that 1 and 1.0, -0.0 and all 64 bits of an integer survive.
// A record is a Map from field name to such a text; its order is the order of the fields.

import { openSync, writeSync, closeSync } from "node:fs";

const [seed, editsPath, expectedPath, keysText = "400"] = process.argv.slice(2);
if (!expectedPath || !/^[0-9]+$/.test(seed) || !/^[0-9]+$/.test(keysText)) {
  console.error("usage: node edits.mjs SEED OUT_EDITS.jsonl OUT_EXPECTED.jsonl [KEYS]");
  process.exit(2);
}

// ---- Chance ------------------------------------------------------------------------------------

/** splitmix64: every draw depends on the seed alone. */
let state = BigInt(seed);
function draw64() {
  state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
  let z = state;
  z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return z ^ (z >> 31n);
}
const below = (n) => Number(draw64() % BigInt(n));
const between = (low, high) => low + below(high - low + 1);
const pick = (list) => list[below(list.length)];
const chance = (percent) => below(100) < percent;
const times = (n, make) => Array.from({ length: n }, (_, i) => make(i));

// ---- Values ------------------------------------------------------------------------------------

const PIECES = [
  "a", "word", "Zürich", "naïve", "日本語", "Ελλάδα", "עברית", "مرحبا", "ไทย", "e\u0301", "\u00e9",
  "😀", "👩‍👩‍👧", "🇨🇭", "\u{10ffff}", "\ufeff", "\u2028", "\u202e", " ", "/", "\\", '"', "'", "$",
  "{}", "%20", "\n", "\t", "\r\n", "\b", "\f", "\u0000", "\u0001", "\u001f", "\u007f", "\uffff",
];
const KEY_PIECES = ["a", "b", "Z", "0", "-", "_", ".", "/", " ", "ä", "ß", "中", "😀", "\uffff"];
const FIELDS = [
  "title", "done", "n", "tags", "größe", "名前", "with space", "a.b", "a/b", '"quoted"', "😀",
  "back\\slash", "line\nbreak", "10", "2",
];
const TABLES = ["notes", "todo-items", "T.1", "x_2"];
const I64_MAX = 2n ** 63n - 1n;
const INTEGERS = [
  0n, 1n, -1n, 250n, 251n, 65535n, 65536n, 2n ** 32n, 2n ** 53n, 2n ** 53n + 1n, -(2n ** 53n) - 1n,
  I64_MAX, I64_MAX - 1n, -I64_MAX, -I64_MAX - 1n,
];
const FLOATS = [
  "1.5", "-0.0", "0.0", "1e300", "-1e300", "5e-324", "0.1", "1.0", "-1.0", "0.30000000000000004",
  "1.7976931348623157e308", "2.2250738585072014e-308", "9007199254740993.0", "1e15", "1e16", "3.0e0",
];

const text = (most) => times(below(most + 1), () => pick(PIECES)).join("");

/** JSON text of a string, escaped in one of the ways that JSON allows. */
function quoted(value) {
  const json = JSON.stringify(value);
  if (!chance(20)) return json;
  const escape = (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return json.replace(/[^\x00-\x7f]/g, escape);
}

function float() {
  if (chance(50)) return pick(FLOATS);
  const bits = new DataView(new ArrayBuffer(8));
  bits.setBigUint64(0, draw64());
  const number = bits.getFloat64(0);
  if (!Number.isFinite(number)) return "1.25";
  return /[.e]/.test(String(number)) ? String(number) : `${number}.0`;
}

function integer() {
  if (chance(40)) return String(pick(INTEGERS));
  return String(BigInt.asIntN(64, draw64()) >> BigInt(below(64)));
}

function value(depth = 0) {
  const kind = below(depth < 4 ? 9 : 6);
  if (kind === 0) return "null";
  if (kind === 1) return pick(["true", "false"]);
  if (kind === 2) return integer();
  if (kind === 3) return float();
  if (kind === 4) return quoted(text(8));
  if (kind === 5) return '""';
  if (kind === 6) return `[${times(below(4), () => value(depth + 1)).join(",")}]`;
  return object(new Map(names(4).map((name) => [name, value(depth + 1)])));
}

const names = (most) => [...new Set(times(below(most + 1), () => pick(FIELDS)))];
const object = (fields) =>
  `{${[...fields].map(([name, json]) => `${quoted(name)}:${json}`).join(",")}}`;

/** Close to the limit of 256 KiB for a record, with room for its name and the encoding. */
function big() {
  const sign = pick(["x", "ä", "中", "😀"]);
  const bytes = between(252, 255) * 1024;
  return JSON.stringify(sign.repeat(Math.floor(bytes / Buffer.byteLength(sign))));
}

function key(index) {
  const signs = times(chance(5) ? between(100, 300) : below(7), () => pick(KEY_PIECES));
  // The number keeps keys apart, at either end so that they do not sort as they were made.
  return chance(50) ? `${signs.join("")}#${index}` : `${index}#${signs.join("")}`;
}

// ---- Edits, and what they mean -----------------------------------------------------------------

/** A record is undefined before its first life, and keeps its value while it is deleted. */
function apply(record, edit) {
  switch (edit.op) {
    case "put":
      return { live: true, fields: edit.value };
    case "patch": {
      const fields = new Map(record.fields);
      // Map.set keeps the place of a name that is there and puts a new one at the end.
      for (const [name, json] of edit.set) fields.set(name, json);
      for (const name of edit.remove) fields.delete(name);
      return { live: true, fields };
    }
    case "delete":
      return { live: false, fields: record.fields };
    case "undelete":
      return { live: true, fields: record.fields };
  }
}

/** A next edit that is legal for `record`; a large one has a single field, near the limit. */
function next(record, large) {
  const full = () => {
    const fields = large ? [["body", big()]] : names(6).map((name) => [name, value()]);
    return { op: "put", value: new Map(fields) };
  };
  if (!record) return full();
  if (!record.live) return chance(60) ? { op: "undelete" } : full();
  const dice = below(100);
  if (dice < 25) return full();
  if (dice < 45) return { op: "delete" };
  if (large) return { op: "patch", set: new Map([["body", chance(50) ? big() : value()]]), remove: [] };
  const set = new Map(names(3).map((name) => [name, value()]));
  const remove = [...record.fields.keys()].filter((name) => !set.has(name) && chance(20));
  // A patch that changes nothing at all says nothing about the product: give it a field.
  if (set.size + remove.length === 0) set.set("title", value());
  return { op: "patch", set, remove };
}

function line(table, key, edit) {
  const parts = [`"op":"${edit.op}"`, `"table":${quoted(table)}`, `"key":${quoted(key)}`];
  if (edit.value) parts.push(`"value":${object(edit.value)}`);
  if (edit.set) parts.push(`"set":${object(edit.set)}`);
  if (edit.remove) parts.push(`"remove":[${edit.remove.map(quoted).join(",")}]`);
  return `{${parts.join(",")}}`;
}

function write(path, lines) {
  const file = openSync(path, "w");
  for (const text of lines) writeSync(file, `${text}\n`);
  closeSync(file);
}

const count = Number(keysText);
const records = times(count, (index) => ({
  table: pick(TABLES),
  key: key(index),
  left: between(1, 8),
  large: index < 4,
  state: undefined,
}));

// Edits of different keys interleave, those of one key keep their order.
const edits = [];
const open = [...records];
while (open.length > 0) {
  const place = below(open.length);
  const record = open[place];
  const edit = next(record.state, record.large);
  edits.push(line(record.table, record.key, edit));
  record.state = apply(record.state, edit);
  record.left -= 1;
  if (record.left === 0) open.splice(place, 1);
}

const bytes = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));
const live = records.filter((record) => record.state.live);
live.sort((a, b) => bytes(a.table, b.table) || bytes(a.key, b.key));
const expected = live.map(({ table, key, state }) => {
  return `{"table":${quoted(table)},"key":${quoted(key)},"value":${object(state.fields)}}`;
});

write(editsPath, edits);
write(expectedPath, expected);
console.log(`${edits.length} edits of ${count} keys, ${expected.length} records are left`);
