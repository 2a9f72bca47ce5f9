/**
 * A LiveKit room: the microphone is a track in it, captions are text streams that the captions agent sends in the name
 * of who speaks.
 *
 * Only this module loads livekit-client, and only pages that need it import this module.
 */

import {
  LocalAudioTrack,
  RemoteAudioTrack,
  Room,
  RoomEvent,
  type TextStreamReader,
  Track,
} from "livekit-client";
import { address, request } from "./config";
import { Broken, type Connection, type Timed } from "./connection";
import { latencyMs, roundTripMs } from "./latency";
import { connectionError, disconnected } from "./livekiterrors";
import type { Message } from "./messages";
import { Sound } from "./sound";
import { captionOf } from "./textstream";

const TOPIC = "lk.transcription";
const STATS_MS = 1_000;

export interface Who {
  room: string;
  name: string;
  /** Reads, and publishes nothing. */
  viewer: boolean;
}

export interface Hooks {
  hear: (message: Message) => void;
  /** The connection is being made anew (false), or is there again. */
  onConnected: (connected: boolean) => void;
  /** Others' sound waits for a gesture (false), or is heard. */
  onSound: (heard: boolean) => void;
}

/** Throws PageError. */
export async function join(who: Who, hooks: Hooks, signal: AbortSignal): Promise<LiveKitRoom> {
  const answer = await request(address("livekit/token"), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(who),
    signal,
  });
  const { url, token } = (await answer.json()) as { url: string; token: string };
  const room = new Room();
  const joined = new LiveKitRoom(room, hooks, who.viewer);
  const abort = () => void room.disconnect();
  signal.addEventListener("abort", abort);
  try {
    await room.connect(url, token, { autoSubscribe: !who.viewer });
  } catch (error) {
    void room.disconnect();
    throw signal.aborted ? signal.reason : connectionError(error);
  } finally {
    signal.removeEventListener("abort", abort);
  }
  joined.greet(who.room);
  return joined;
}

export class LiveKitRoom implements Connection {
  readonly broken: Promise<never>;
  private readonly room: Room;
  private readonly hooks: Hooks;
  private readonly viewer: boolean;
  /** Of the others. */
  readonly sound = new Sound();
  private readonly failed = new Broken();
  private readonly timer: ReturnType<typeof setInterval>;
  private track: LocalAudioTrack | undefined;
  private roundTripMs: number | undefined;
  /** Segments of ours that wait for their final. */
  private readonly open = new Set<string>();
  private settled: () => void = () => undefined;

  constructor(room: Room, hooks: Hooks, viewer: boolean) {
    this.room = room;
    this.hooks = hooks;
    this.viewer = viewer;
    this.broken = this.failed.promise;
    this.timer = setInterval(() => void this.measure(), STATS_MS);
    this.listen();
  }

  /** Those who are here already. */
  greet(name: string): void {
    const people = [this.room.localParticipant, ...this.room.remoteParticipants.values()];
    const speakers = people
      .filter((one) => !one.isAgent)
      .map((one) => ({ id: one.identity, name: one.name ?? "" }));
    this.hooks.hear({ type: "room", room: name, you: this.room.localParticipant.identity, speakers });
    this.hooks.onSound(this.room.canPlaybackAudio);
  }

  async publish(track: MediaStreamTrack): Promise<void> {
    // Ours, so that pausing and changing it stays with the page.
    this.track = new LocalAudioTrack(track, undefined, true);
    // DTX would hold the end of what was said back; captions need every packet.
    await this.room.localParticipant.publishTrack(this.track, {
      source: Track.Source.Microphone,
      dtx: false,
    });
  }

  latencyMs(said: Timed, paintMs: number): number | undefined {
    if (said.delay_ms == null || this.roundTripMs === undefined) return undefined;
    return latencyMs(said.delay_ms, this.roundTripMs, paintMs);
  }

  async replaceTrack(track: MediaStreamTrack): Promise<void> {
    await this.track?.replaceTrack(track, true);
  }

  async pause(paused: boolean): Promise<void> {
    await (paused ? this.track?.mute() : this.track?.unmute());
  }

  /** Behind a gesture. */
  async startSound(): Promise<void> {
    await this.room.startAudio();
  }

  async close(): Promise<void> {
    if (this.track) {
      // The agent makes the end of a track final; its last captions come before the page leaves.
      await this.room.localParticipant.unpublishTrack(this.track, false).catch(() => undefined);
      await this.lastFinal();
    }
    this.over();
    await this.room.disconnect();
  }

  abandon(): void {
    this.over();
    void this.room.disconnect();
  }

  /** When no interim of ours waits for its final. */
  private lastFinal(): Promise<void> {
    if (!this.open.size) return Promise.resolve();
    return new Promise((resolve) => {
      this.settled = resolve;
      setTimeout(resolve, 2_000);
    });
  }

  private over(): void {
    clearInterval(this.timer);
    this.sound.clear();
  }

  private listen(): void {
    const { hear, onConnected, onSound } = this.hooks;
    const room = this.room;
    room.registerTextStreamHandler(TOPIC, (reader, { identity }) => void this.read(reader, identity));
    room.on(RoomEvent.Reconnecting, () => onConnected(false));
    room.on(RoomEvent.SignalReconnecting, () => onConnected(false));
    room.on(RoomEvent.Reconnected, () => onConnected(true));
    room.on(RoomEvent.Disconnected, (reason) => this.failed.reject(disconnected(reason)));
    room.on(RoomEvent.AudioPlaybackStatusChanged, () => onSound(room.canPlaybackAudio));
    room.on(RoomEvent.ParticipantConnected, (one) => {
      if (!one.isAgent) hear({ type: "joined", speaker: one.identity, name: one.name ?? "" });
    });
    room.on(RoomEvent.ParticipantDisconnected, (one) => {
      if (!one.isAgent) hear({ type: "left", speaker: one.identity, name: one.name ?? "" });
    });
    room.on(RoomEvent.TrackSubscribed, (track) => {
      if (track instanceof RemoteAudioTrack && !this.viewer) this.sound.add(track);
    });
    room.on(RoomEvent.TrackUnsubscribed, (track) => this.sound.remove(track));
  }

  private async read(reader: TextStreamReader, identity: string): Promise<void> {
    let text: string;
    try {
      text = await reader.readAll();
    } catch {
      return; // the sender went away in the middle
    }
    const message = captionOf(
      reader.info.attributes ?? {},
      text,
      identity,
      this.nameOf(identity),
      Date.now() / 1000,
    );
    if (identity === this.room.localParticipant.identity) {
      if (message.type === "interim") this.open.add(message.segment);
      else this.open.delete(message.segment);
      if (!this.open.size) this.settled();
    }
    this.hooks.hear(message);
  }

  private nameOf(identity: string): string {
    return this.room.getParticipantByIdentity(identity)?.name || identity;
  }

  private async measure(): Promise<void> {
    const others = [...this.room.remoteParticipants.values()].flatMap((one) => [
      ...one.trackPublications.values(),
    ]);
    for (const track of [this.track, ...others.map((publication) => publication.track)]) {
      const stats = await track?.getRTCStatsReport().catch(() => undefined);
      const ms = stats && roundTripMs(stats);
      if (ms === undefined) continue;
      this.roundTripMs = ms;
      return;
    }
  }
}
