/** Frames of the screen: work is gathered and done once a frame, and it is known when it has been painted. */

/** Unix time in ms, with the resolution of performance.now(). */
export function unixMs(): number {
  return performance.timeOrigin + performance.now();
}

/** How often a page that nobody sees is brought up to date; it has no frames. */
const HIDDEN_MS = 250;

/** Calls `work` in the next frame, once however often it is asked for; `painted` in the frame behind that one. */
export class Frame {
  private waiting = false;
  private readonly work: () => void;
  private readonly painted: () => void;

  constructor(work: () => void, painted: () => void = () => undefined) {
    this.work = work;
    this.painted = painted;
  }

  request(): void {
    if (this.waiting) return;
    this.waiting = true;
    next(() => {
      this.waiting = false;
      this.work();
      next(this.painted);
    });
  }
}

function next(work: () => void): void {
  if (document.hidden) setTimeout(work, HIDDEN_MS);
  else requestAnimationFrame(work);
}
