// Code to copy: the same request by other means. A key is never written into it.

import { ROOT, hasKey } from "./api.js";
import { byId, inARow, make, roving } from "./dom.js";

const quoted = (text) => JSON.stringify(text);
// what stands between single quotes means nothing to a shell, but for the quote itself
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl({ url, model, text, keyed }) {
  return [
    `curl ${shell(`${url}v1/embeddings`)} \\`,
    "  -H 'Content-Type: application/json' \\",
    ...(keyed ? ['  -H "Authorization: Bearer $EMBELLAMA_API_KEY" \\'] : []),
    `  -d ${shell(JSON.stringify({ model, input: text }))}`,
  ].join("\n");
}

function python({ url, model, text, keyed }) {
  return [
    ...(keyed ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    "client = OpenAI(",
    `    base_url=${quoted(`${url}v1`)},`,
    keyed ? '    api_key=os.environ["EMBELLAMA_API_KEY"],' : '    api_key="none",',
    ")",
    "reply = client.embeddings.create(",
    `    model=${quoted(model)},`,
    `    input=${quoted(text)},`,
    ")",
    "print(reply.data[0].embedding[:8])",
  ].join("\n");
}

function openaiJs({ url, model, text, keyed }) {
  return [
    'import OpenAI from "openai";',
    "",
    "const client = new OpenAI({",
    `  baseURL: ${quoted(`${url}v1`)},`,
    keyed ? "  apiKey: process.env.EMBELLAMA_API_KEY," : '  apiKey: "none",',
    "});",
    "const reply = await client.embeddings.create({",
    `  model: ${quoted(model)},`,
    `  input: ${quoted(text)},`,
    "});",
    "console.log(reply.data[0].embedding.slice(0, 8));",
  ].join("\n");
}

function fetchJs({ url, model, text, keyed }) {
  return [
    `const reply = await fetch(${quoted(`${url}v1/embeddings`)}, {`,
    '  method: "POST",',
    "  headers: {",
    '    "Content-Type": "application/json",',
    ...(keyed ? ["    Authorization: `Bearer ${process.env.EMBELLAMA_API_KEY}`,"] : []),
    "  },",
    "  body: JSON.stringify({",
    `    model: ${quoted(model)},`,
    `    input: ${quoted(text)},`,
    "  }),",
    "});",
    "console.log((await reply.json()).data[0].embedding.slice(0, 8));",
  ].join("\n");
}

const KINDS = [
  ["curl", "curl", curl],
  ["python", "Python", python],
  ["openai", "JS openai", openaiJs],
  ["fetch", "JS fetch", fetchJs],
];

let current = KINDS[0][0];
let facts = { model: "", text: "" };

/** Write the snippets for a model and a text. */
export function showSnippets(model, text) {
  facts = { model, text };
  write();
}

function write() {
  const [id, , render] = KINDS.find(([each]) => each === current);
  byId("snippet-code").textContent = render({ url: ROOT.href, keyed: hasKey(), ...facts });
  byId("snippet").setAttribute("aria-labelledby", `tab-${id}`);
  byId("copied").textContent = "";
  for (const tab of byId("tabs").children) {
    tab.setAttribute("aria-selected", String(tab.id === `tab-${id}`));
  }
}

async function copy() {
  const text = byId("snippet-code").textContent;
  let isCopied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    isCopied = copyOldWay(); // no clipboard where the page came over plain HTTP from elsewhere
  }
  byId("copied").textContent = isCopied ? "Copied." : "Selected: press Ctrl C to copy it.";
}

function copyOldWay() {
  getSelection().selectAllChildren(byId("snippet-code"));
  return document.execCommand("copy");
}

export function watchSnippets() {
  byId("tabs").append(...KINDS.map(([id, title], index) => make("button", {
    type: "button", role: "tab", id: `tab-${id}`, "aria-controls": "snippet",
    tabindex: index ? -1 : 0,
  }, title)));
  roving(byId("tabs"), "[role=tab]", inARow);
  byId("tabs").addEventListener("focusin", (event) => choose(event.target));
  byId("tabs").addEventListener("click", (event) => choose(event.target));
  byId("copy").addEventListener("click", copy);
}

function choose(target) {
  const tab = target.closest("[role=tab]");
  if (!tab) return;
  current = tab.id.replace("tab-", "");
  write();
}
