/** The gateway that these pages come from: where it is, the key it wants, what it offers. */

import { away, type PageError, refused } from "./errors";

export interface Config {
  livekit: boolean;
  livekit_url: string | null;
  ice_servers: RTCIceServer[];
  model: string | null;
  max_streams: number;
  version: string;
}

const KEY = "nemostream.key";
const ANSWER_MS = 15_000;

// Scripts lie in assets/ beside the pages' folders; so this holds behind any path prefix.
const here = import.meta.url;

/** The address of `path` at the gateway. */
export function address(path: string, scheme: "http" | "ws" = "http"): URL {
  const url = new URL(`../${path}`, here);
  if (scheme === "ws") url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}

export function key(): string {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setKey(value: string): void {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

/** A key in the page's address (?access_token=, or behind #) is kept for this tab and taken out of sight. */
export function adoptKey(): void {
  const url = new URL(location.href);
  const hash = new URLSearchParams(url.hash.slice(1));
  const given = hash.get("access_token") ?? url.searchParams.get("access_token");
  if (!given) return;
  setKey(given);
  hash.delete("access_token");
  url.searchParams.delete("access_token");
  url.hash = hash.toString();
  history.replaceState(history.state, "", url);
}

/** For EventSource and WebSocket, which can set no headers. */
export function withKey(url: URL): URL {
  if (key()) url.searchParams.set("access_token", key());
  return url;
}

export function headers(): Record<string, string> {
  return key() ? { Authorization: `Bearer ${key()}` } : {};
}

/**
 * An answer of the gateway that is OK. `ms`: how long it may take to begin; Infinity: as long as it likes.
 *
 * Throws PageError, or the signal's reason.
 */
export async function request(url: URL, init: RequestInit = {}, ms = ANSWER_MS): Promise<Response> {
  const cut = new AbortController();
  const timer = Number.isFinite(ms) ? setTimeout(() => cut.abort(away()), ms) : undefined;
  const signal = init.signal ? AbortSignal.any([init.signal, cut.signal]) : cut.signal;
  let answer: Response;
  try {
    answer = await fetch(url, { ...init, headers: { ...headers(), ...init.headers }, signal });
  } catch {
    if (signal.aborted) throw signal.reason;
    throw away();
  } finally {
    clearTimeout(timer);
  }
  if (!answer.ok) throw await failure(answer);
  return answer;
}

async function failure(answer: Response): Promise<PageError> {
  const body = await answer.json().catch(() => undefined);
  const detail = body?.detail ?? body?.error?.message;
  const seconds = Number(answer.headers.get("Retry-After"));
  return refused(answer.status, typeof detail === "string" ? detail : undefined, seconds || undefined);
}

/** Throws PageError: of kind `key` where one is wanted. */
export async function config(signal?: AbortSignal): Promise<Config> {
  const answer = await request(address("config.json"), { cache: "no-store", signal: signal ?? null });
  return (await answer.json()) as Config;
}
