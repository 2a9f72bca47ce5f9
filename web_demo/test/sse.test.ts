import { describe, expect, it } from "vitest";
import { serverSentEvents } from "../src/sse";

async function read(...parts: string[]): Promise<string[]> {
  const bytes = parts.map((part) => new TextEncoder().encode(part));
  const body = new ReadableStream({
    start(controller) {
      for (const part of bytes) controller.enqueue(part);
      controller.close();
    },
  });
  const found: string[] = [];
  for await (const data of serverSentEvents(new Response(body))) found.push(data);
  return found;
}

describe("server-sent events", () => {
  it("are whole however they are cut", async () => {
    expect(await read("data: on", "e\n", "\nid: 4\ndata: two\n\n: comment\n\nda", "ta: three\n\n")).toEqual([
      "one",
      "two",
      "three",
    ]);
  });

  it("may have lines and other line ends", async () => {
    expect(await read("data: a\r\ndata: b\r\n\r\n")).toEqual(["a\nb"]);
  });

  it("one that is not ended is none", async () => expect(await read("data: half")).toEqual([]));
});
