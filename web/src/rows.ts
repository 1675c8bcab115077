// The rows that a pane keeps: a bounded number of the newest, and for those that were dropped, the places from which they can
// be read again.
import type { Row } from "./list.js";

/** The rows that are kept. More than a person scrolls through, and about 10 MB of usual lines. */
export const MAX_ROWS = 20_000;
/** The characters that are kept, for long lines. */
const MAX_CHARACTERS = 16_000_000;
/** Rows are dropped in groups, because the others move. */
const GROUP = 1_000;
/** Rows between two places. */
const SPACING = 200;
const MAX_MARKS = 400;

/** The state of the stream after the row with this number. */
export interface Mark {
  n: number;
  state: string;
}

export class Rows<T> {
  readonly list: (Row & { value: T; size: number })[] = [];
  #marks: Mark[] = [];
  #next = 0;
  #size = 0;
  #spacing = SPACING;

  /** The number that the next row gets, which is the number of rows so far. */
  get next(): number {
    return this.#next;
  }

  /** The number of the first row that is kept. */
  get first(): number {
    return this.list[0]?.n ?? this.#next;
  }

  get(n: number): T | undefined {
    return this.list[n - this.first]?.value;
  }

  clear(): void {
    this.list.length = 0;
    this.#marks = [];
    this.#size = 0;
    this.#next = 0;
    this.#spacing = SPACING;
  }

  push(value: T, size: number): number {
    const n = this.#next;
    this.#next += 1;
    this.#size += size;
    this.list.push({ n, value, size });
    const isFull = this.list.length >= MAX_ROWS + GROUP || this.#size > MAX_CHARACTERS;
    if (isFull) this.#drop();
    return n;
  }

  /** Whether a mark is due after the last row. */
  get needsMark(): boolean {
    const last = this.#marks.at(-1);
    return last === undefined || this.#next - 1 - last.n >= this.#spacing;
  }

  /** Keeps the state of the stream after the last row. */
  mark(state: string): void {
    this.#marks.push({ n: this.#next - 1, state });
    if (this.#marks.length <= MAX_MARKS) return;
    // Half of them, twice as far from each other: the way back over many rows is coarser.
    this.#spacing *= 2;
    this.#marks = this.#marks.filter((_, index) => index % 2 === 0);
  }

  /** The last mark before a row. */
  markBefore(n: number): Mark | undefined {
    return this.#marks.findLast((mark) => mark.n < n);
  }

  #drop(): void {
    let dropped = Math.max(this.list.length - MAX_ROWS, 0);
    let size = this.#size;
    for (const [index, row] of this.list.entries()) {
      if (index >= dropped && size <= MAX_CHARACTERS * 0.9) break;
      size -= row.size;
      dropped = Math.max(dropped, index + 1);
    }
    // The newest row stays, whatever its size.
    dropped = Math.min(dropped, this.list.length - 1);
    for (const row of this.list.splice(0, dropped)) this.#size -= row.size;
  }
}
