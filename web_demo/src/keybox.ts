/** Asks for the gateway's key where one is wanted; it is kept as long as the tab is. */

import { config, key, setKey } from "./config";
import { input } from "./dom";
import { PageError, pageError } from "./errors";

export class KeyBox {
  /** A key was given that the gateway takes. */
  onKey: () => void = () => undefined;
  /** It was not taken. */
  onError: (error: PageError) => void = () => undefined;
  private readonly field = input("key");
  private readonly form = this.field.form as HTMLFormElement;

  constructor() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.use(this.field.value.trim());
    });
  }

  ask(): void {
    this.form.hidden = false;
    this.field.focus();
  }

  private async use(value: string): Promise<void> {
    setKey(value);
    try {
      await config();
    } catch (error) {
      const told = pageError(error);
      if (told.kind === "key") setKey("");
      const unknown = new PageError(
        "key",
        "This key is not known here: look it up again, or ask who runs the gateway.",
      );
      this.onError(told.kind === "key" ? unknown : told);
      return;
    }
    this.form.hidden = key() !== "";
    this.field.value = "";
    this.onKey();
  }
}
