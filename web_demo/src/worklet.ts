/**
 * AudioWorklet: the first channel as PCM16, little-endian, in frames of 32 ms at 16 kHz. The context resamples.
 *
 * Messages: { pcm: ArrayBuffer, end: number }, where `end` is the sample behind the frame's last one.
 */

import { Framer, type Pcm } from "./framer";

// TypeScript has no types for this scope.
declare const sampleRate: number;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare function registerProcessor(name: string, kind: new () => AudioWorkletProcessor): void;

const FRAME_MS = 32;

class PcmProcessor extends AudioWorkletProcessor {
  private readonly framer = new Framer(Math.round((sampleRate * FRAME_MS) / 1000), (frame: Pcm) =>
    this.port.postMessage(frame, [frame.pcm]),
  );

  process(inputs: Float32Array[][]): boolean {
    const channel = inputs[0]?.[0];
    if (channel) this.framer.push(channel);
    return true;
  }
}

registerProcessor("pcm", PcmProcessor);
