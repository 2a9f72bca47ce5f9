/** Captions of a LiveKit room as caption messages: text streams on `lk.transcription`, an attribute for each fact. */

import type { Said, Word } from "./messages";

/** `now`: Unix time in seconds. */
export function captionOf(
  attributes: Record<string, string>,
  text: string,
  identity: string,
  name: string,
  now: number,
): Said {
  const final = attributes["lk.transcription_final"] === "true";
  const delay = Number(attributes["nemostream.delay_ms"] ?? Number.NaN);
  const words = final ? (JSON.parse(attributes["nemostream.words"] ?? "[]") as Word[]) : [];
  const [start, end] = [words[0]?.start, words.at(-1)?.end];
  return {
    type: final ? "final" : "interim",
    speaker: identity,
    name,
    segment: attributes["lk.segment_id"] ?? crypto.randomUUID(),
    text,
    start,
    end,
    // The stream bears no wall clock: its last word ended `delay` ago.
    at: now - (Number.isNaN(delay) ? 0 : delay / 1000) - ((end ?? 0) - (start ?? 0)),
    delay_ms: Number.isNaN(delay) ? null : delay,
    words,
  };
}
