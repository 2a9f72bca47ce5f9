/**
 * A page with a microphone: Start, Pause, Stop, captions, and a connection that is made anew when it breaks.
 *
 *     const studio = new Studio({ connect, title: () => "room" });
 */

import { Captions } from "./captions";
import { adoptKey } from "./config";
import type { Connect, Connection } from "./connection";
import { button, element } from "./dom";
import { Downloads } from "./downloads";
import { type PageError, pageError } from "./errors";
import { MicrophoneInput } from "./input";
import { KeyBox } from "./keybox";
import { LatencyView } from "./latency";
import type { Message } from "./messages";
import { persist } from "./reconnect";
import { Follow } from "./scroll";
import { Stage, type State } from "./stage";
import { theme } from "./theme";
import { CaptionView } from "./view";

export interface Options {
  connect: Connect;
  /** What downloads are called. */
  title: () => string;
  /** Others are heard from the same machine. */
  echo?: boolean;
  /** Fields hold what can be used; default: always. */
  ready?: () => boolean;
  onState?: (state: State) => void;
  sentences?: Partial<Record<State, string>>;
}

export class Studio {
  readonly captions = new Captions();
  readonly stage: Stage;
  readonly downloads: Downloads;
  private readonly options: Options;
  private readonly keyBox = new KeyBox();
  private readonly latency = new LatencyView(element("latency"));
  private readonly input: MicrophoneInput;
  private connection: Connection | undefined;
  private run: AbortController | undefined;
  private paused = false;
  /** What a missing key was in the way of. */
  private again: () => void = () => void this.start();

  constructor(options: Options) {
    adoptKey();
    this.options = options;
    this.stage = new Stage(options.sentences);
    this.input = new MicrophoneInput(options.echo ?? false);
    this.downloads = new Downloads(this.captions, options.title);
    theme();
    this.showCaptions();
    this.listenToButtons();
    // Behind the page's own script, which may wait for states.
    if (new URLSearchParams(location.search).get("autostart") === "1")
      queueMicrotask(() => void this.start());
  }

  /** The microphone, until stop() or an error that does not pass. */
  async start(): Promise<void> {
    if (this.run || this.options.ready?.() === false) return;
    this.again = () => void this.start();
    this.setPaused(false);
    await this.occupy(async (signal) => {
      await this.input.open(signal);
      await this.persist(() => this.connect(signal), signal);
    });
  }

  /** Something else than the microphone, until it is done or stop() is called; what runs ends first. */
  async play(work: (signal: AbortSignal, live: () => void) => Promise<void>): Promise<void> {
    await this.stop();
    this.again = () => void this.play(work);
    await this.occupy((signal) => this.persist(() => work(signal, () => this.stage.set("live")), signal));
  }

  async stop(): Promise<void> {
    const run = this.run;
    if (!run) return;
    button("stop").disabled = true;
    const connection = this.connection;
    this.connection = undefined;
    run.abort();
    await connection?.close();
    this.end();
    this.stage.set("stopped");
  }

  async pause(paused: boolean): Promise<void> {
    this.setPaused(paused);
    await this.connection?.pause(paused);
    if (this.connection) this.stage.set(paused ? "paused" : "live");
  }

  /** The connection mends itself (false), or has (true). */
  mended(whole: boolean): void {
    if (!this.connection) return;
    if (whole) this.stage.set(this.paused ? "paused" : "live");
    else this.stage.set("reconnecting", "The connection was interrupted and is being made again.");
  }

  private async occupy(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const run = new AbortController();
    this.run = run;
    this.stage.set("connecting");
    try {
      await work(run.signal);
      this.end();
      this.stage.set("stopped");
    } catch (error) {
      if (!run.signal.aborted) this.fail(pageError(error));
    }
  }

  private persist(attempt: () => Promise<void>, signal: AbortSignal): Promise<void> {
    return persist(attempt, (why) => this.stage.set("reconnecting", why), signal);
  }

  /** Until the connection breaks. */
  private async connect(signal: AbortSignal): Promise<void> {
    const hear = (message: Message) => this.captions.apply(message);
    const connection = await this.options.connect(this.input.track as MediaStreamTrack, hear, signal);
    if (signal.aborted) return connection.abandon();
    this.connection = connection;
    try {
      await connection.pause(this.paused);
      this.stage.set(this.paused ? "paused" : "live");
      await connection.broken;
    } catch (error) {
      if (!signal.aborted) {
        connection.abandon();
        this.connection = undefined;
      }
      throw error;
    }
  }

  private fail(error: PageError): void {
    this.run?.abort();
    this.connection?.abandon();
    this.end();
    this.stage.set("error", error.message);
    if (error.kind === "key") this.keyBox.ask();
  }

  private end(): void {
    this.run = undefined;
    this.connection = undefined;
    this.input.close();
  }

  private setPaused(paused: boolean): void {
    this.paused = paused;
    this.input.enabled = !paused;
    button("pause").textContent = paused ? "Resume" : "Pause";
  }

  private showCaptions(): void {
    const list = element("captions");
    const follow = new Follow(list, button("newest"));
    const view = new CaptionView(list, this.captions);
    view.onChange = () => {
      follow.changed();
      this.downloads.changed();
      element("hint").hidden = this.captions.lines.length > 0;
    };
    view.onPainted = ({ line, ms }) => {
      const latency = this.connection?.latencyMs(line, ms);
      if (latency !== undefined) this.latency.add(latency, line.final);
    };
  }

  private listenToButtons(): void {
    this.stage.onState = (state) => this.showState(state);
    this.showState(this.stage.state);
    button("start").addEventListener("click", () => void this.start());
    button("stop").addEventListener("click", () => void this.stop());
    button("pause").addEventListener("click", () => void this.pause(!this.paused));
    this.input.onTrack = (track) => this.connection?.replaceTrack(track);
    this.input.onError = (error) => this.fail(error);
    this.keyBox.onKey = () => this.again();
    this.keyBox.onError = (error) => this.stage.set("error", error.message);
    this.downloads.onError = (error) => this.stage.set(this.stage.state, pageError(error).message);
    addEventListener("pagehide", () => this.connection?.abandon());
    // Brought back as it was, without its connection.
    addEventListener("pageshow", (event) => event.persisted && location.reload());
  }

  private showState(state: State): void {
    const { running } = this.stage;
    button("start").hidden = running;
    button("stop").hidden = button("pause").hidden = !running;
    button("stop").disabled = false;
    button("pause").disabled = !this.connection;
    for (const name of ["room", "name"])
      for (const field of document.querySelectorAll<HTMLInputElement>(`input[data-testid="${name}"]`))
        field.disabled = running;
    if (state === "connecting") this.latency.clear();
    this.options.onState?.(state);
  }
}
