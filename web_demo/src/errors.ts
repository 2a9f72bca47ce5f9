/** What went wrong, as one sentence for the person in front of the page: what it is, and what to do. */

export type Kind = "key" | "busy" | "away" | "refused" | "microphone";

export class PageError extends Error {
  readonly kind: Kind;
  /** Seconds until trying again makes sense; of `busy`. */
  readonly retryAfter: number | undefined;

  constructor(kind: Kind, message: string, retryAfter?: number) {
    super(message);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }

  /** Whether the same may go well a little later. */
  get passes(): boolean {
    return this.kind === "busy" || this.kind === "away";
  }
}

export const away = () => new PageError("away", "The gateway does not answer.");
export const blocked = () =>
  new PageError("away", "The gateway answers, but no audio gets through to it: a firewall may block UDP.");

/** What an answer that is not OK means. `detail` is the gateway's own sentence. */
export function refused(status: number, detail: string | undefined, retryAfter?: number): PageError {
  if (status === 401 || status === 403)
    return new PageError("key", "This gateway wants a key: enter yours below.");
  if (status === 503 || status === 429)
    return new PageError("busy", "All places are taken.", retryAfter ?? 5);
  if (status === 502 || status === 504) return away();
  const said = detail ? sentence(detail) : `It answered with status ${status}.`;
  return new PageError("refused", `The gateway refused: ${said}`);
}

/** A sentence begins with a capital letter and ends with a full stop. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  const whole = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** Of getUserMedia. */
export function microphoneError(error: unknown): PageError {
  const name = error instanceof DOMException ? error.name : "";
  const told: Record<string, string> = {
    NotAllowedError:
      "The browser may not use the microphone: allow it in the address bar's site settings, then press Start.",
    NotFoundError: "No microphone was found: connect one, then press Start.",
    OverconstrainedError:
      "The chosen microphone is not there any more: choose another one, then press Start.",
    NotReadableError: "Another program holds the microphone: close it there, then press Start.",
  };
  return new PageError(
    "microphone",
    told[name] ?? "The microphone cannot be used: unplug it, plug it in again, then press Start.",
  );
}

export const insecure = () =>
  new PageError(
    "microphone",
    "Browsers give the microphone only to pages on https or localhost: open this page under such an address.",
  );

/** Anything that was thrown. */
export function pageError(error: unknown): PageError {
  if (error instanceof PageError) return error;
  console.error(error);
  const text = error instanceof Error ? error.message : String(error);
  return new PageError("refused", `Something went wrong in this page: ${sentence(text)}`);
}
