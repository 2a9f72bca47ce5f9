// @vitest-environment happy-dom

import { beforeEach, describe, expect, it } from "vitest";
import { Captions } from "../src/captions";
import { unixMs } from "../src/frame";
import { CaptionView, type Painted } from "../src/view";
import { said } from "./said";

let container: HTMLElement;
let captions: Captions;
let painted: Painted[];

beforeEach(() => {
  container = document.createElement("div");
  document.body.replaceChildren(container);
  captions = new Captions();
  painted = [];
  new CaptionView(container, captions).onPainted = (one) => painted.push(one);
});

async function frames(count = 3): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => requestAnimationFrame(resolve));
}

const rows = () => [...container.querySelectorAll<HTMLElement>("[data-testid=caption]")];
const row = () => rows()[0] as HTMLElement;

describe("the list of captions", () => {
  it("a final is a new element, which a live region says; its interim was hidden from it", async () => {
    const before = unixMs();
    captions.apply(said("interim", "1", "good"));
    await frames();
    const interim = row();
    expect(interim.getAttribute("aria-hidden")).toBe("true");
    expect(interim.dataset.final).toBe("false");
    captions.apply(said("final", "1", "Good.", { sent: 1234.5678 }));
    await frames();
    expect(rows()).toHaveLength(1);
    expect(row()).not.toBe(interim);
    expect(row().hasAttribute("aria-hidden")).toBe(false);
    expect({ ...row().dataset }).toMatchObject({
      final: "true",
      segment: "1",
      speaker: "a",
      sentMs: "1234568",
    });
    expect(row().querySelector(".name")?.textContent).toBe("Anna");
    expect(row().querySelector(".text")?.textContent).toBe("Good.");
    expect(Number(row().dataset.firstPaintedMs)).toBeGreaterThanOrEqual(Math.floor(before));
    expect(Number(row().dataset.paintedMs)).toBeGreaterThan(Number(row().dataset.firstPaintedMs));
  });

  it("what is painted is told with the time that it took", async () => {
    captions.apply(said("interim", "1", "good"), performance.now() - 50);
    await frames();
    expect(painted.map((one) => one.line.text)).toEqual(["good"]);
    expect(painted[0]?.ms).toBeGreaterThanOrEqual(50);
  });

  it("many messages within one frame are painted once", async () => {
    for (const text of ["a", "a b", "a b c"]) captions.apply(said("interim", "1", text));
    await frames();
    expect(painted.map((one) => one.line.text)).toEqual(["a b c"]);
  });

  it("a final that had no interim says no time of one", async () => {
    captions.apply(said("final", "1", "Good."));
    await frames();
    expect(row().dataset.paintedMs).toBeDefined();
    expect(row().dataset.firstPaintedMs).toBeUndefined();
  });

  it("text is text, never markup", async () => {
    captions.apply(said("final", "1", "<img src=x onerror=alert(1)>", { name: "<b>Anna</b>" }));
    await frames();
    expect(container.querySelector("img, b")).toBeNull();
    expect(row().querySelector(".text")?.textContent).toBe("<img src=x onerror=alert(1)>");
  });

  it("a line that comes late stands where it belongs, and names follow", async () => {
    captions.apply(said("final", "1", "one", { at: 1 }));
    captions.apply(said("final", "3", "three", { at: 3 }));
    await frames();
    expect(rows().map((one) => one.classList.contains("continued"))).toEqual([false, true]);
    captions.apply(said("final", "2", "two", { at: 2, speaker: "b", name: "Ben" }));
    await frames();
    expect(rows().map((one) => one.dataset.segment)).toEqual(["1", "2", "3"]);
    expect(rows().map((one) => one.classList.contains("continued"))).toEqual([false, false, false]);
  });

  it("old finals are not read aloud", async () => {
    container.setAttribute("aria-live", "polite");
    captions.apply(said("final", "1", "an hour ago", { sent: Date.now() / 1000 - 3600 }));
    await frames(1);
    expect(container.getAttribute("aria-live")).toBe("off");
  });

  it("what is removed is gone", async () => {
    captions.apply(said("interim", "1", "uh"));
    await frames();
    captions.apply(said("final", "1", ""));
    await frames();
    expect(rows()).toEqual([]);
  });
});
