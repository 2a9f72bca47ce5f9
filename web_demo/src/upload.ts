/** A sound file, transcribed while the page shows it (POST /v1/audio/transcriptions with stream=true). */

import { address, request } from "./config";
import { PageError, sentence } from "./errors";
import { serverSentEvents } from "./sse";

type Event =
  | { type: "transcript.text.delta"; delta: string }
  | { type: "transcript.text.done"; text: string }
  | { type?: never; error?: { message?: string }; detail?: string };

/** Each part of the text as it comes. Throws PageError, or the signal's reason. */
export async function* transcribe(file: File, signal: AbortSignal): AsyncGenerator<string> {
  const answer = await post(file, { stream: "true" }, signal);
  for await (const data of serverSentEvents(answer)) {
    const event = JSON.parse(data) as Event;
    if (event.type === "transcript.text.delta") yield event.delta.trim();
    else if (event.type === "transcript.text.done") return;
    else if (!event.type)
      throw new PageError(
        "refused",
        `The file was not heard to its end: ${sentence(event.error?.message ?? event.detail ?? "")}`,
      );
  }
  throw new PageError("refused", "The gateway went away before the end of the file: choose the file again.");
}

/** The whole file in a format with times; the gateway cuts its cues. */
export async function formatted(file: File, format: "vtt" | "srt"): Promise<string> {
  return (await post(file, { response_format: format })).text();
}

function post(file: File, fields: Record<string, string>, signal?: AbortSignal): Promise<Response> {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.set(name, value);
  // Last: what is wanted is known before the file has come.
  body.set("file", file);
  return request(
    address("v1/audio/transcriptions"),
    { method: "POST", body, signal: signal ?? null },
    Infinity,
  );
}
