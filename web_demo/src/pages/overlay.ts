/**
 * Captions alone, for OBS and screen shares.
 *
 *     ?room=NAME          whose captions; &livekit=1: of a LiveKit room
 *     &speaker=           only of this name or id
 *     &lines=2&size=48    lines of text, and its size in pixels
 */

import "../styles/overlay.css";
import { adoptKey, config } from "../config";
import { element } from "../dom";
import { PageError, pageError } from "../errors";
import { read } from "../events";
import type { Message } from "../messages";
import { Overlay } from "../overlay";
import { persist } from "../reconnect";

const query = new URLSearchParams(location.search);
adoptKey();

const overlay = new Overlay(element("captions"), {
  speaker: query.get("speaker") ?? "",
  lines: number("lines", 2, 1, 12),
  size: number("size", 48, 8, 400),
});
const hear = (message: Message) => overlay.apply(message);
const endless = new AbortController().signal;

state("connecting");
const captions = query.get("livekit") === "1" ? roomCaptions : eventCaptions;
persist(captions, () => state("reconnecting"), endless).catch((error) => {
  const { kind, message } = pageError(error);
  state(
    "error",
    kind === "key" ? "This gateway wants a key: put #access_token=KEY behind this address." : message,
  );
});

async function eventCaptions(): Promise<void> {
  await config(); // says why, where EventSource does not
  const { broken } = await read(room(), hear, (open) => state(open ? "live" : "reconnecting"));
  await broken;
}

async function roomCaptions(): Promise<void> {
  // livekit-client is large; the overlay of a room without LiveKit goes without.
  const { join } = await import("../livekit");
  const hooks = {
    hear,
    onConnected: (whole: boolean) => state(whole ? "live" : "reconnecting"),
    onSound: () => undefined,
  };
  const joined = await join({ room: room(), name: "overlay", viewer: true }, hooks, endless);
  state("live");
  addEventListener("pagehide", () => joined.abandon());
  await joined.broken;
}

function room(): string {
  const name = query.get("room");
  if (!name) throw new PageError("refused", "Which room? Put ?room=NAME behind this address.");
  return name;
}

function number(name: string, otherwise: number, least: number, most: number): number {
  const given = Number.parseInt(query.get(name) ?? "", 10);
  return Number.isNaN(given) ? otherwise : Math.min(most, Math.max(least, given));
}

function state(now: string, error = ""): void {
  document.body.dataset.state = now;
  element("error").textContent = error;
}
