/** How long a word takes from the microphone to the screen: the median of the last ones. */

import { Frame } from "./frame";

/** Of audio in one packet of Opus: its first sample waits for its last. */
export const PACKET_MS = 20;
const KEPT = 9;

/**
 * Through WebRTC: from the arrival of the audio until the text was sent (as the server measured), the way to the server
 * and back (half the round-trip time each), a packet, and from the message until it was painted.
 */
export function latencyMs(delayMs: number, roundTripMs: number, paintMs: number): number {
  return delayMs + roundTripMs + PACKET_MS + paintMs;
}

/** Of the pair of candidates in use. */
export function roundTripMs(stats: RTCStatsReport): number | undefined {
  for (const one of stats.values())
    if (one.type === "candidate-pair" && one.nominated && one.currentRoundTripTime !== undefined)
      return 1000 * one.currentRoundTripTime;
  return undefined;
}

export class Latency {
  private readonly last: number[] = [];

  add(ms: number): void {
    this.last.push(ms);
    if (this.last.length > KEPT) this.last.shift();
  }

  clear(): void {
    this.last.length = 0;
  }

  /** undefined: nothing was measured yet. */
  get median(): number | undefined {
    const sorted = [...this.last].sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)];
  }
}

/** Shows it: interims are what a reader waits for; a final also waits for the pause that ends it. */
export class LatencyView {
  private readonly interim = new Latency();
  private readonly final = new Latency();
  private readonly element: HTMLElement;
  private readonly frame = new Frame(() => this.paint());

  constructor(element: HTMLElement) {
    this.element = element;
  }

  add(ms: number, final: boolean): void {
    (final ? this.final : this.interim).add(ms);
    this.frame.request();
  }

  clear(): void {
    this.interim.clear();
    this.final.clear();
    this.frame.request();
  }

  private paint(): void {
    const { median } = this.interim;
    const settled = this.final.median;
    this.element.textContent = median === undefined ? "– ms" : `${Math.round(median)} ms`;
    if (median === undefined) delete this.element.dataset.ms;
    else this.element.dataset.ms = median.toFixed(1);
    if (settled === undefined) delete this.element.dataset.finalMs;
    else this.element.dataset.finalMs = settled.toFixed(1);
    const final = settled === undefined ? "" : ` Text is final after ${Math.round(settled)} ms.`;
    this.element.title = `From the end of a word to its text on this screen, median.${final}`;
  }
}
