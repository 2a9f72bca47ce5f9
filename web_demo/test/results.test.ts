import { describe, expect, it } from "vitest";
import { ResultReader, type Results } from "../src/results";

function results(transcript: string, is_final: boolean, start = 1): Results {
  const words = transcript
    .split(" ")
    .filter(Boolean)
    .map((word, i) => ({
      word,
      punctuated_word: `${word},`,
      start: start + i,
      end: start + i + 0.5,
      confidence: 0.9,
    }));
  return {
    type: "Results",
    start: 0,
    duration: 2,
    is_final,
    channel: { alternatives: [{ transcript, words }] },
  };
}

const reader = () => new ResultReader("id", "", (seconds) => 1000 + seconds);

describe("results of /v1/listen", () => {
  it("a final has the segment of its interims, the next begins another", () => {
    const read = reader();
    const told = [results("good", false), results("good day", true), results("bye", false, 5)].map((one) =>
      read.read(one),
    );
    expect(told.map((one) => [one?.type, one?.segment])).toEqual([
      ["interim", "id-0"],
      ["final", "id-0"],
      ["interim", "id-1"],
    ]);
    expect(told[1]).toMatchObject({ start: 1, end: 2.5, at: 1001, text: "good day" });
    expect(told[1]?.words?.map((word) => word.text)).toEqual(["good,", "day,"]);
  });

  it("silence says nothing", () => {
    expect(reader().read(results("", true))).toBeUndefined();
  });

  it("an empty final takes an interim back", () => {
    const read = reader();
    read.read(results("uh", false));
    expect(read.read(results("", true))).toMatchObject({ type: "final", segment: "id-0", text: "" });
  });

  it("what was shown when the connection broke stays, once", () => {
    const read = reader();
    read.read(results("good da", false));
    expect(read.broken()).toMatchObject({ type: "final", segment: "id-0", text: "good da" });
    expect(read.broken()).toBeUndefined();
  });
});
