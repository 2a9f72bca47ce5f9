import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { COLOURS, Colours } from "../src/colour";

const css = readFileSync(new URL("../src/styles/tokens.css", import.meta.url), "utf8");
const tokens = new Map(
  [...css.matchAll(/--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)/g)].map(([, name, light, dark]) => [
    name as string,
    [light, dark] as [string, string],
  ]),
);

/** Relative luminance, WCAG 2.2. */
function luminance(colour: string): number {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one: string, other: string): number {
  const [dark = 0, light = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

const pair = (name: string) => tokens.get(name) as [string, string];
const speakers = Array.from({ length: COLOURS }, (_, i) => `speaker-${i}`);

describe("contrast", () => {
  it.each(["ink", "soft", "accent", "alert", ...speakers])(
    "%s is read on paper and bar, light and dark",
    (name) => {
      for (const ground of ["paper", "raised"])
        for (const theme of [0, 1] as const)
          expect(contrast(pair(name)[theme], pair(ground)[theme])).toBeGreaterThanOrEqual(4.5);
    },
  );

  it.each([
    ["on-accent", "accent", 4.5],
    ["alert", "alert-paper", 4.5],
    ["edge", "raised", 3],
    ["edge", "paper", 3],
  ] as const)("%s on %s", (name, ground, least) => {
    for (const theme of [0, 1] as const)
      expect(contrast(pair(name)[theme], pair(ground)[theme])).toBeGreaterThanOrEqual(least);
  });
});

describe("colours of speakers", () => {
  it("a name has the same one every time", () => {
    expect(new Colours().of("Anna")).toBe(new Colours().of("Anna"));
  });

  it("nobody shares one while there are enough", () => {
    const colours = new Colours();
    const found = ["Anna", "Ben", "Chiara", "Dan", "Eva", "Finn", "Gül", "Håkon"].map((name) =>
      colours.of(name),
    );
    expect(new Set(found).size).toBe(COLOURS);
    expect(colours.of("Anna")).toBe(found[0]);
    expect(colours.of("a ninth")).toBeLessThan(COLOURS);
  });
});
