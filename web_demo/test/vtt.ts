/** Reads WebVTT as its grammar has it, so far as we write it: https://www.w3.org/TR/webvtt1/ */

export interface ReadCue {
  start: number;
  end: number;
  voice: string;
  lines: string[];
}

const TIMES = /^(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})$/;

/** Throws on what is no WebVTT. */
export function readVtt(text: string): ReadCue[] {
  const [head, ...blocks] = text.split(/\n{2,}/).filter(Boolean);
  if (head?.trim() !== "WEBVTT") throw new Error(`it begins with ${head}`);
  return blocks.map((block) => {
    const [times = "", ...lines] = block.replace(/\n$/, "").split("\n");
    const match = TIMES.exec(times);
    if (!match) throw new Error(`these are no times: ${times}`);
    const n = match.slice(1).map(Number) as [number, number, number, number, number, number, number, number];
    const body = lines.join("\n");
    if (body.includes("-->")) throw new Error("an arrow in a cue's text");
    const voice = /^<v ([^>\n]*)>/.exec(body);
    const rest = body.slice(voice?.[0].length ?? 0);
    if (/[<>]|&(?!(amp|lt|gt);)/.test(rest)) throw new Error(`not escaped: ${rest}`);
    return {
      start: n[0] * 3600 + n[1] * 60 + n[2] + n[3] / 1000,
      end: n[4] * 3600 + n[5] * 60 + n[6] + n[7] / 1000,
      voice: plain(voice?.[1] ?? ""),
      lines: rest.split("\n").map(plain),
    };
  });
}

function plain(text: string): string {
  return text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
}
