import { describe, expect, it } from "vitest";
import { Captions } from "../src/captions";
import { CUE_LINES, CUE_SECONDS, clock, LINE_CHARACTERS, srt, text, vtt } from "../src/export";
import type { Said, Word } from "../src/messages";
import { said } from "./said";
import { readVtt } from "./vtt";

function lines(...messages: Said[]) {
  const captions = new Captions();
  for (const message of messages) captions.apply(message);
  return captions.lines;
}

/** Words of equal length in time, from `start` on. */
function words(sentence: string, start: number, seconds: number): Word[] {
  const all = sentence.split(" ");
  const each = seconds / all.length;
  return all.map((word, i) => ({ text: word, start: start + i * each, end: start + (i + 1) * each }));
}

const LONG =
  "this is a sentence that somebody says without drawing a breath and it goes on and on until nobody " +
  "remembers how it began or what it was about in the first place which happens in meetings";

describe("WebVTT", () => {
  it("is read back: times from the first caption on, names as voices", () => {
    const found = readVtt(
      vtt(
        lines(
          said("final", "1", "Good morning.", { at: 5000.25, start: 2, end: 3.5 }),
          said("final", "2", "Hello.", { at: 5004, start: 1, end: 1.75, speaker: "b", name: "Ben" }),
        ),
      ),
    );
    expect(found).toEqual([
      { start: 0, end: 1.5, voice: "Anna", lines: ["Good morning."] },
      { start: 3.75, end: 4.5, voice: "Ben", lines: ["Hello."] },
    ]);
  });

  it("cues of several speakers overlap as they did, in order of their start", () => {
    const found = readVtt(
      vtt(
        lines(
          said("final", "b1", "No, wait.", { at: 1001, start: 0, end: 1, speaker: "b", name: "Ben" }),
          said("final", "a1", "I think that we should go.", { at: 1000, start: 0, end: 3 }),
        ),
      ),
    );
    expect(found.map((cue) => [cue.voice, cue.start, cue.end])).toEqual([
      ["Anna", 0, 3],
      ["Ben", 1, 2],
    ]);
  });

  it("markup in names and texts is text", () => {
    const found = readVtt(vtt(lines(said("final", "1", "a < b && c --> d", { name: "A<n>&a" }))));
    expect(found).toMatchObject([{ voice: "A<n>&a", lines: ["a < b && c --> d"] }]);
  });

  it("interims are left out, and nothing at all is a file too", () => {
    expect(readVtt(vtt(lines(said("interim", "1", "good"))))).toEqual([]);
  });

  it("a name-less line has no voice", () => {
    expect(readVtt(vtt(lines(said("final", "1", "one", { name: "" }))))).toMatchObject([{ voice: "" }]);
  });

  it("a long line is split between words, at their times; nothing is lost or said twice", () => {
    const message = said("final", "1", LONG, { at: 1000, start: 10, end: 30, words: words(LONG, 10, 20) });
    const found = readVtt(vtt(lines(message)));
    expect(found.length).toBeGreaterThan(2);
    expect(found.flatMap((cue) => cue.lines).join(" ")).toBe(LONG);
    expect(found[0]?.start).toBe(0);
    expect(found.at(-1)?.end).toBeCloseTo(20, 2);
    found.forEach((cue, i) => {
      expect(cue.lines.length).toBeLessThanOrEqual(CUE_LINES);
      for (const line of cue.lines) expect(line.length).toBeLessThanOrEqual(LINE_CHARACTERS);
      expect(cue.end - cue.start).toBeLessThanOrEqual(CUE_SECONDS + 0.002);
      const next = found[i + 1];
      if (next) expect(next.start).toBeCloseTo(cue.end, 2);
    });
  });

  it("slow speech is split by its seconds too", () => {
    const slow = "one two three four";
    const found = readVtt(
      vtt(lines(said("final", "1", slow, { start: 0, end: 12, words: words(slow, 0, 12) }))),
    );
    expect(found.map((cue) => cue.lines.join(" "))).toEqual(["one two", "three four"]);
  });

  it("without word times a long line is wrapped and stays one cue", () => {
    const found = readVtt(vtt(lines(said("final", "1", LONG, { start: 0, end: 20 }))));
    expect(found).toHaveLength(1);
    expect(found[0]?.lines.join(" ")).toBe(LONG);
    for (const line of found[0]?.lines ?? []) expect(line.length).toBeLessThanOrEqual(LINE_CHARACTERS);
  });

  it("a word that is longer than a line stands alone", () => {
    const word = "x".repeat(60);
    expect(readVtt(vtt(lines(said("final", "1", `a ${word} b`))))[0]?.lines).toEqual(["a", word, "b"]);
  });
});

describe("SRT", () => {
  it("has numbers, commas and names, and its lines keep to the width with them", () => {
    const found = srt(
      lines(
        said("final", "1", "Good morning.", { at: 1000, start: 0, end: 1.5 }),
        said("final", "2", LONG, { at: 1003, start: 3, end: 23, words: words(LONG, 3, 20) }),
      ),
    );
    expect(
      found.startsWith("1\n00:00:00,000 --> 00:00:01,500\nAnna: Good morning.\n\n2\n00:00:03,000 --> "),
    ).toBe(true);
    const blocks = found.trim().split("\n\n");
    blocks.forEach((block, i) => {
      const [number, times, ...body] = block.split("\n");
      expect(number).toBe(String(i + 1));
      expect(times).toMatch(/^\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}$/);
      expect(body[0]).toMatch(/^Anna: /);
      expect(body.length).toBeLessThanOrEqual(CUE_LINES);
      for (const line of body) expect(line.length).toBeLessThanOrEqual(LINE_CHARACTERS);
    });
  });
});

describe("text", () => {
  it("has a paragraph for each turn", () => {
    const found = text(
      lines(
        said("final", "1", "One.", { at: 1 }),
        said("final", "2", "Two.", { at: 2 }),
        said("final", "b", "Three.", { at: 3, name: "Ben" }),
        said("interim", "4", "fo", { at: 4 }),
      ),
    );
    expect(found).toBe("Anna: One. Two.\n\nBen: Three.\n");
  });
});

describe("clock", () => {
  it.each([
    [0, "00:00:00.000"],
    [59.9996, "00:01:00.000"],
    [3661.5, "01:01:01.500"],
    [360_000, "100:00:00.000"],
    [-1, "00:00:00.000"],
  ])("%d s is %s", (seconds, text) => expect(clock(seconds, ".")).toBe(text));
});
