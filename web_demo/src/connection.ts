/** What the pages with a microphone need of a connection, whatever it runs over. */

import type { Message } from "./messages";

export interface Connection {
  /** Rejects with a PageError when it breaks. Never resolves before `close`. */
  readonly broken: Promise<never>;
  /** From the end of a word to its text on the screen, ms; undefined: unknown. `paintMs`: from message to screen. */
  latencyMs(said: Timed, paintMs: number): number | undefined;
  replaceTrack(track: MediaStreamTrack): Promise<void>;
  /** The track is muted; the connection stays. */
  pause(paused: boolean): void | Promise<void>;
  /** Returns when what was said has become final. */
  close(): Promise<void>;
  /** The page goes away. */
  abandon(): void;
}

/** What is known of a text's time; `end`: seconds on its speaker's clock. */
export interface Timed {
  speaker: string;
  end?: number | undefined;
  delay_ms?: number | null | undefined;
}

/** Throws PageError. */
export type Connect = (
  track: MediaStreamTrack,
  hear: (message: Message) => void,
  signal: AbortSignal,
) => Promise<Connection>;

/** A promise that can be rejected, once. Nobody need wait for it. */
export class Broken {
  readonly promise: Promise<never>;
  reject!: (error: unknown) => void;

  constructor() {
    this.promise = new Promise<never>((_, reject) => {
      this.reject = reject;
    });
    this.promise.catch(() => undefined);
  }
}
