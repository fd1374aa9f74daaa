// What the official `openai` package of npm makes of a server; the results are read by a test.
import OpenAI from "openai";

const [baseURL, keyed] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const text = "The cat sat on the mat.";

async function told(call) {
  try {
    await call;
    return null;
  } catch (error) {
    const { status, code, param, type, message, requestID } = error;
    const name = error.constructor.name;
    return { name, status, code, param, type, message, requestID };
  }
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);
const embed = (options) => client.embeddings.create({ model: "minilm", ...options });

const results = {
  models,
  model: await client.models.retrieve("minilm"),
  one: await embed({ input: text }),
  float: await embed({ input: text, encoding_format: "float" }),
  base64: await embed({ input: text, encoding_format: "base64" }),
  many: await embed({ input: [text, "b", text], user: "somebody" }),
  short: await embed({ input: text, dimensions: 64, embellama: { force_dimensions: true } }),
  empty: await told(embed({ input: ["a", ""] })),
  unknown: await told(embed({ input: "a", model: "gpt-4" })),
  ids: await told(embed({ input: [1, 2, 3] })),
  wrongKey: await told(new OpenAI({ baseURL: keyed, apiKey: "another-key" }).models.list()),
};
console.log(JSON.stringify(results));
