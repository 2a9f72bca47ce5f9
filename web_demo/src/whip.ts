/**
 * WHIP client (RFC 9725): the offer is POSTed, the answer comes back with the session's address; candidates that are
 * found later follow by PATCH (RFC 8840), DELETE ends it.
 *
 *     const session = await publish(endpoint, pc, signal);
 *     await session.end();
 *
 * Knows of RTCPeerConnection only what is in `Peer`, so it runs in Node too.
 */

import { headers, request } from "./config";
import { PageError } from "./errors";

export type Peer = Pick<
  RTCPeerConnection,
  | "createOffer"
  | "setLocalDescription"
  | "setRemoteDescription"
  | "localDescription"
  | "addEventListener"
  | "removeEventListener"
>;

/** Until no more candidates are waited for: gathering never ends where an interface is dead. */
const GATHERING_MS = 10_000;
/** Candidates that are found within it go out together. */
const BATCH_MS = 50;
/** What was said becomes final before the answer to DELETE. */
const DELETE_MS = 10_000;

export async function publish(endpoint: URL, peer: Peer, signal: AbortSignal): Promise<WhipSession> {
  const trickle = new Trickle(peer);
  try {
    await peer.setLocalDescription(await peer.createOffer());
    const answer = await request(endpoint, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: peer.localDescription?.sdp ?? null,
      signal,
    });
    const location = answer.headers.get("Location");
    if (answer.status !== 201 || !location)
      throw new PageError("refused", "The gateway's answer to the offer names no session.");
    const session = new WhipSession(new URL(location, answer.url || endpoint), trickle);
    try {
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    } catch (error) {
      session.abandon();
      throw error;
    }
    trickle.send(session.url, answer.headers.get("ETag"));
    return session;
  } catch (error) {
    trickle.stop();
    throw error;
  }
}

export class WhipSession {
  readonly url: URL;
  private readonly trickle: Trickle;

  constructor(url: URL, trickle: Trickle) {
    this.url = url;
    this.trickle = trickle;
  }

  /** Returns when all that was said is final. A session that is gone already is no error. */
  async end(): Promise<void> {
    this.trickle.stop();
    const ended = request(this.url, { method: "DELETE" }, DELETE_MS).then((answer) => answer.arrayBuffer());
    await ended.catch(() => undefined);
  }

  /** The page goes away: nothing is waited for. */
  abandon(): void {
    this.trickle.stop();
    fetch(this.url, { method: "DELETE", headers: headers(), keepalive: true }).catch(() => undefined);
  }
}

/** Candidates as they are found. */
class Trickle {
  private readonly peer: Peer;
  private readonly timer: ReturnType<typeof setTimeout>;
  private readonly found: RTCIceCandidate[] = [];
  private over = false;
  private url: URL | undefined;
  private etag: string | null = null;
  private batch: ReturnType<typeof setTimeout> | undefined;

  constructor(peer: Peer) {
    this.peer = peer;
    peer.addEventListener("icecandidate", this.candidate);
    this.timer = setTimeout(() => this.complete(), GATHERING_MS);
  }

  /** The session's address is known. */
  send(url: URL, etag: string | null): void {
    this.url = url;
    this.etag = etag;
    this.schedule();
  }

  stop(): void {
    this.peer.removeEventListener("icecandidate", this.candidate);
    clearTimeout(this.timer);
    clearTimeout(this.batch);
    this.batch = undefined;
    this.url = undefined;
  }

  private readonly candidate = (event: RTCPeerConnectionIceEvent): void => {
    if (event.candidate?.candidate) {
      this.found.push(event.candidate);
      this.schedule();
    } else if (!event.candidate) {
      this.complete();
    }
  };

  private complete(): void {
    clearTimeout(this.timer);
    this.over = true;
    this.schedule();
  }

  private schedule(): void {
    if (!this.url || this.batch !== undefined || (!this.found.length && !this.over)) return;
    this.batch = setTimeout(() => this.patch(), BATCH_MS);
  }

  private patch(): void {
    this.batch = undefined;
    const sdp = this.peer.localDescription?.sdp;
    if (!this.url || !sdp) return;
    const match: Record<string, string> = this.etag ? { "If-Match": this.etag } : {};
    const body = fragment(sdp, this.found.splice(0), this.over);
    const url = this.url;
    if (this.over) this.stop();
    // Candidates help where the gateway cannot be reached at once; without PATCH it is often found all the same.
    request(url, {
      method: "PATCH",
      headers: { "Content-Type": "application/trickle-ice-sdpfrag", ...match },
      body,
    }).catch((error: unknown) => console.warn("candidates were not taken:", error));
  }
}

/** application/trickle-ice-sdpfrag with these candidates. `sdp`: the local description. */
export function fragment(
  sdp: string,
  candidates: Pick<RTCIceCandidate, "candidate" | "sdpMid">[],
  over: boolean,
): string {
  const lines = sdp.split(/\r?\n/);
  const first = (start: string) => lines.find((line) => line.startsWith(start));
  const out = [first("a=ice-ufrag:"), first("a=ice-pwd:"), first("a=group:BUNDLE")];
  const mids = new Set(candidates.map((candidate) => candidate.sdpMid ?? "0"));
  if (!mids.size) mids.add(first("a=mid:")?.slice("a=mid:".length) ?? "0");
  for (const mid of mids) {
    out.push(media(lines, mid), `a=mid:${mid}`);
    for (const one of candidates) if ((one.sdpMid ?? "0") === mid) out.push(`a=${one.candidate}`);
    if (over) out.push("a=end-of-candidates");
  }
  return `${out.filter(Boolean).join("\r\n")}\r\n`;
}

/** The m-line with that mid. */
function media(lines: string[], mid: string): string | undefined {
  let line: string | undefined;
  for (const one of lines) {
    if (one.startsWith("m=")) line = one;
    if (one === `a=mid:${mid}`) return line;
  }
  return undefined;
}
