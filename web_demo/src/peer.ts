/** A microphone over WHIP: audio goes out by WebRTC, captions come back on a data channel of the same connection. */

import { Broken, type Connection, type Timed } from "./connection";
import { away, blocked } from "./errors";
import { latencyMs, roundTripMs } from "./latency";
import { type Message, parse } from "./messages";
import { publish, type WhipSession } from "./whip";

const SETUP_MS = 15_000;
/** ICE may lose its path and find it again. */
const DISCONNECTED_MS = 3_000;
/** For the last finals, which may come behind the answer to DELETE. */
const LAST_MS = 300;
const STATS_MS = 1_000;

/** Throws PageError. */
export async function connectPeer(
  endpoint: URL,
  iceServers: RTCIceServer[],
  track: MediaStreamTrack,
  hear: (message: Message) => void,
  signal: AbortSignal,
): Promise<Connection> {
  const pc = new RTCPeerConnection({ iceServers });
  const broken = new Broken();
  const sender = pc.addTransceiver(track, { direction: "sendonly" }).sender;
  const channel = pc.createDataChannel("captions");
  channel.addEventListener("message", (event: MessageEvent<string>) => {
    const message = parse(event.data);
    if (message) hear(message);
  });
  watch(pc, channel, broken);
  try {
    const session = await publish(endpoint, pc, signal);
    const connection = new PeerConnection(pc, session, sender, broken);
    try {
      await Promise.race([opened(channel, signal), broken.promise]);
    } catch (error) {
      connection.abandon();
      throw error;
    }
    return connection;
  } catch (error) {
    pc.close();
    throw error;
  }
}

/** Rejects `broken` when the connection is lost. */
function watch(pc: RTCPeerConnection, channel: RTCDataChannel, broken: Broken): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  pc.addEventListener("connectionstatechange", () => {
    clearTimeout(timer);
    if (pc.connectionState === "failed") broken.reject(away());
    if (pc.connectionState === "disconnected")
      timer = setTimeout(() => broken.reject(away()), DISCONNECTED_MS);
  });
  channel.addEventListener("close", () => broken.reject(away()));
}

function opened(channel: RTCDataChannel, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (channel.readyState === "open") return resolve();
    const timer = setTimeout(() => reject(blocked()), SETUP_MS);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
    channel.addEventListener(
      "open",
      () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", stop);
        resolve();
      },
      { once: true },
    );
    return undefined;
  });
}

class PeerConnection implements Connection {
  readonly broken: Promise<never>;
  private readonly pc: RTCPeerConnection;
  private readonly session: WhipSession;
  private readonly sender: RTCRtpSender;
  private readonly timer: ReturnType<typeof setInterval>;
  private roundTripMs: number | undefined;

  constructor(pc: RTCPeerConnection, session: WhipSession, sender: RTCRtpSender, broken: Broken) {
    this.pc = pc;
    this.session = session;
    this.sender = sender;
    this.broken = broken.promise;
    const measure = async () => {
      this.roundTripMs = roundTripMs(await pc.getStats()) ?? this.roundTripMs;
    };
    this.timer = setInterval(() => void measure(), STATS_MS);
    void measure();
  }

  latencyMs(said: Timed, paintMs: number): number | undefined {
    if (said.delay_ms == null || this.roundTripMs === undefined) return undefined;
    return latencyMs(said.delay_ms, this.roundTripMs, paintMs);
  }

  async replaceTrack(track: MediaStreamTrack): Promise<void> {
    await this.sender.replaceTrack(track);
  }

  pause(paused: boolean): void {
    if (this.sender.track) this.sender.track.enabled = !paused;
  }

  async close(): Promise<void> {
    this.pause(true);
    await this.session.end();
    await this.silent();
    this.over();
  }

  abandon(): void {
    this.session.abandon();
    this.over();
  }

  /** When the gateway has ended the connection, or after LAST_MS. */
  private silent(): Promise<void> {
    return new Promise((resolve) => {
      this.broken.catch(() => resolve());
      setTimeout(resolve, LAST_MS);
    });
  }

  private over(): void {
    clearInterval(this.timer);
    this.pc.close();
  }
}
