/** Server-sent events of an answer to fetch, which EventSource cannot read. */

/** The data of each event. */
export async function* serverSentEvents(answer: Response): AsyncGenerator<string> {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).replace(/\r\n?/g, "\n").split("\n\n");
      rest = events.pop() ?? "";
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data:"));
        if (data.length) yield data.map((line) => line.slice("data:".length).replace(/^ /, "")).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
