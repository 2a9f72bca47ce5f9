/** Which of the palette's colours a speaker has: by a hash of the name, so that it is the same the next time. */

/** Colours of src/styles/tokens.css: --speaker-0 and on. */
export const COLOURS = 8;

export class Colours {
  private readonly taken = new Map<string, number>();

  /** The name's own colour, or the next that nobody has while there is one. */
  of(who: string): number {
    const known = this.taken.get(who);
    if (known !== undefined) return known;
    const used = new Set(this.taken.values());
    let colour = hash(who) % COLOURS;
    for (let tried = 1; tried < COLOURS && used.has(colour); tried++) colour = (colour + 1) % COLOURS;
    if (used.has(colour)) colour = hash(who) % COLOURS;
    this.taken.set(who, colour);
    return colour;
  }
}

/** FNV-1a, 32 bits, of the UTF-16 units. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}
