// The rows in which a text was found, kept as rows come and go.
import type { Rows } from "./rows.js";
import { finder } from "./text.js";

export class Finds<T> {
  text = "";
  pattern: RegExp | undefined;
  #found: number[] = [];
  #next = 0;

  constructor(
    private readonly rows: Rows<T>,
    private readonly textOf: (value: T) => string,
  ) {}

  get isEmpty(): boolean {
    return this.pattern === undefined;
  }

  get total(): number {
    return this.#found.length;
  }

  set(text: string): void {
    this.text = text;
    this.pattern = finder(text);
    this.#found = [];
    this.#next = 0;
    this.update();
  }

  /** Looks at the rows that came since, and forgets those that were dropped. */
  update(): void {
    const { pattern, rows } = this;
    if (pattern === undefined) return;
    if (rows.next < this.#next) {
      this.#found = [];
      this.#next = 0;
    }
    const { first, list } = rows;
    for (let index = Math.max(this.#next - first, 0); index < list.length; index += 1) {
      const row = list[index];
      if (row === undefined) break;
      pattern.lastIndex = 0;
      if (pattern.test(this.textOf(row.value))) this.#found.push(row.n);
    }
    this.#next = rows.next;
    const kept = this.#found.findIndex((n) => n >= first);
    if (kept !== 0) this.#found = kept < 0 ? [] : this.#found.slice(kept);
  }

  /** The position of a row among the finds, from 1. */
  position(n: number | undefined): number | undefined {
    const at = n === undefined ? -1 : this.#found.indexOf(n);
    return at < 0 ? undefined : at + 1;
  }

  /** The next find after a row, or before it; at the end it begins again. */
  next(n: number, step: 1 | -1): number | undefined {
    if (step > 0) return this.#found.find((at) => at > n) ?? this.#found[0];
    return this.#found.findLast((at) => at < n) ?? this.#found.at(-1);
  }
}
