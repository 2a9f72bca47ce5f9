import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fragment, type Peer, publish } from "../src/whip";

const OFFER = [
  "v=0",
  "a=group:BUNDLE 0 1",
  "m=audio 9 UDP/TLS/RTP/SAVPF 111",
  "a=ice-ufrag:abcd",
  "a=ice-pwd:secretsecretsecretsecret",
  "a=mid:0",
  "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
  "a=ice-ufrag:abcd",
  "a=ice-pwd:secretsecretsecretsecret",
  "a=mid:1",
  "",
].join("\r\n");

/** As much of an RTCPeerConnection as WHIP needs; Node has none. */
class ScriptedPeer extends EventTarget {
  localDescription: RTCSessionDescription | null = null;
  remote: string | undefined;

  async createOffer(): Promise<RTCSessionDescriptionInit> {
    return { type: "offer", sdp: OFFER };
  }

  async setLocalDescription(description?: RTCLocalSessionDescriptionInit): Promise<void> {
    this.localDescription = { type: "offer", sdp: description?.sdp ?? "" } as RTCSessionDescription;
  }

  async setRemoteDescription(description: RTCSessionDescriptionInit): Promise<void> {
    this.remote = description.sdp;
  }

  /** null: there are no more. */
  found(candidate: string | null): void {
    const event = new Event("icecandidate");
    this.dispatchEvent(
      Object.assign(event, { candidate: candidate === null ? null : { candidate, sdpMid: "0" } }),
    );
  }
}

interface Seen {
  method: string;
  url: string;
  body: string;
  headers: IncomingMessage["headers"];
}

let server: Server;
let seen: Seen[];
let answer: (request: Seen, response: ServerResponse) => void;
let news: () => void = () => undefined;

beforeEach(async () => {
  const storage = new Map<string, string>();
  vi.stubGlobal("sessionStorage", {
    getItem: (name: string) => storage.get(name) ?? null,
    setItem: (name: string, value: string) => storage.set(name, value),
  });
  seen = [];
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (data: Buffer) => {
      body += data.toString();
    });
    request.on("end", () => {
      const one = { method: request.method ?? "", url: request.url ?? "", body, headers: request.headers };
      seen.push(one);
      answer(one, response);
      news();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  answer = ({ method }, response) => {
    if (method === "POST") response.writeHead(201, { Location: "/whip/r/s1", ETag: '"e1"' }).end("answer");
    else response.writeHead(method === "PATCH" ? 204 : 200).end();
  };
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  server.closeAllConnections();
  server.close();
});

const endpoint = () => new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/whip/r?name=Anna`);
const start = (peer: ScriptedPeer, signal = new AbortController().signal) =>
  publish(endpoint(), peer as unknown as Peer, signal);

function until(holds: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    news = () => holds() && resolve();
    news();
  });
}

describe("WHIP", () => {
  it("offers, takes the answer, and ends the session where Location says", async () => {
    const peer = new ScriptedPeer();
    sessionStorage.setItem("nemostream.key", "k1");
    const session = await start(peer);
    expect(seen[0]).toMatchObject({ method: "POST", url: "/whip/r?name=Anna", body: OFFER });
    expect(seen[0]?.headers).toMatchObject({ "content-type": "application/sdp", authorization: "Bearer k1" });
    expect(peer.remote).toBe("answer");
    await session.end();
    expect(seen.at(-1)).toMatchObject({ method: "DELETE", url: "/whip/r/s1" });
  });

  it("sends candidates behind the answer, those from before it too, and says when there are no more", async () => {
    const peer = new ScriptedPeer();
    answer = ({ method }, response) => {
      if (method === "POST") peer.found("candidate:1 1 udp 1 127.0.0.1 1000 typ host");
      response.writeHead(method === "POST" ? 201 : 204, { Location: "/whip/r/s1", ETag: '"e1"' }).end();
    };
    await start(peer);
    peer.found("candidate:2 1 udp 1 127.0.0.1 2000 typ host");
    await until(() => seen.length === 2);
    peer.found(null);
    await until(() => seen.length === 3);
    expect(seen.slice(1).map((one) => [one.method, one.url])).toEqual(Array(2).fill(["PATCH", "/whip/r/s1"]));
    expect(seen[1]?.headers).toMatchObject({
      "content-type": "application/trickle-ice-sdpfrag",
      "if-match": '"e1"',
    });
    expect(seen[1]?.body).toContain("a=candidate:1 1 udp");
    expect(seen[1]?.body).toContain("a=candidate:2 1 udp");
    expect(seen[1]?.body).not.toContain("end-of-candidates");
    expect(seen[2]?.body).toContain("a=end-of-candidates");
  });

  it("gathering that never ends is taken to be over", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const peer = new ScriptedPeer();
    await start(peer);
    peer.found("candidate:1 1 udp 1 127.0.0.1 1000 typ host");
    await vi.advanceTimersByTimeAsync(9_000);
    await until(() => seen.length === 2);
    expect(seen[1]?.body).not.toContain("end-of-candidates");
    await vi.advanceTimersByTimeAsync(1_100);
    await until(() => seen.length === 3);
    expect(seen[2]?.body).toContain("a=end-of-candidates");
  });

  it("a full house says when to come again", async () => {
    answer = (_, response) => {
      response.writeHead(503, { "Retry-After": "7", "Content-Type": "application/json" });
      response.end(JSON.stringify({ detail: "all 20 places are taken", code: "full" }));
    };
    await expect(start(new ScriptedPeer())).rejects.toMatchObject({
      kind: "busy",
      retryAfter: 7,
      passes: true,
    });
  });

  it("a missing key is asked for, and trying again is pointless", async () => {
    answer = (_, response) => response.writeHead(401).end("{}");
    await expect(start(new ScriptedPeer())).rejects.toMatchObject({ kind: "key", passes: false });
  });

  it("a refusal gives the gateway's own sentence", async () => {
    answer = (_, response) =>
      response.writeHead(400).end(JSON.stringify({ detail: "the offer has no audio" }));
    await expect(start(new ScriptedPeer())).rejects.toThrow("The gateway refused: The offer has no audio.");
  });

  it("an answer that names no session is none", async () => {
    answer = (_, response) => response.writeHead(201).end("answer");
    await expect(start(new ScriptedPeer())).rejects.toMatchObject({ kind: "refused" });
  });

  it("nobody at home passes", async () => {
    const gone = endpoint();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    const peer = new ScriptedPeer() as unknown as Peer;
    await expect(publish(gone, peer, new AbortController().signal)).rejects.toMatchObject({
      kind: "away",
      passes: true,
    });
  });

  it("is broken off with the signal's reason", async () => {
    const run = new AbortController();
    answer = () => run.abort("stopped");
    await expect(start(new ScriptedPeer(), run.signal)).rejects.toBe("stopped");
  });

  it("a session that is gone is no error at its end", async () => {
    const session = await start(new ScriptedPeer());
    answer = (_, response) => response.writeHead(404).end();
    await expect(session.end()).resolves.toBeUndefined();
  });
});

describe("an SDP fragment (RFC 8840)", () => {
  it("has the ICE parameters, and each candidate under its section", () => {
    const candidates = [
      { candidate: "candidate:1 1 udp 1 127.0.0.1 1 typ host", sdpMid: "0" },
      { candidate: "candidate:2 1 udp 1 127.0.0.1 2 typ host", sdpMid: "1" },
    ];
    expect(fragment(OFFER, candidates, true).split("\r\n")).toEqual([
      "a=ice-ufrag:abcd",
      "a=ice-pwd:secretsecretsecretsecret",
      "a=group:BUNDLE 0 1",
      "m=audio 9 UDP/TLS/RTP/SAVPF 111",
      "a=mid:0",
      "a=candidate:1 1 udp 1 127.0.0.1 1 typ host",
      "a=end-of-candidates",
      "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
      "a=mid:1",
      "a=candidate:2 1 udp 1 127.0.0.1 2 typ host",
      "a=end-of-candidates",
      "",
    ]);
  });

  it("may say nothing but that there are no more", () => {
    expect(fragment(OFFER, [], true)).toMatch(/m=audio.*\r\na=mid:0\r\na=end-of-candidates\r\n$/);
  });
});
