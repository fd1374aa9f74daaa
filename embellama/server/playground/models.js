// The choice of a model, with what there is to know about it.

import { ask } from "./api.js";
import { byId, counted, grouped, make, say } from "./dom.js";

const WORDS = {
  loaded: "ready",
  loading: "is being loaded",
  unloaded: "loaded when first used",
  failed: "could not be loaded",
};

let models = [];

export const named = (id) => models.find((model) => model.id === id);

export const chosen = () => named(byId("model").value);

/** Fetch the list of models; what was chosen stays chosen. */
export async function refreshModels() {
  try {
    models = (await ask("v1/models")).data;
  } catch (error) {
    // the panel that asks for the key says the rest
    const lacking = error.status === 401 ? "The list of models needs a key." : error.message;
    say(byId("model-error"), lacking);
    return;
  }
  const select = byId("model");
  const before = select.value;
  select.replaceChildren(...models.map(option));
  const kept = models.find((model) => model.id === before) ?? models.find(embeds);
  if (kept) select.value = kept.id;
  const none = "No model is served yet. An administrator can load one.";
  say(byId("model-error"), models.length ? "" : none);
  showFacts();
}

const embeds = (model) => model.pooling_type !== "rank" && model.pooling_type !== "none";

function option(model) {
  const why = embeds(model) ? WORDS[model.state] ?? model.state : "makes no vectors";
  const made = make("option", { value: model.id }, `${model.id} (${why})`);
  made.disabled = !embeds(model);
  return made;
}

/** Say under the list what the chosen model is. */
export function showFacts() {
  const model = chosen();
  const facts = [];
  if (model?.file_type) facts.push(model.file_type);
  if (model?.size_bytes) facts.push(`${grouped(model.size_bytes / 2 ** 20)} MiB`);
  if (model?.n_embd) facts.push(`${grouped(model.n_embd)} dimensions`);
  if (model?.n_ctx) facts.push(`${counted(model.n_ctx, "token")} at most`);
  if (model && !facts.length) facts.push(WORDS[model.state] ?? model.state);
  const prompts = Object.keys(model?.prompts ?? {});
  if (prompts.length) facts.push(`prompts: ${prompts.join(", ")}`);
  byId("model-facts").replaceChildren(
    make("span", { class: `state ${model?.state ?? ""}`, "aria-hidden": "true" }),
    facts.join(" · "),
  );
}
