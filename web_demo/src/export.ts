/**
 * Captions as WebVTT, SRT and plain text.
 *
 * Cues begin at their line's first word, counted from the first caption of all; so those of several speakers overlap
 * as they did. A cue has at most two lines of 42 characters and lasts at most 7 s where word times tell where to cut
 * (what the style guides of subtitling ask for); without word times it is only wrapped.
 */

import type { Line } from "./captions";
import type { Word } from "./messages";

export interface Cue {
  /** Seconds from the first caption. */
  start: number;
  end: number;
  name: string;
  lines: string[];
}

export const LINE_CHARACTERS = 42;
export const CUE_LINES = 2;
export const CUE_SECONDS = 7;
/** Of a cue, so that it can be read. */
const LEAST_SECONDS = 0.5;

/** Cues of the final lines, in order of their start. `lead`: what each one's text begins with. */
export function cues(lines: Line[], lead: (name: string) => string = () => ""): Cue[] {
  const finals = lines.filter((line) => line.final);
  const zero = finals.reduce((least, line) => Math.min(least, line.at), Infinity);
  return finals
    .flatMap((line) => cuesOf(line, line.at - zero, lead(line.name)))
    .sort((a, b) => a.start - b.start);
}

export function vtt(lines: Line[]): string {
  const text = cues(lines).map((cue) => {
    const voice = cue.name ? `<v ${escaped(cue.name.replace(/\s+/g, " "))}>` : "";
    return `${clock(cue.start, ".")} --> ${clock(cue.end, ".")}\n${voice}${cue.lines.map(escaped).join("\n")}\n`;
  });
  return ["WEBVTT\n", ...text].join("\n");
}

export function srt(lines: Line[]): string {
  const named = (name: string) => (name ? `${name}: ` : "");
  const text = cues(lines, named).map(
    (cue, i) => `${i + 1}\n${clock(cue.start, ",")} --> ${clock(cue.end, ",")}\n${cue.lines.join("\n")}\n`,
  );
  return text.join("\n");
}

/** A paragraph for each turn of a speaker. */
export function text(lines: Line[]): string {
  const turns: { name: string; texts: string[] }[] = [];
  for (const line of lines) {
    if (!line.final) continue;
    const last = turns.at(-1);
    if (last && last.name === line.name) last.texts.push(line.text);
    else turns.push({ name: line.name, texts: [line.text] });
  }
  return turns.map(({ name, texts }) => `${name ? `${name}: ` : ""}${texts.join(" ")}\n`).join("\n");
}

function cuesOf(line: Line, start: number, lead: string): Cue[] {
  const first = line.words[0];
  if (!first) {
    const seconds = (line.end ?? 0) - (line.start ?? 0);
    return [cue(line.name, start, start + seconds, wrapped(lead + line.text))];
  }
  return pieces(line.words, lead).map((piece) => {
    const [begin, end] = [(piece[0] as Word).start, (piece.at(-1) as Word).end];
    return cue(
      line.name,
      start + begin - first.start,
      start + end - first.start,
      wrapped(lead + joined(piece)),
    );
  });
}

function cue(name: string, start: number, end: number, lines: string[]): Cue {
  return { name, start, end: Math.max(end, start + LEAST_SECONDS), lines };
}

/** Words in as many pieces as each fits a cue. */
function pieces(words: Word[], lead: string): Word[][] {
  const found: Word[][] = [];
  for (const word of words) {
    const last = found.at(-1);
    if (last && fits([...last, word], lead)) last.push(word);
    else found.push([word]);
  }
  return found;
}

function fits(words: Word[], lead: string): boolean {
  const seconds = (words.at(-1) as Word).end - (words[0] as Word).start;
  return seconds <= CUE_SECONDS && wrapped(lead + joined(words)).length <= CUE_LINES;
}

function joined(words: Word[]): string {
  return words.map((word) => word.text).join(" ");
}

/** Lines of at most 42 characters; a longer word stands alone. */
export function wrapped(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= LINE_CHARACTERS)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function escaped(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** hh:mm:ss.mmm */
export function clock(seconds: number, point: "." | ","): string {
  const ms = Math.round(Math.max(0, seconds) * 1000);
  const two = (n: number) => String(Math.floor(n)).padStart(2, "0");
  const rest = String(ms % 1000).padStart(3, "0");
  return `${two(ms / 3_600_000)}:${two((ms / 60_000) % 60)}:${two((ms / 1000) % 60)}${point}${rest}`;
}
