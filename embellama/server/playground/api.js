// Asking the server. Whatever it refuses becomes a `Refusal` with words for people.

/** Where the server is, also behind a proxy that puts it below a path. */
export const ROOT = new URL(".", window.location.href);

const STORED_AS = "embellama.key";

let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(STORED_AS) ?? "";
  } catch {
    return ""; // a browser that forbids storage keeps it for this page alone
  }
}

export const hasKey = () => key !== "";

export function useKey(value) {
  key = value;
  try {
    sessionStorage.setItem(STORED_AS, value);
  } catch {
    // as above
  }
}

export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Ask for JSON; with a body, by POST. */
export async function ask(path, { body, signal } = {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const options = { headers, signal, cache: "no-store", credentials: "omit" };
  if (body !== undefined) {
    headers["content-type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let reply;
  try {
    reply = await fetch(new URL(path, ROOT), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Is it still running?", 0);
  }
  if (!reply.ok) throw await refusal(reply);
  return reply.json();
}

async function refusal(reply) {
  let said = "";
  try {
    said = (await reply.json()).error?.message ?? "";
  } catch {
    // something between here and the server answered in its own form
  }
  const after = reply.headers.get("retry-after");
  const hint = after ? ` It may be possible in ${after} s.` : "";
  const what = said ? sentence(said) : "The server gave no reason.";
  const error = new Refusal(`${what}${hint} (HTTP ${reply.status})`, reply.status);
  if (reply.status === 401) {
    document.dispatchEvent(new CustomEvent("key-wanted", { detail: sentence(said) }));
  }
  return error;
}

function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** Have a model loaded, of which nothing is known before: neither its prompts nor its limit. */
export function load(model) {
  const body = { model: model.id, input: ["a"], embellama: { prompt: "" } };
  return ask("v1/embeddings", { body });
}

/** Embed texts; gives their unit vectors and what became of each. */
export async function embed(model, texts, { kind, signal } = {}) {
  const extension = { overflow: "truncate", details: true };
  // a model without prompts needs no role
  if (Object.keys(model.prompts ?? {}).length) extension.kind = kind;
  const body = {
    model: model.id, input: texts, encoding_format: "base64", embellama: extension,
  };
  return ask("v1/embeddings", { body, signal });
}
