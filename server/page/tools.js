// Demo tools, answered by this page; the weather is made up, and is said to be.

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
  get_time: ({ city }) => timeIn(String(city)),
  add: ({ a, b }) => ({ sum: Number(a) + Number(b) }),
};

// The browser knows one zone for each of some hundred cities; for others there is no answer.
function timeIn(city) {
  const name = city.split(",")[0].trim().toLowerCase().replace(/\s+/g, "_");
  const zone = Intl.supportedValuesOf("timeZone").find((zone) => zone.toLowerCase().split("/").at(-1) === name);
  if (!zone) return { error: `the time zone of ${city} is not known` };
  return { time: new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour: "2-digit", minute: "2-digit" }).format(), zone };
}

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
