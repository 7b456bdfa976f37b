// The official JavaScript library: what its documentation shows.
import assert from "node:assert/strict";
import OpenAI from "openai";

const SERVERS = JSON.parse(process.env.LEADLINE_SERVERS);
const MODEL = "demo";
const QUESTION = "What does itertools.chain do?";
const messages = [{ role: "user", content: QUESTION }];
const schema = {
  type: "object",
  properties: { city: { enum: ["Rome", "Oslo"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
  required: ["city", "days"],
  additionalProperties: false,
};
const tool = { type: "function", function: { name: "get_weather", parameters: schema, strict: true } };

function connect(server = "model") {
  return new OpenAI({ baseURL: `${SERVERS[server]}/v1`, apiKey: "none", maxRetries: 0 });
}
const client = connect();

export async function models() {
  const ids = [];
  for await (const model of await client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, [MODEL]);
}

export async function chat() {
  const answer = await client.chat.completions.create({ model: MODEL, messages, n: 2, max_tokens: 40 });
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
  for (const choice of answer.choices) assert.ok(choice.message.content);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.ok(answer._request_id);
}

export async function chat_stream() {
  const fields = { model: MODEL, messages, seed: 3, max_tokens: 40 };
  const whole = await client.chat.completions.create(fields);
  const stream = await client.chat.completions.create({
    ...fields,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
}

export async function chat_stream_helper() {
  const stream = client.chat.completions.stream({ model: MODEL, messages, max_tokens: 40 });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(text, final.choices[0].message.content);
  assert.equal(final.choices[0].message.role, "assistant");
}

export async function chat_parse() {
  const answer = await client.chat.completions.parse({
    model: MODEL,
    messages,
    max_tokens: 100,
    response_format: { type: "json_schema", json_schema: { name: "weather", strict: true, schema } },
  });
  assert.ok(["Rome", "Oslo"].includes(answer.choices[0].message.parsed.city));
}

export async function chat_tools() {
  const stream = client.chat.completions.stream({
    model: MODEL,
    messages,
    tools: [tool],
    tool_choice: "required",
    parallel_tool_calls: false,
    max_tokens: 200,
  });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].finish_reason, "tool_calls");
  const [call] = final.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.ok(JSON.parse(call.function.arguments).days >= 1);
}

export async function run_tools() {
  const asked = [];
  const runner = connect("agent").chat.completions.runTools({
    model: MODEL,
    messages: [{ role: "user", content: "What is the weather in Rome?" }],
    tools: [
      {
        type: "function",
        function: {
          name: "get_weather",
          parameters: { type: "object", properties: { city: { type: "string" } } },
          parse: JSON.parse,
          function: ({ city }) => {
            asked.push(city);
            return "21 degrees";
          },
        },
      },
    ],
  });
  assert.equal(await runner.finalContent(), "It is 21 degrees in Rome.");
  assert.deepEqual(asked, ["Rome"]);
}

export async function completions() {
  const answer = await client.completions.create({
    model: MODEL,
    prompt: "def f(",
    max_tokens: 3,
    echo: true,
    logprobs: 2,
  });
  assert.ok(answer.choices[0].text.startsWith("def f("));
  assert.equal(answer.choices[0].logprobs.token_logprobs[0], null);
}

export async function responses() {
  const answer = await client.responses.create({ model: MODEL, input: QUESTION, max_output_tokens: 60 });
  assert.ok(answer.output_text);
  const stream = client.responses.stream({ model: MODEL, input: QUESTION, max_output_tokens: 60 });
  let text = "";
  stream.on("response.output_text.delta", (event) => (text += event.delta));
  const final = await stream.finalResponse();
  assert.equal(final.output_text, text);
  assert.ok(text);
}

export async function responses_parse() {
  const answer = await client.responses.parse({
    model: MODEL,
    input: QUESTION,
    max_output_tokens: 100,
    text: { format: { type: "json_schema", name: "weather", strict: true, schema } },
  });
  assert.ok(["Rome", "Oslo"].includes(answer.output_parsed.city));
}

export async function refusals() {
  await assert.rejects(client.chat.completions.create({ model: "nobody", messages }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    return error.param === "model";
  });
  await assert.rejects(client.chat.completions.create({ model: MODEL, messages, temperature: 3 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    return error.param === "temperature";
  });
  await assert.rejects(
    connect("busy").chat.completions.create({ model: MODEL, messages }),
    OpenAI.RateLimitError,
  );
}

export async function failure_within_a_stream() {
  const stream = await connect("failing").chat.completions.create({ model: MODEL, messages, stream: true });
  let text = "";
  await assert.rejects(async () => {
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
  }, /not finite/);
  assert.equal(text, '{"days": 1');
}

export async function failure_within_a_response() {
  const events = [];
  const stream = await connect("failing").responses.create({ model: MODEL, input: "Hi", stream: true });
  await assert.rejects(async () => {
    for await (const event of stream) events.push(event);
  }, /not finite/);
  assert.equal(events.at(-1).type, "response.failed");
}

await {
  ...{ models, chat, chat_stream, chat_stream_helper, chat_parse, chat_tools, run_tools, completions },
  ...{ responses, responses_parse, refusals, failure_within_a_stream, failure_within_a_response },
}[process.argv[2]]();
