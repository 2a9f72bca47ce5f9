/** The microphone in use: its track, its level on the page, and another one in its place. */

import { element, find } from "./dom";
import { type PageError, pageError } from "./errors";
import { Meter } from "./meter";
import { MicrophoneList, open } from "./microphone";

export class MicrophoneInput {
  /** Another microphone takes over. */
  onTrack: (track: MediaStreamTrack) => unknown = () => undefined;
  onError: (error: PageError) => void = () => undefined;
  track: MediaStreamTrack | undefined;
  private readonly echo: boolean;
  private readonly meter = new Meter(element("meter"));
  private readonly list = new MicrophoneList(find("microphone", HTMLSelectElement));
  private signal: AbortSignal | undefined;
  private on = true;

  /** `echo`: others are heard from the same machine. */
  constructor(echo: boolean) {
    this.echo = echo;
    this.list.onChange = (device) => void this.change(device);
    for (const gesture of ["pointerdown", "keydown"]) addEventListener(gesture, () => this.meter.resume());
  }

  /** False: silence. */
  set enabled(enabled: boolean) {
    this.on = enabled;
    if (this.track) this.track.enabled = enabled;
  }

  /** Throws PageError. What is opened behind the signal is closed again. */
  async open(signal: AbortSignal): Promise<void> {
    this.signal = signal;
    await this.use(this.list.device, signal);
  }

  close(): void {
    this.signal = undefined;
    this.track?.stop();
    this.track = undefined;
    this.meter.stop();
  }

  private async use(device: string, signal: AbortSignal): Promise<void> {
    const track = await open(device, this.echo);
    if (signal.aborted) return track.stop();
    this.track?.stop();
    this.track = track;
    track.enabled = this.on;
    // The device is gone, or the browser took its permission back: another may be there.
    track.addEventListener("ended", () => void this.change(""));
    this.meter.start(track);
    await this.list.refresh(track.getSettings().deviceId);
  }

  private async change(device: string): Promise<void> {
    if (!this.signal || !this.track) return;
    try {
      await this.use(device, this.signal);
      if (this.track) await this.onTrack(this.track);
    } catch (error) {
      this.onError(pageError(error));
    }
  }
}
