import { describe, expect, it } from "vitest";
import { Framer, type Pcm } from "../src/framer";

function frames(size: number, ...blocks: number[][]) {
  const found: Pcm[] = [];
  const framer = new Framer(size, (frame) => found.push(frame));
  for (const block of blocks) framer.push(Float32Array.from(block));
  return found.map(({ pcm, end }) => ({ samples: [...new Int16Array(pcm)], end }));
}

describe("framer", () => {
  it("cuts blocks of any size into frames, in order, and counts samples", () => {
    const found = frames(3, [0, 0.5], [-0.5, 0.25, 0], [0, 0, 0.125]);
    expect(found.map((frame) => frame.end)).toEqual([3, 6]);
    expect(found.flatMap((frame) => frame.samples)).toEqual([0, 16384, -16384, 8192, 0, 0]);
  });

  it("keeps full scale and clips what is beyond", () => {
    expect(frames(4, [1, -1, 2, -7])[0]?.samples).toEqual([32767, -32768, 32767, -32768]);
  });

  it("32 ms at 16 kHz are four of the browser's blocks", () => {
    const blocks = Array.from({ length: 8 }, () => Array(128).fill(0.1));
    expect(frames(512, ...blocks).map((frame) => frame.samples.length)).toEqual([512, 512]);
  });
});
