/** The captions as files. */

import type { Captions } from "./captions";
import { button } from "./dom";
import { srt, text, vtt } from "./export";

export type Format = "vtt" | "srt" | "txt";
const TYPES: Record<Format, string> = { vtt: "text/vtt", srt: "application/x-subrip", txt: "text/plain" };
const WRITERS = { vtt, srt, txt: text };

export class Downloads {
  /** Writes a format otherwise; undefined: from the captions. */
  override: ((format: Format) => Promise<string> | undefined) | undefined;
  onError: (error: unknown) => void = () => undefined;
  private readonly captions: Captions;
  private readonly title: () => string;

  /** `title`: what files are called. */
  constructor(captions: Captions, title: () => string) {
    this.captions = captions;
    this.title = title;
    for (const format of Object.keys(TYPES) as Format[])
      button(`download-${format}`).addEventListener("click", () => void this.download(format));
    this.changed();
  }

  /** Nothing was said: nothing to download. */
  changed(): void {
    const empty = !this.captions.lines.some((line) => line.final);
    for (const format of Object.keys(TYPES)) button(`download-${format}`).disabled = empty;
  }

  private async download(format: Format): Promise<void> {
    try {
      const content = await (this.override?.(format) ?? WRITERS[format](this.captions.lines));
      save(content, TYPES[format], `${this.title()}-${stamp(new Date())}.${format}`);
    } catch (error) {
      this.onError(error);
    }
  }
}

function save(content: string, type: string, name: string): void {
  const url = URL.createObjectURL(new Blob([content], { type: `${type};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Local date and time, fit for a file's name. */
function stamp(now: Date): string {
  const two = (n: number) => String(n).padStart(2, "0");
  const date = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  return `${date}-${two(now.getHours())}${two(now.getMinutes())}`;
}
