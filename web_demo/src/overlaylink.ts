/** The address of a room's overlay. The key stands behind #, which browsers do not send. */

import { address, key } from "./config";
import { find } from "./dom";

export function overlayLink(room: () => string, query: Record<string, string> = {}): void {
  const link = find("overlay", HTMLAnchorElement);
  const set = () => {
    const url = address("overlay/");
    url.search = new URLSearchParams({ room: room(), ...query }).toString();
    if (key()) url.hash = new URLSearchParams({ access_token: key() }).toString();
    link.href = url.href;
  };
  set();
  document.addEventListener("place", set);
  link.addEventListener("pointerenter", set);
  link.addEventListener("focus", set);
}
