import { describe, expect, it } from "vitest";
import { captionOf } from "../src/textstream";

const WORDS = [
  { text: "good", start: 12.0, end: 12.3, confidence: 0.9 },
  { text: "day", start: 12.4, end: 12.8, confidence: 0.8 },
];

describe("captions of a LiveKit room", () => {
  it("an interim", () => {
    const found = captionOf(
      { "lk.segment_id": "SG_1", "lk.transcription_final": "false", "nemostream.delay_ms": "200" },
      "good",
      "anna-1",
      "Anna",
      2000,
    );
    expect(found).toMatchObject({
      type: "interim",
      segment: "SG_1",
      speaker: "anna-1",
      name: "Anna",
      at: 1999.8,
    });
    expect(found.delay_ms).toBe(200);
  });

  it("a final began its length and its delay ago", () => {
    const found = captionOf(
      {
        "lk.segment_id": "SG_1",
        "lk.transcription_final": "true",
        "nemostream.delay_ms": "700",
        "nemostream.words": JSON.stringify(WORDS),
      },
      "good day",
      "anna-1",
      "Anna",
      2000,
    );
    expect(found).toMatchObject({ type: "final", start: 12, end: 12.8, words: WORDS });
    expect(found.at).toBeCloseTo(2000 - 0.7 - 0.8, 6);
  });

  it("those of other agents bear no delay and no words", () => {
    const found = captionOf({ "lk.segment_id": "S", "lk.transcription_final": "true" }, "hi", "a", "A", 2000);
    expect(found).toMatchObject({ delay_ms: null, words: [], at: 2000 });
  });
});
