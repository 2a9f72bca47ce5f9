/** Samples in, frames of PCM16 out. */

export interface Pcm {
  /** Little-endian, as every machine that runs a browser has it. */
  pcm: ArrayBuffer;
  /** The sample behind the last one, since the first. */
  end: number;
}

export class Framer {
  private frame: Int16Array<ArrayBuffer>;
  private filled = 0;
  private end = 0;
  private readonly size: number;
  private readonly emit: (frame: Pcm) => void;

  /** `size`: samples in a frame. */
  constructor(size: number, emit: (frame: Pcm) => void) {
    this.size = size;
    this.emit = emit;
    this.frame = new Int16Array(size);
  }

  /** `samples`: -1..1; what is beyond is clipped. */
  push(samples: Float32Array): void {
    for (const sample of samples) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.frame[this.filled++] = Math.round(clipped * (clipped < 0 ? 32768 : 32767));
      if (this.filled < this.size) continue;
      this.end += this.size;
      this.emit({ pcm: this.frame.buffer, end: this.end });
      this.frame = new Int16Array(this.size);
      this.filled = 0;
    }
  }
}
