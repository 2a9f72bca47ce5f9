/** Who and where: the fields for room and name, kept in the page's address so that a reload is the same. */

import { input } from "./dom";

const NAME = "nemostream.name";
const ROOM = /^[A-Za-z0-9._-]{1,64}$/;
/** Without letters and digits that look alike. */
const LETTERS = "abcdefghjkmnpqrstuvwxyz23456789";

export class Place {
  private readonly roomField = input("room");
  private readonly nameField = input("name");

  constructor() {
    const query = new URLSearchParams(location.search);
    const room = query.get("room") ?? "";
    this.roomField.value = ROOM.test(room) ? room : randomRoom();
    this.nameField.value = query.get("name") ?? localStorage.getItem(NAME) ?? "";
    for (const field of [this.roomField, this.nameField]) field.addEventListener("change", () => this.keep());
    this.keep();
  }

  get room(): string {
    return this.roomField.value.trim();
  }

  get name(): string {
    return this.nameField.value.trim();
  }

  /** The fields hold what can be used. */
  get valid(): boolean {
    return this.roomField.reportValidity() && this.nameField.reportValidity();
  }

  set disabled(disabled: boolean) {
    this.roomField.disabled = this.nameField.disabled = disabled;
  }

  private keep(): void {
    const url = new URL(location.href);
    url.searchParams.set("room", this.room);
    if (this.name) url.searchParams.set("name", this.name);
    else url.searchParams.delete("name");
    if (this.name) localStorage.setItem(NAME, this.name);
    history.replaceState(history.state, "", url);
    document.dispatchEvent(new Event("place"));
  }
}

export function randomRoom(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => LETTERS[byte % LETTERS.length]).join("");
}
