/** A microphone over the WebSocket /v1/listen: PCM16 goes out as it is captured, results come back. */

import { Capture } from "./capture";
import { address, config, withKey } from "./config";
import { Broken, type Connection, type Timed } from "./connection";
import { away, PageError, sentence } from "./errors";
import type { Message } from "./messages";
import { ResultReader, type Results } from "./results";

/** RFC 6455 and its registry. */
const TRY_AGAIN = 1013;
const GOING_AWAY = 1012;
const OPEN_MS = 10_000;
const CLOSE_MS = 10_000;
/** Bytes that may wait to be sent: 8 s. Beyond them captions would come too late to be of use. */
const BEHIND = 8 * 2 * 16_000;
const BUSY_SECONDS = 5;

/** Throws PageError. */
export async function connectSocket(
  track: MediaStreamTrack,
  hear: (message: Message) => void,
  signal: AbortSignal,
): Promise<Connection> {
  // A browser does not say why a handshake failed; this answer does.
  await config(signal);
  const waiting: ArrayBuffer[] = [];
  let send = (pcm: ArrayBuffer): void => {
    waiting.push(pcm);
  };
  const capture = await Capture.of(track, (pcm) => send(pcm));
  const socket = new WebSocket(url(capture.rate));
  try {
    const broken = new Broken();
    const connection = new SocketConnection(socket, capture, hear, broken);
    await Promise.race([opened(socket, signal), broken.promise]);
    for (const pcm of waiting) socket.send(pcm);
    send = (pcm) => connection.send(pcm);
    return connection;
  } catch (error) {
    socket.close();
    capture.close();
    throw error;
  }
}

function url(rate: number): URL {
  const found = withKey(address("v1/listen", "ws"));
  const query = { encoding: "linear16", sample_rate: rate, channels: 1, interim_results: true };
  for (const [name, value] of Object.entries(query)) found.searchParams.set(name, String(value));
  return found;
}

function opened(socket: WebSocket, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(away()), OPEN_MS);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    socket.addEventListener("open", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

class SocketConnection implements Connection {
  readonly broken: Promise<never>;
  private readonly socket: WebSocket;
  private readonly capture: Capture;
  private readonly failed: Broken;

  constructor(socket: WebSocket, capture: Capture, hear: (message: Message) => void, failed: Broken) {
    this.socket = socket;
    this.capture = capture;
    this.failed = failed;
    this.broken = failed.promise;
    const unix = (seconds: number) => (Date.now() - (capture.since(seconds) ?? 0)) / 1000;
    const reader = new ResultReader(crypto.randomUUID(), "", unix);
    let told = "";
    socket.addEventListener("message", (event: MessageEvent<string>) => {
      const message = JSON.parse(event.data) as
        | Results
        | { type: "Error"; description: string }
        | { type: "other" };
      if (message.type === "Error") told = message.description;
      if (message.type !== "Results") return;
      const said = reader.read(message);
      if (said) hear(said);
    });
    socket.addEventListener("close", (event) => {
      const said = reader.broken();
      if (said) hear(said);
      failed.reject(reasonOf(event, told));
    });
  }

  send(pcm: ArrayBuffer): void {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(pcm);
    if (this.socket.bufferedAmount > BEHIND) {
      this.failed.reject(new PageError("away", "The network is too slow for live audio."));
      this.socket.close();
    }
  }

  /** Exactly: by the clock of the capture, which the results' times are of. */
  latencyMs(said: Timed, _paintMs: number): number | undefined {
    return said.end === undefined ? undefined : this.capture.since(said.end);
  }

  async replaceTrack(track: MediaStreamTrack): Promise<void> {
    this.capture.replaceTrack(track);
  }

  /** Silence is sent on: the connection and its clock stay. */
  pause(): void {}

  async close(): Promise<void> {
    this.capture.close();
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify({ type: "CloseStream" }));
    const timer = setTimeout(() => this.socket.close(), CLOSE_MS);
    await this.broken.catch(() => undefined);
    clearTimeout(timer);
  }

  abandon(): void {
    this.capture.close();
    this.socket.close();
  }
}

function reasonOf(event: CloseEvent, told: string): PageError {
  const why = told || event.reason;
  if (event.code === TRY_AGAIN) return new PageError("busy", "All places are taken.", BUSY_SECONDS);
  if (event.code === GOING_AWAY || event.code < 1002 || event.code === 1006) return away();
  return new PageError("refused", `The gateway ended the stream: ${sentence(why || `code ${event.code}`)}`);
}
