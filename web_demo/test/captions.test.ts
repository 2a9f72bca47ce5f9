import { describe, expect, it } from "vitest";
import { Captions, type Change } from "../src/captions";
import { said } from "./said";

const texts = (captions: Captions) => captions.lines.map((line) => `${line.final ? "" : "~"}${line.text}`);

describe("captions", () => {
  it("a final takes the place of its interim", () => {
    const captions = new Captions();
    captions.apply(said("interim", "1", "good"));
    captions.apply(said("interim", "1", "good morning"));
    expect(texts(captions)).toEqual(["~good morning"]);
    captions.apply(said("final", "1", "Good morning."));
    expect(texts(captions)).toEqual(["Good morning."]);
    expect(captions.finals).toHaveLength(1);
  });

  it("nothing changes a final", () => {
    const captions = new Captions();
    captions.apply(said("final", "1", "Good morning."));
    captions.apply(said("interim", "1", "late"));
    captions.apply(said("final", "1", "again"));
    expect(texts(captions)).toEqual(["Good morning."]);
  });

  it("lines are ordered by when they began, whatever order they come in", () => {
    const captions = new Captions();
    captions.apply(said("final", "b1", "second", { speaker: "b", at: 1005 }));
    captions.apply(said("final", "a1", "first", { at: 1001 }));
    captions.apply(said("final", "a2", "third", { at: 1009 }));
    expect(texts(captions)).toEqual(["first", "second", "third"]);
  });

  it("a line stays where it was first seen, though its final begins a little later", () => {
    const captions = new Captions();
    captions.apply(said("interim", "a1", "one", { at: 1001.0 }));
    captions.apply(said("interim", "b1", "two", { speaker: "b", at: 1001.1 }));
    captions.apply(said("final", "a1", "One.", { at: 1001.2 }));
    expect(texts(captions)).toEqual(["One.", "~two"]);
    expect(captions.lines[0]?.at).toBe(1001.2);
  });

  it("speakers talk at the same time, each in a line of their own", () => {
    const captions = new Captions();
    captions.apply(said("interim", "a1", "I think", { at: 1001 }));
    captions.apply(said("interim", "b1", "no", { speaker: "b", name: "Ben", at: 1001.5 }));
    captions.apply(said("interim", "a1", "I think so", { at: 1001 }));
    captions.apply(said("final", "b1", "No!", { speaker: "b", name: "Ben", at: 1001.5 }));
    expect(texts(captions)).toEqual(["~I think so", "No!"]);
  });

  it("history that comes again behind a reconnect gives no second lines", () => {
    const captions = new Captions();
    const history = [said("final", "1", "one", { at: 1 }), said("final", "2", "two", { at: 2 })];
    for (const message of history) captions.apply(message);
    captions.apply({ type: "room", room: "r", you: "new", speakers: [{ id: "new", name: "Anna" }] });
    for (const message of [...history, said("final", "3", "three", { at: 3 })]) captions.apply(message);
    expect(texts(captions)).toEqual(["one", "two", "three"]);
  });

  it("an interim that was cut off by a reconnect becomes what the history says", () => {
    const captions = new Captions();
    captions.apply(said("interim", "1", "good mor"));
    captions.apply({ type: "room", room: "r", you: "new", speakers: [{ id: "new", name: "Anna" }] });
    captions.apply(said("final", "1", "good morning"));
    expect(texts(captions)).toEqual(["good morning"]);
  });

  it("a reconnect leaves the interims of those who are still there", () => {
    const captions = new Captions();
    captions.apply(said("interim", "b1", "wait", { speaker: "b" }));
    captions.apply({ type: "room", room: "r", you: null, speakers: [{ id: "b", name: "Ben" }] });
    expect(texts(captions)).toEqual(["~wait"]);
  });

  it("who leaves takes along what never became final, and nothing else", () => {
    const captions = new Captions();
    captions.apply(said("final", "1", "one"));
    captions.apply(said("interim", "2", "tw", { at: 1002 }));
    captions.apply(said("interim", "b1", "I am here", { speaker: "b", at: 1003 }));
    captions.apply({ type: "left", speaker: "a", name: "Anna" });
    expect(texts(captions)).toEqual(["one", "~I am here"]);
  });

  it("an empty final takes an interim away that turned out to be nothing", () => {
    const captions = new Captions();
    captions.apply(said("interim", "1", "uh"));
    captions.apply(said("final", "1", ""));
    expect(texts(captions)).toEqual([]);
  });

  it("says what has changed, and beside which line", () => {
    const captions = new Captions();
    const changes: Change[] = [];
    captions.listen((change) => changes.push(change));
    captions.apply(said("final", "2", "two", { at: 2 }));
    captions.apply(said("interim", "1", "one", { at: 1 }));
    captions.apply({ type: "lost", speaker: "a", name: "Anna", start: 4, seconds: 2.34 });
    expect(changes.map((change) => change.kind)).toEqual(["added", "added", "notice"]);
    expect(changes[1]).toMatchObject({ before: { segment: "2" } });
    expect(changes[2]).toEqual({ kind: "notice", text: "2.3 s of Anna did not arrive." });
  });

  it("lines that had to make room do not come back", () => {
    const captions = new Captions();
    for (let i = 0; i < 4; i++) captions.apply(said("final", `${i}`, `${i}`, { at: i }));
    captions.keep(2);
    captions.apply(said("final", "0", "0", { at: 0 }));
    expect(texts(captions)).toEqual(["2", "3"]);
  });
});
