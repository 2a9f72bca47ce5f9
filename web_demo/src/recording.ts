/** A recording that the reader chose or dropped on the page: its text appears while the gateway hears it. */

import type { Studio } from "./studio";
import { formatted, transcribe } from "./upload";

export class Recording {
  private readonly field: HTMLInputElement;
  private readonly studio: Studio;
  private file: File | undefined;

  constructor(field: HTMLInputElement, studio: Studio) {
    this.field = field;
    this.studio = studio;
    field.addEventListener("change", () => {
      const file = field.files?.[0];
      if (file) void this.hear(file);
    });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file) void this.hear(file);
    });
  }

  /** The file's name without its ending. */
  get title(): string | undefined {
    return this.file?.name.replace(/\.[^.]*$/, "");
  }

  /** Something else is heard: the list begins anew. */
  forget(): void {
    if (!this.file) return;
    this.file = undefined;
    this.field.value = "";
    this.studio.downloads.override = undefined;
    this.studio.captions.clear();
  }

  private async hear(file: File): Promise<void> {
    await this.studio.stop();
    this.forget();
    this.studio.captions.clear();
    await this.studio.play(async (signal, live) => {
      this.take(file);
      await this.transcribe(file, signal, live);
    });
  }

  private take(file: File): void {
    this.file = file;
    // The text comes without times while the file is heard; files with times are the gateway's own.
    this.studio.downloads.override = (format) => (format === "txt" ? undefined : formatted(file, format));
  }

  private async transcribe(file: File, signal: AbortSignal, live: () => void): Promise<void> {
    const { captions } = this.studio;
    captions.clear();
    const run = crypto.randomUUID();
    let segment = 0;
    live();
    for await (const text of transcribe(file, signal)) {
      const at = Date.now() / 1000;
      captions.apply({
        type: "final",
        speaker: "recording",
        name: "",
        segment: `${run}-${segment++}`,
        text,
        at,
      });
    }
    if (!segment) captions.notice("Nothing was said in this recording.");
  }
}
