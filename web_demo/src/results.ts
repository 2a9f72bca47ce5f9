/** What /v1/listen says (Deepgram's live API) as caption messages. */

import type { Said, Word } from "./messages";

export interface Results {
  type: "Results";
  start: number;
  duration: number;
  is_final: boolean;
  channel: { alternatives: { transcript: string; words: ResultWord[] }[] };
}

interface ResultWord {
  word: string;
  punctuated_word?: string;
  start: number;
  end: number;
  confidence: number;
}

/** Of one connection. */
export class ResultReader {
  private segment = 0;
  private last: Said | undefined;
  private readonly id: string;
  private readonly name: string;
  private readonly clock: (seconds: number) => number;

  /** `id`: of the connection; `clock`: Unix time in seconds of a time in its audio. */
  constructor(id: string, name: string, clock: (seconds: number) => number) {
    this.id = id;
    this.name = name;
    this.clock = clock;
  }

  /** undefined: it says nothing. */
  read(results: Results): Said | undefined {
    const said = this.said(results);
    if (results.is_final) {
      this.segment++;
      this.last = undefined;
    } else {
      this.last = said;
    }
    return said;
  }

  /** The connection has broken: what was shown last is all that will come of this segment. */
  broken(): Said | undefined {
    const last = this.last;
    this.last = undefined;
    return last && { ...last, type: "final", reason: "end" };
  }

  private said(results: Results): Said | undefined {
    const best = results.channel.alternatives[0];
    // An empty final takes an interim away that turned out to be nothing.
    if (!best || (!best.transcript && !this.last)) return undefined;
    const words = best.words.map(wordOf);
    const start = words[0]?.start ?? results.start;
    const end = words.at(-1)?.end ?? results.start + results.duration;
    return {
      type: results.is_final ? "final" : "interim",
      speaker: "microphone",
      name: this.name,
      segment: `${this.id}-${this.segment}`,
      text: best.transcript,
      start,
      end,
      at: this.clock(start),
      words,
    };
  }
}

function wordOf(word: ResultWord): Word {
  return {
    text: word.punctuated_word ?? word.word,
    start: word.start,
    end: word.end,
    confidence: word.confidence,
  };
}
