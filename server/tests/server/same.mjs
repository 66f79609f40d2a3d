// node same.mjs A.jsonl B.jsonl: whether two files hold the same JSON values, line for line.
//
// Stricter than JSON.parse: 1 and 1.0 differ, -0.0 is kept, integers are exact at any size, fields
// have an order and no duplicates. How a string is escaped or a number is written makes no
// difference. Ends with 1 and names the first line that differs.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;

/** The one spelling of the value in `text`: two texts are the same value if these are equal. */
export function canonical(text) {
  let at = 0;
  const fail = (what) => {
    throw new Error(`${what} at character ${at + 1}`);
  };
  const space = () => {
    while (at < text.length && " \t\r\n".includes(text[at])) at++;
  };
  const eat = (token) => {
    if (!text.startsWith(token, at)) fail(`expected ${token}`);
    at += token.length;
  };

  const string = () => {
    eat('"');
    let value = "";
    for (;;) {
      const c = text[at++];
      if (c === undefined || c < " ") fail("a string that does not end");
      if (c === '"') break;
      if (c !== "\\") {
        value += c;
        continue;
      }
      const escape = text[at++];
      if (escape === "u") {
        const hex = text.slice(at, at + 4);
        if (!/^[0-9a-fA-F]{4}$/.test(hex)) fail("a bad \\u escape");
        value += String.fromCharCode(parseInt(hex, 16));
        at += 4;
      } else {
        value += ESCAPES[escape] ?? fail("a bad escape");
      }
    }
    if (/\p{Surrogate}/u.test(value)) fail("a lone surrogate before");
    return JSON.stringify(value);
  };

  const number = () => {
    NUMBER.lastIndex = at;
    const found = NUMBER.exec(text);
    if (!found) fail("not a JSON value");
    at += found[0].length;
    if (found[1] === undefined && found[2] === undefined) return `int ${BigInt(found[0])}`;
    const value = Number(found[0]);
    if (!Number.isFinite(value)) fail("a number beyond 64-bit floats before");
    return `float ${Object.is(value, -0) ? "-0" : value}`;
  };

  const group = (open, close, item) => {
    const items = [];
    eat(open);
    space();
    while (items.length > 0 || text[at] !== close) {
      items.push(item());
      space();
      if (text[at] === close) break;
      eat(",");
    }
    eat(close);
    return open + items.join(",") + close;
  };

  const map = () => {
    const names = new Set();
    return group("{", "}", () => {
      space();
      const name = string();
      if (names.has(name)) fail(`a second field ${name}`);
      names.add(name);
      space();
      eat(":");
      return `${name}:${value()}`;
    });
  };

  const value = () => {
    space();
    if (text[at] === "{") return map();
    if (text[at] === "[") return group("[", "]", value);
    if (text[at] === '"') return string();
    for (const word of ["true", "false", "null"]) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return word;
      }
    }
    return number();
  };

  const result = value();
  space();
  if (at < text.length) fail("more after the value");
  return result;
}

function lines(path) {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const all = decoder.decode(readFileSync(path)).split("\n");
  if (all.at(-1) === "") all.pop();
  return all;
}

function cut(line) {
  if (line === undefined) return "(no such line)";
  return line.length > 300 ? `${line.slice(0, 300)}...` : line;
}

/** What the first difference is, or undefined. */
export function difference(pathA, pathB) {
  const [a, b] = [lines(pathA), lines(pathB)];
  const read = (path, line, n) => {
    try {
      return line === undefined ? undefined : canonical(line);
    } catch (error) {
      throw new Error(`${path}:${n}: ${error.message}: ${cut(line)}`);
    }
  };
  for (let n = 0; n < Math.max(a.length, b.length); n++) {
    if (read(pathA, a[n], n + 1) !== read(pathB, b[n], n + 1)) {
      return `line ${n + 1} differs:\n${pathA}: ${cut(a[n])}\n${pathB}: ${cut(b[n])}`;
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [a, b] = process.argv.slice(2);
  if (!b) {
    console.error("usage: node same.mjs A.jsonl B.jsonl");
    process.exit(2);
  }
  try {
    const found = difference(a, b);
    if (found) console.error(found);
    process.exitCode = found ? 1 : 0;
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
