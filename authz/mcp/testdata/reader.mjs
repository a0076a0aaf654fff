// Prints, for each length-prefixed message on standard input, how Node reads it.
//
// One line per message: "error", or the RFC 8785 text of
// [method, name, uri, taskId, arguments, id], a tab, and that of the message.
// With "uris" behind it, what comes are URIs, and a line is the JSON text of what
// new URL makes of one, as the TypeScript SDK reads it; null: no URL.
import { readFileSync, writeSync } from "node:fs";

function canonical(v) {
  if (Array.isArray(v)) return "[" + v.map(canonical).join(",") + "]";
  if (v === null || typeof v !== "object") return JSON.stringify(v ?? null);
  const names = Object.keys(v).sort(); // by UTF-16 code units, as RFC 8785 has it
  return "{" + names.map((name) => JSON.stringify(name) + ":" + canonical(v[name])).join(",") + "}";
}

function read(data) {
  try {
    const message = JSON.parse(data.toString("utf8"));
    const params = message.params ?? {};
    const picked = [message.method, params.name, params.uri, params.taskId, params.arguments ?? {}, message.id];
    return canonical(picked) + "\t" + canonical(message);
  } catch {
    return "error";
  }
}

function readURI(data) {
  try {
    return JSON.stringify(new URL(data.toString("utf8")).href);
  } catch {
    return "null";
  }
}

const reader = process.argv[2] === "uris" ? readURI : read;
const source = readFileSync(0);
const lines = [];
for (let at = 0; at < source.length; ) {
  const size = source.readUInt32BE(at);
  lines.push(reader(source.subarray(at + 4, at + 4 + size)));
  at += 4 + size;
}
const out = Buffer.from(lines.map((line) => line + "\n").join(""));
for (let at = 0; at < out.length; ) {
  try {
    at += writeSync(1, out, at);
  } catch (err) {
    if (err.code !== "EAGAIN") throw err; // the pipe is full
  }
}
