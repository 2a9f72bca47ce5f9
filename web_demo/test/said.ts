/** Caption messages for tests. */

import type { Said } from "../src/messages";

export function said(
  type: "interim" | "final",
  segment: string,
  text: string,
  more: Partial<Said> = {},
): Said {
  return { type, speaker: "a", name: "Anna", segment, text, start: 0, end: 1, at: 1000, sent: 1001, ...more };
}
