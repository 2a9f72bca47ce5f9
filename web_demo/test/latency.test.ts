import { describe, expect, it } from "vitest";
import { Latency, latencyMs, roundTripMs } from "../src/latency";
import { percent } from "../src/meter";

describe("latency", () => {
  it("adds up what is on the way", () => expect(latencyMs(200, 30, 16)).toBe(266));

  it("is the median of the last nine", () => {
    const latency = new Latency();
    expect(latency.median).toBeUndefined();
    for (const ms of [9000, 9000, 9000, 9000, 9000]) latency.add(ms);
    for (const ms of [5, 1, 4, 2, 3, 7, 6, 9, 8]) latency.add(ms);
    expect(latency.median).toBe(5);
  });

  it("takes the round trip of the pair of candidates in use", () => {
    const stats = new Map<string, object>([
      ["1", { type: "candidate-pair", nominated: false, currentRoundTripTime: 9 }],
      ["2", { type: "candidate-pair", nominated: true, currentRoundTripTime: 0.042 }],
    ]);
    expect(roundTripMs(stats as unknown as RTCStatsReport)).toBe(42);
    expect(roundTripMs(new Map() as unknown as RTCStatsReport)).toBeUndefined();
  });
});

describe("meter", () => {
  it.each([
    [0, 0],
    [1, 100],
    [0.1, 100 * (1 - 20 / 60)],
    [0.0001, 0],
  ])("a level of %f is at %f of 100", (level, wanted) => {
    expect(percent(new Float32Array(64).fill(level))).toBeCloseTo(wanted, 3);
  });
});
