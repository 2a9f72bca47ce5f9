/** Caption messages: what the gateway tells the readers of a room, one JSON object each. */

/** Times are seconds on the speaker's own clock. */
export interface Word {
  text: string;
  start: number;
  end: number;
  confidence?: number;
}

export interface Speaker {
  id: string;
  name: string;
}

/** The whole text of a segment so far. A final takes the place of the interim with the same segment. */
export interface Said {
  type: "interim" | "final";
  speaker: string;
  name: string;
  segment: string;
  text: string;
  /** Seconds on the speaker's clock; undefined where the source gives no times. */
  start?: number | undefined;
  end?: number | undefined;
  /** Unix time, seconds, of the segment's first word. */
  at: number;
  /** Unix time, seconds, when the message left the gateway. */
  sent?: number | undefined;
  /** From the arrival of the audio in which the last word ends until `sent`. */
  delay_ms?: number | null | undefined;
  words?: Word[] | undefined;
  reason?: string | undefined;
}

export type Message =
  | { type: "room"; room: string; you: string | null; speakers: Speaker[] }
  | { type: "joined" | "left"; speaker: string; name: string }
  | Said
  | { type: "lost"; speaker: string; name: string; start: number; seconds: number }
  | { type: "failed"; speaker: string; name: string; code: string; message: string };

const TYPES = new Set(["room", "joined", "left", "interim", "final", "lost", "failed"]);

/** The message, or undefined: a kind that this page does not know. Throws SyntaxError on what is no JSON. */
export function parse(json: string): Message | undefined {
  const message = JSON.parse(json) as Message;
  return TYPES.has(message.type) ? message : undefined;
}
