/**
 * The list of captions on the page. A line that becomes final is a new element: in an aria-live region that is what a
 * screen reader says, once. Interims are hidden from it.
 *
 * Attributes of a line are read by tests and benchmarks: data-speaker, data-segment, data-final, data-sent-ms,
 * data-first-painted-ms (its first interim stood on the screen) and data-painted-ms (its final did), Unix time in ms.
 */

import type { Captions, Change, Line } from "./captions";
import { Colours } from "./colour";
import { Frame, unixMs } from "./frame";

export interface Painted {
  line: Line;
  /** From the message's arrival until it was on the screen, ms. */
  ms: number;
}

interface Entry {
  element: HTMLElement;
  final: boolean;
}

/** A final that is older is history: it is not read aloud. */
const HISTORY_MS = 15_000;

export class CaptionView {
  /** Called for each line whose newest text is on the screen. */
  onPainted: (painted: Painted) => void = () => undefined;
  /** Called behind each change of the list. */
  onChange: () => void = () => undefined;
  private readonly container: HTMLElement;
  private readonly entries = new Map<string, Entry>();
  private readonly colours = new Colours();
  private readonly frame: Frame;
  private changes: Change[] = [];
  private fresh: Line[] = [];

  constructor(container: HTMLElement, captions: Captions) {
    this.container = container;
    this.frame = new Frame(
      () => this.update(),
      () => this.painted(),
    );
    captions.listen((change) => {
      this.changes.push(change);
      this.frame.request();
    });
  }

  elementOf(line: Line): HTMLElement | undefined {
    return this.entries.get(line.segment)?.element;
  }

  private update(): void {
    const changes = this.changes;
    this.changes = [];
    const lines = new Set<Line>();
    this.hush(changes);
    for (const change of changes) {
      if (change.kind === "added") this.add(change.line, change.before);
      else if (change.kind === "removed") this.remove(change.line);
      else if (change.kind === "changed") this.change(change.line);
      else if (change.kind === "notice") this.notice(change.text);
      else this.clear();
      if ("line" in change && change.kind !== "removed") lines.add(change.line);
    }
    this.fresh.push(...lines);
    this.onChange();
  }

  private painted(): void {
    const now = unixMs();
    for (const line of this.fresh) {
      const element = this.entries.get(line.segment)?.element;
      if (!element) continue;
      if (line.final) element.dataset.paintedMs ??= now.toFixed(1);
      else element.dataset.firstPaintedMs ??= now.toFixed(1);
      this.onPainted({ line, ms: now - performance.timeOrigin - line.received });
    }
    this.fresh = [];
  }

  private add(line: Line, before: Line | undefined): void {
    const element = this.element(line);
    const next = before && this.entries.get(before.segment)?.element;
    this.container.insertBefore(element, next ?? null);
    this.entries.set(line.segment, { element, final: line.final });
    this.group(element);
  }

  private change(line: Line): void {
    const entry = this.entries.get(line.segment);
    if (!entry) return;
    if (!line.final || entry.final) {
      write(entry.element, line);
      return;
    }
    const element = this.element(line);
    if (entry.element.dataset.firstPaintedMs)
      element.dataset.firstPaintedMs = entry.element.dataset.firstPaintedMs;
    entry.element.replaceWith(element);
    this.entries.set(line.segment, { element, final: true });
    this.group(element);
  }

  private remove(line: Line): void {
    const element = this.entries.get(line.segment)?.element;
    const next = element?.nextElementSibling;
    element?.remove();
    this.entries.delete(line.segment);
    if (next instanceof HTMLElement) this.group(next);
  }

  private notice(text: string): void {
    const element = document.createElement("p");
    element.className = "notice";
    element.textContent = text;
    this.container.append(element);
  }

  private clear(): void {
    this.container.replaceChildren();
    this.entries.clear();
  }

  private element(line: Line): HTMLElement {
    const element = document.createElement("p");
    element.className = "caption";
    element.dataset.testid = "caption";
    element.dataset.speaker = line.speaker;
    element.dataset.segment = line.segment;
    element.dataset.colour = String(this.colours.of(line.name || line.speaker));
    const name = document.createElement("span");
    name.className = "name";
    const text = document.createElement("span");
    text.className = "text";
    element.append(name, " ", text);
    write(element, line);
    return element;
  }

  /** A name is shown where it differs from the one above. */
  private group(element: HTMLElement): void {
    for (const one of [element, element.nextElementSibling]) {
      if (!(one instanceof HTMLElement) || !one.dataset.speaker) continue;
      const above = one.previousElementSibling;
      const same = above instanceof HTMLElement && above.dataset.speaker === one.dataset.speaker;
      one.classList.toggle("continued", same);
    }
  }

  /** A room's history, which comes all at once, is not read aloud. */
  private hush(changes: Change[]): void {
    const old = Date.now() - HISTORY_MS;
    const loud = (change: Change) => "line" in change && (change.line.sent ?? Infinity) * 1000 > old;
    if (!changes.some((change) => "line" in change) || changes.some(loud)) return;
    this.container.setAttribute("aria-live", "off");
    setTimeout(() => this.container.setAttribute("aria-live", "polite"), 500);
  }
}

function write(element: HTMLElement, line: Line): void {
  const [name, text] = element.children as unknown as [HTMLElement, HTMLElement];
  if (name.textContent !== line.name) name.textContent = line.name;
  if (text.textContent !== line.text) text.textContent = line.text;
  element.dataset.final = String(line.final);
  element.toggleAttribute("data-nameless", !line.name);
  if (line.final) element.removeAttribute("aria-hidden");
  else element.setAttribute("aria-hidden", "true");
  if (line.sent !== undefined) element.dataset.sentMs = String(Math.round(line.sent * 1000));
}
