/** The state of the page, as the reader sees it: body[data-state], the sentence beside it, and an error if there is one. */

import { element } from "./dom";

export type State = "idle" | "connecting" | "live" | "paused" | "reconnecting" | "stopped" | "error";

const SENTENCES: Record<State, string> = {
  idle: "Ready",
  connecting: "Connecting",
  live: "Listening",
  paused: "Paused: nothing is heard",
  reconnecting: "Reconnecting",
  stopped: "Stopped",
  error: "Not running",
};

/** Those in which a connection is there or under way. */
export const RUNNING: readonly State[] = ["connecting", "live", "paused", "reconnecting"];

export class Stage {
  onState: (state: State) => void = () => undefined;
  private readonly sentences: Record<State, string>;

  constructor(sentences: Partial<Record<State, string>> = {}) {
    this.sentences = { ...SENTENCES, ...sentences };
    this.set("idle");
  }

  get state(): State {
    return document.body.dataset.state as State;
  }

  get running(): boolean {
    return RUNNING.includes(this.state);
  }

  /** `error`: what is wrong and what to do, a sentence. */
  set(state: State, error = ""): void {
    document.body.dataset.state = state;
    element("status").textContent = this.sentences[state];
    const alert = element("error");
    if (alert.textContent !== error) alert.textContent = error;
    this.onState(state);
  }
}
