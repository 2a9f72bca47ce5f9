/** Level of a track, on a role=meter element: decibels of full scale from -60 to 0 as 0 to 100. */

const FLOOR_DB = -60;
const PERIOD_MS = 50;
/** Falls by so much of the scale a period: the eye follows. */
const FALL = 4;

export class Meter {
  private readonly element: HTMLElement;
  private context: AudioContext | undefined;
  private source: MediaStreamAudioSourceNode | undefined;
  private timer: ReturnType<typeof setInterval> | undefined;
  private level = 0;

  constructor(element: HTMLElement) {
    this.element = element;
    this.show(0);
  }

  start(track: MediaStreamTrack): void {
    this.stop();
    this.context ??= new AudioContext();
    // Without a gesture the browser may hold it back; the meter is then still until the first one.
    if (this.context.state === "suspended") void this.context.resume();
    this.source = this.context.createMediaStreamSource(new MediaStream([track]));
    const analyser = new AnalyserNode(this.context, { fftSize: 2048 });
    this.source.connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    this.timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      this.level = Math.max(percent(samples), this.level - FALL);
      this.show(this.level);
    }, PERIOD_MS);
  }

  /** A gesture allows sound. */
  resume(): void {
    if (this.context?.state === "suspended") void this.context.resume();
  }

  stop(): void {
    clearInterval(this.timer);
    this.source?.disconnect();
    this.level = 0;
    this.show(0);
  }

  private show(level: number): void {
    this.element.setAttribute("aria-valuenow", String(Math.round(level)));
    this.element.style.setProperty("--level", (level / 100).toFixed(3));
  }
}

/** Root mean square of samples in -1..1, on the meter's scale. */
export function percent(samples: Float32Array): number {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  const db = power > 0 ? 10 * Math.log10(power) : FLOOR_DB;
  return Math.min(100, Math.max(0, 100 * (1 - db / FLOOR_DB)));
}
