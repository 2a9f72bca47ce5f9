/** The last lines of captions over a picture. What was said a while ago fades; history is not shown. */

import { Captions, type Line } from "./captions";
import type { Message } from "./messages";
import { CaptionView } from "./view";

export interface OverlayOptions {
  /** Name or id; "": everybody. */
  speaker: string;
  /** Of text. */
  lines: number;
  /** Pixels. */
  size: number;
}

/** After a caption's last change: time to read two full lines. */
const FADE_MS = 8_000;

export class Overlay {
  private readonly captions = new Captions();
  private readonly options: OverlayOptions;
  private readonly view: CaptionView;
  private readonly timers = new Map<string, ReturnType<typeof setTimeout>>();

  constructor(container: HTMLElement, options: OverlayOptions) {
    this.options = options;
    container.style.setProperty("--lines", String(options.lines));
    container.style.setProperty("--size", `${options.size}px`);
    this.captions.listen((change) => {
      if (change.kind === "added") this.captions.keep(options.lines);
    });
    this.view = new CaptionView(container, this.captions);
    this.view.onPainted = ({ line }) => this.fadeLater(line);
  }

  apply(message: Message): void {
    if (message.type !== "interim" && message.type !== "final") {
      // Who is here decides which interims still become final; nobody reads notices in a picture.
      if (message.type !== "joined" && message.type !== "lost") this.captions.apply(message);
      return;
    }
    const { speaker } = this.options;
    if (speaker && message.speaker !== speaker && message.name.toLowerCase() !== speaker.toLowerCase())
      return;
    const said = message.sent ?? Date.now() / 1000;
    if (message.type === "final" && Date.now() / 1000 - said > FADE_MS / 1000) return;
    this.captions.apply(message);
  }

  private fadeLater(line: Line): void {
    clearTimeout(this.timers.get(line.segment));
    this.view.elementOf(line)?.classList.remove("faded");
    const fade = () => {
      this.timers.delete(line.segment);
      this.view.elementOf(line)?.classList.add("faded");
    };
    this.timers.set(line.segment, setTimeout(fade, FADE_MS));
  }
}
