/**
 * A track's samples as frames of PCM16 at 16 kHz, and the clock they were captured by.
 *
 *     const capture = await Capture.of(track, (pcm) => socket.send(pcm));
 *     capture.since(1.5)               // ms since the sample at 1.5 s was captured
 */

import { PageError } from "./errors";
import type { Pcm } from "./framer";
import workletUrl from "./worklet.ts?worker&url";

const RATE = 16_000;
/** Frames from which the clock is taken: the one that was handed on soonest tells. */
const CLOCK_FRAMES = 300;

export class Capture {
  /** Hz. 16000, or the device's own where the browser does not resample; the gateway takes both. */
  readonly rate: number;
  private readonly context: AudioContext;
  private readonly node: AudioWorkletNode;
  private source: MediaStreamAudioSourceNode;
  /** performance.now() at sample 0, as each of the last frames would have it. */
  private readonly origins: number[] = [];

  private constructor(
    context: AudioContext,
    source: MediaStreamAudioSourceNode,
    node: AudioWorkletNode,
    emit: (pcm: ArrayBuffer) => void,
  ) {
    this.context = context;
    this.rate = context.sampleRate;
    this.source = source;
    this.node = node;
    node.port.onmessage = ({ data }: MessageEvent<Pcm>) => {
      this.origins.push(performance.now() - (1000 * data.end) / this.rate);
      if (this.origins.length > CLOCK_FRAMES) this.origins.shift();
      emit(data.pcm);
    };
    source.connect(node);
  }

  /** Throws PageError: the browser lets no sound through before somebody has touched the page. */
  static async of(track: MediaStreamTrack, emit: (pcm: ArrayBuffer) => void): Promise<Capture> {
    const { context, source } = contextFor(track);
    await Promise.race([context.resume(), new Promise((resolve) => setTimeout(resolve, 1_000))]);
    if (context.state !== "running") {
      void context.close();
      throw new PageError(
        "microphone",
        "The browser holds sound back until you touch the page: press Start.",
      );
    }
    await context.audioWorklet.addModule(workletUrl);
    const node = new AudioWorkletNode(context, "pcm", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
    });
    return new Capture(context, source, node, emit);
  }

  /** Milliseconds since the sample at `seconds` of the capture's own clock; undefined before the first frame. */
  since(seconds: number): number | undefined {
    if (!this.origins.length) return undefined;
    return performance.now() - Math.min(...this.origins) - 1000 * seconds;
  }

  replaceTrack(track: MediaStreamTrack): void {
    this.source.disconnect();
    this.source = this.context.createMediaStreamSource(new MediaStream([track]));
    this.source.connect(this.node);
  }

  close(): void {
    this.node.port.onmessage = null;
    this.source.disconnect();
    void this.context.close();
  }
}

/** Firefox joins a microphone only to a context of the microphone's own rate. */
function contextFor(track: MediaStreamTrack): { context: AudioContext; source: MediaStreamAudioSourceNode } {
  const stream = new MediaStream([track]);
  const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
  try {
    return { context, source: context.createMediaStreamSource(stream) };
  } catch {
    void context.close();
    const own = new AudioContext({ latencyHint: "interactive" });
    return { context: own, source: own.createMediaStreamSource(stream) };
  }
}
