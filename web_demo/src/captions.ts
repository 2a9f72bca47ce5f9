/**
 * Captions: caption messages in, lines out. No DOM.
 *
 *     const captions = new Captions();
 *     captions.listen((change) => ...);
 *     captions.apply(message);
 *     captions.finals;               // for an export
 *
 * Lines are ordered by when they began to be said. A line keeps the place it got when it was first seen, so that
 * nothing moves under a reader's eyes. A segment that is final never changes again, however often it is told.
 */

import type { Message, Said, Word } from "./messages";

export interface Line {
  segment: string;
  speaker: string;
  name: string;
  text: string;
  final: boolean;
  /** Unix time, seconds, of the first word. */
  at: number;
  start?: number | undefined;
  end?: number | undefined;
  sent?: number | undefined;
  delay_ms?: number | null | undefined;
  words: Word[];
  /** performance.now() when the last message came. */
  received: number;
}

export type Change =
  | { kind: "added"; line: Line; before: Line | undefined }
  | { kind: "changed"; line: Line }
  | { kind: "removed"; line: Line }
  | { kind: "notice"; text: string }
  | { kind: "cleared" };

export class Captions {
  readonly lines: Line[] = [];
  /** Names by id of those who are there. */
  readonly speakers = new Map<string, string>();
  private readonly segments = new Map<string, Line>();
  private readonly listeners = new Set<(change: Change) => void>();

  get finals(): Line[] {
    return this.lines.filter((line) => line.final);
  }

  listen(listener: (change: Change) => void): void {
    this.listeners.add(listener);
  }

  clear(): void {
    this.lines.length = 0;
    this.segments.clear();
    this.tell({ kind: "cleared" });
  }

  /** `received`: performance.now() when it came. */
  apply(message: Message, received = performance.now()): void {
    switch (message.type) {
      case "interim":
      case "final":
        this.said(message, received);
        break;
      case "room":
        this.speakers.clear();
        for (const { id, name } of message.speakers) this.speakers.set(id, name);
        this.settle();
        break;
      case "joined":
        this.speakers.set(message.speaker, message.name);
        this.notice(`${message.name || "Someone"} joined.`);
        break;
      case "left":
        this.gone(message.speaker);
        this.notice(`${message.name || "Someone"} left.`);
        break;
      case "failed":
        this.gone(message.speaker);
        this.notice(`The captions of ${message.name || "one speaker"} ended: ${message.message}`);
        break;
      case "lost":
        this.notice(`${message.seconds.toFixed(1)} s of ${message.name || "someone"} did not arrive.`);
        break;
    }
  }

  /** Only the last `count` lines stay; what is gone does not come back when it is told again. */
  keep(count: number): void {
    while (this.lines.length > count) this.tell({ kind: "removed", line: this.lines.shift() as Line });
  }

  notice(text: string): void {
    this.tell({ kind: "notice", text });
  }

  private said(message: Said, received: number): void {
    const known = this.segments.get(message.segment);
    if (known?.final) return;
    const final = message.type === "final";
    if (!message.text.trim()) {
      if (known && final) this.remove(known);
      return;
    }
    const { speaker, name, segment, text, start, end, sent, delay_ms, words } = message;
    const fresh = { speaker, name, segment, text, start, end, sent, delay_ms, final, received };
    if (known) {
      // A place in the list is kept; the time of an export is the final's.
      Object.assign(known, fresh, { at: message.at, words: words ?? [] });
      this.tell({ kind: "changed", line: known });
      return;
    }
    const line: Line = { ...fresh, at: message.at, words: words ?? [] };
    let place = this.lines.length;
    while (place > 0 && (this.lines[place - 1] as Line).at > line.at) place--;
    const before = this.lines[place];
    this.lines.splice(place, 0, line);
    this.segments.set(segment, line);
    this.tell({ kind: "added", line, before });
  }

  /** Who left says no more: an interim of theirs that never became final is not what was said. */
  private gone(speaker: string): void {
    this.speakers.delete(speaker);
    for (const line of this.lines.filter((line) => !line.final && line.speaker === speaker))
      this.remove(line);
  }

  /** A connection is made anew: interims of those who are not there any more never become final. */
  private settle(): void {
    for (const line of this.lines.filter((line) => !line.final && !this.speakers.has(line.speaker)))
      this.remove(line);
  }

  private remove(line: Line): void {
    this.lines.splice(this.lines.indexOf(line), 1);
    this.segments.delete(line.segment);
    this.tell({ kind: "removed", line });
  }

  private tell(change: Change): void {
    for (const listener of this.listeners) listener(change);
  }
}
