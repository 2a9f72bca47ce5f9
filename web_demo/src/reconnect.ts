/** Trying again: twice as long a wait each time, with some chance, so that not all come at once. */

import { pageError } from "./errors";

const FIRST_MS = 500;
const MOST_MS = 8_000;
/** What has gone well for so long begins with short waits again. */
const LASTED_MS = 20_000;

export class BackOff {
  private tries = 0;
  private readonly random: () => number;

  constructor(random: () => number = Math.random) {
    this.random = random;
  }

  /** Milliseconds: between half and all of 0.5 s, 1 s, 2 s ... 8 s. */
  next(): number {
    const whole = Math.min(MOST_MS, FIRST_MS * 2 ** this.tries++);
    return whole * (0.5 + 0.5 * this.random());
  }

  /** A connection has lasted. */
  reset(): void {
    this.tries = 0;
  }
}

/** Resolves after `ms`, or sooner when the network comes back; rejects with the signal's reason. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", done);
      signal.removeEventListener("abort", aborted);
    };
    const done = () => {
      end();
      resolve();
    };
    const aborted = () => {
      end();
      reject(signal.reason);
    };
    const timer = setTimeout(done, ms);
    if (signal.aborted) return aborted();
    globalThis.addEventListener?.("online", done);
    signal.addEventListener("abort", aborted);
  });
}

/**
 * Does `attempt` until it returns. `wait` is told why the next one waits, a sentence.
 *
 * Throws PageError: trying again is pointless. Throws the signal's reason.
 */
export async function persist(
  attempt: () => Promise<void>,
  wait: (why: string) => void,
  signal: AbortSignal,
  backOff = new BackOff(),
): Promise<void> {
  while (true) {
    const since = performance.now();
    try {
      return await attempt();
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      const told = pageError(error);
      if (!told.passes) throw told;
      if (performance.now() - since > LASTED_MS) backOff.reset();
      const ms = told.retryAfter === undefined ? backOff.next() : 1000 * told.retryAfter;
      wait(`${told.message} Trying again in ${Math.ceil(ms / 1000)} s.`);
      await pause(ms, signal);
    }
  }
}
