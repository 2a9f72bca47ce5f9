/**
 * The microphone: one track, which the reader may change while it is in use.
 *
 *     const track = await open(device);
 *     await devices();                 // with names once the browser has allowed one
 */

import { insecure, microphoneError } from "./errors";

const DEVICE = "nemostream.microphone";

/**
 * As it is: what cleans a voice for listeners takes away what recognition hears in it, and a gain that follows the voice
 * makes words of the noise between sentences. Where others are heard from the same machine, `echo` keeps them out.
 */
function constraints(device: string, echo: boolean): MediaTrackConstraints {
  return {
    ...(device ? { deviceId: { exact: device } } : {}),
    channelCount: 1,
    echoCancellation: echo,
    noiseSuppression: false,
    autoGainControl: false,
  };
}

/** Throws PageError. `device`: an id, or "" for the browser's choice. */
export async function open(device: string, echo = false): Promise<MediaStreamTrack> {
  if (!window.isSecureContext || !navigator.mediaDevices) throw insecure();
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: constraints(device, echo) });
  } catch (error) {
    const gone = error instanceof DOMException && error.name === "OverconstrainedError";
    if (!gone || !device) throw microphoneError(error);
    // One that was chosen on another day and is not there: the browser's choice is better than none.
    return open("", echo);
  }
  return stream.getAudioTracks()[0] as MediaStreamTrack;
}

export async function devices(): Promise<MediaDeviceInfo[]> {
  const all = (await navigator.mediaDevices?.enumerateDevices().catch(() => undefined)) ?? [];
  return all.filter((device) => device.kind === "audioinput");
}

/** The list of microphones on the page. */
export class MicrophoneList {
  onChange: (device: string) => void = () => undefined;
  private readonly select: HTMLSelectElement;

  constructor(select: HTMLSelectElement) {
    this.select = select;
    select.addEventListener("change", () => {
      localStorage.setItem(DEVICE, select.value);
      this.onChange(select.value);
    });
    navigator.mediaDevices?.addEventListener("devicechange", () => this.refresh());
    void this.refresh();
  }

  get device(): string {
    return this.select.value || localStorage.getItem(DEVICE) || "";
  }

  /** `used`: the device of the track that is open. */
  async refresh(used?: string): Promise<void> {
    const found = await devices();
    const chosen = used ?? this.device;
    const options = found
      .filter((device) => device.deviceId)
      .map((device, i) => new Option(device.label || `Microphone ${i + 1}`, device.deviceId));
    if (!options.length) options.push(new Option("Default microphone", ""));
    this.select.replaceChildren(...options);
    if (options.some((option) => option.value === chosen)) this.select.value = chosen;
  }
}
