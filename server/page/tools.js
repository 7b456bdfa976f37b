// Demo tools, answered by this page; weather and searches are made up, and say so.

function tool(name, description, parameters) {
  const properties = Object.fromEntries(Object.entries(parameters).map(([key, type]) => [key, { type }]));
  return { type: "function", function: { name, description, parameters: { type: "object", properties, required: Object.keys(parameters) } } };
}

export const TOOLS = [
  tool("get_weather", "Get the current weather in a city.", { city: "string" }),
  tool("get_time", "Get the current local time in a city.", { city: "string" }),
  tool("add", "Add two numbers.", { a: "number", b: "number" }),
];

const ANSWERS = {
  get_weather: ({ city }) => ({ sky: ["sunny", "cloudy", "rainy"][String(city).length % 3], degrees: 5 + (String(city).length * 7) % 25 }),
  get_time: () => ({ time: new Date().toTimeString().slice(0, 5) }),
  add: ({ a, b }) => ({ sum: Number(a) + Number(b) }),
};
export const MADE_UP = new Set(["get_weather"]);

export function answerCall(call) {
  const answer = ANSWERS[call.function.name];
  if (!answer) return { error: `there is no tool ${call.function.name}` };
  try {
    return answer(JSON.parse(call.function.arguments));
  } catch (error) {
    return { error: `the arguments are not JSON: ${error.message}` };
  }
}
