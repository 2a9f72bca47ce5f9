/** A room's captions as server-sent events, for who only reads. */

import { address, withKey } from "./config";
import { Broken } from "./connection";
import { away } from "./errors";
import { type Message, parse } from "./messages";

/** The browser tries again by itself where a connection was cut; it may not see that it was. */
const SILENT_MS = 45_000;

/** Resolves once it is open; `broken` rejects when the browser has given up. Throws PageError. */
export async function read(
  room: string,
  hear: (message: Message) => void,
  onOpen: (open: boolean) => void,
): Promise<{ broken: Promise<never>; close: () => void }> {
  const source = new EventSource(withKey(address(`rooms/${encodeURIComponent(room)}/captions`)));
  const broken = new Broken();
  const opened = new Promise<void>((resolve) => {
    source.addEventListener("open", () => {
      onOpen(true);
      resolve();
    });
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) broken.reject(away());
    else onOpen(false);
  });
  source.addEventListener("message", (event: MessageEvent<string>) => {
    const message = parse(event.data);
    if (message) hear(message);
  });
  const close = () => source.close();
  try {
    await Promise.race([opened, broken.promise, late()]);
  } catch (error) {
    close();
    throw error;
  }
  return { broken: broken.promise, close };
}

function late(): Promise<never> {
  return new Promise((_, reject) => setTimeout(() => reject(away()), SILENT_MS));
}
