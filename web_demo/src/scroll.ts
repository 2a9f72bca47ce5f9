/** Keeps the newest caption in sight, until the reader scrolls up; then a button leads back. */

/** Pixels from the end that still count as the end. */
const NEAR = 48;

export class Follow {
  private following = true;
  private readonly list: HTMLElement;
  private readonly button: HTMLButtonElement;

  constructor(list: HTMLElement, button: HTMLButtonElement) {
    this.list = list;
    this.button = button;
    list.addEventListener("scroll", () => this.scrolled(), { passive: true });
    button.addEventListener("click", () => {
      this.following = true;
      this.changed();
      list.focus({ preventScroll: true });
    });
    new ResizeObserver(() => this.changed()).observe(list);
  }

  /** The list has grown. */
  changed(): void {
    if (this.following) this.list.scrollTop = this.list.scrollHeight;
    this.button.hidden = this.following;
  }

  private scrolled(): void {
    const left = this.list.scrollHeight - this.list.clientHeight - this.list.scrollTop;
    this.following = left < NEAR;
    this.button.hidden = this.following;
  }
}
