import { describe, expect, it, vi } from "vitest";
import { away, PageError, refused } from "../src/errors";
import { BackOff, pause, persist } from "../src/reconnect";

describe("back-off", () => {
  it("doubles up to a limit, and starts over", () => {
    const backOff = new BackOff(() => 1);
    expect([1, 2, 3, 4, 5, 6, 7].map(() => backOff.next())).toEqual([
      500, 1000, 2000, 4000, 8000, 8000, 8000,
    ]);
    backOff.reset();
    expect(backOff.next()).toBe(500);
  });

  it("spreads those who come back at once over half of the wait", () => {
    expect(new BackOff(() => 0).next()).toBe(250);
  });
});

describe("pause", () => {
  it("ends when the network comes back", async () => {
    const events = new EventTarget();
    vi.stubGlobal("addEventListener", events.addEventListener.bind(events));
    vi.stubGlobal("removeEventListener", events.removeEventListener.bind(events));
    const waiting = pause(1_000_000, new AbortController().signal);
    events.dispatchEvent(new Event("online"));
    await expect(waiting).resolves.toBeUndefined();
    vi.unstubAllGlobals();
  });

  it("ends with the signal's reason", async () => {
    const run = new AbortController();
    const waiting = pause(1_000_000, run.signal);
    run.abort("stopped");
    await expect(waiting).rejects.toBe("stopped");
    await expect(pause(1, run.signal)).rejects.toBe("stopped");
  });
});

describe("persist", () => {
  const quick = () => new BackOff(() => -1); // no wait at all

  it("tries again what passes, and says so", async () => {
    const told: string[] = [];
    let tries = 0;
    const attempt = async () => {
      if (++tries < 3) throw away();
    };
    await persist(attempt, (why) => told.push(why), new AbortController().signal, quick());
    expect(tries).toBe(3);
    expect(told).toEqual(Array(2).fill("The gateway does not answer. Trying again in 0 s."));
  });

  it("waits as long as a full house says", async () => {
    vi.useFakeTimers();
    const told: string[] = [];
    let tries = 0;
    const attempt = async () => {
      if (++tries === 1) throw refused(503, "all places are taken", 7);
    };
    const done = persist(attempt, (why) => told.push(why), new AbortController().signal);
    await vi.advanceTimersByTimeAsync(6_900);
    expect(tries).toBe(1);
    await vi.advanceTimersByTimeAsync(200);
    await done;
    expect(tries).toBe(2);
    expect(told).toEqual(["All places are taken. Trying again in 7 s."]);
    vi.useRealTimers();
  });

  it("gives up where trying again is pointless", async () => {
    const attempt = async () => {
      throw refused(401, "an API key is needed");
    };
    const failure = await persist(attempt, () => undefined, new AbortController().signal).catch(
      (error) => error,
    );
    expect(failure).toBeInstanceOf(PageError);
    expect(failure.kind).toBe("key");
  });
});
