// The server's API: keys, errors in words, and streams that must end.

export const apiKey = {
  get: () => sessionStorage.getItem("leadline.key") ?? "",
  set: (key) => (key ? sessionStorage.setItem("leadline.key", key) : sessionStorage.removeItem("leadline.key")),
};

export class Failure extends Error {
  constructor(message, advice, status = 0) {
    super(message);
    this.advice = advice;
    this.status = status;
  }
}

const ADVICE = {
  401: "Enter the API key in the settings, then try again.",
  404: "Choose another model in the settings.",
  429: "Many requests wait already. Try again in a moment.",
  503: "The server is starting, stopping or has lost its engine. Try again in a moment.",
};

export async function request(path, options = {}) {
  const headers = { ...(options.body && { "content-type": "application/json" }) };
  if (apiKey.get()) headers.authorization = `Bearer ${apiKey.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, method: options.body ? "POST" : "GET", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached.", "Check that it runs, then try again.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const message = body.error?.message ?? `The server answered ${response.status}.`;
  throw new Failure(message, ADVICE[response.status] ?? "Change the request or the settings, then try again.", response.status);
}

// Yields the JSON of each event; fails unless the stream says that it is whole.
export async function* events(path, body, signal) {
  const response = await request(path, { body: JSON.stringify(body), signal });
  const reader = response.body.getReader(); // a pipe would lose what comes just before a cut
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += decoder.decode(value, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        if (!part.startsWith("data: ")) continue; // a comment keeps the connection alive
        const data = part.slice(6);
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Failure(event.error.message, "Try again.");
        yield event;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Failure) throw error;
    throw cut();
  }
  throw cut();
}

function cut() {
  return new Failure("The connection ended before the answer was whole.", "What came so far is kept. Try again.");
}
