// A list of rows of which only those in sight are in the document. It keeps its place when rows are added at the end and
// dropped from the start, and it can stick to the end.
import { type TemplateResult, html, nothing } from "lit";
import { repeat } from "lit/directives/repeat.js";

import { FrameElement, newId } from "./element.js";

export interface Row {
  /** The number of the row in its list. It stays the same when rows are dropped. */
  n: number;
  /** The height of the row in pixels when it is wrapped, and the width for which that holds. */
  height?: number;
  width?: number;
}

export interface RowView {
  content: TemplateResult;
  classes: string;
}

const LINE_HEIGHT = 20;
/** Rows that are drawn above and below those in sight. */
const SPARE = 10;
/** How long after an input of a person a list moves because of it, and how much longer after each move. */
const PERSONAL_MS = 1_500;
const MOMENTUM_MS = 300;

export class List extends FrameElement {
  static override properties = {
    rows: { attribute: false },
    view: { attribute: false },
    estimate: { attribute: false },
    wrap: { attribute: false },
    stick: { attribute: false },
    selected: { attribute: false },
    label: { attribute: false },
  };

  /** The rows, with numbers that follow each other. The owner changes the array and calls `requestUpdate`. */
  rows: Row[] = [];
  view: (row: Row) => RowView = () => ({ content: html``, classes: "" });
  /** The number of lines that a wrapped row takes in this number of pixels. It may be wrong: rows in sight are measured. */
  estimate: (row: Row, width: number) => number = () => 1;
  wrap = false;
  /** Stay at the end as rows are added. */
  stick = false;
  selected: number | undefined;
  label = "";

  readonly #id = newId("list");
  #first = 0;
  #tops = new Float64Array(0);
  /** The row at the upper edge, and how much of it is above. */
  #anchor = { n: 0, above: 0 };
  #expected = 0;
  #widest = 0;
  #personalUntil = 0;
  #resize = new ResizeObserver(() => this.requestUpdate());

  /** The numbers of the first and the last row in sight. */
  get range(): [number, number] {
    const { scrollTop, clientHeight } = this.#scroller;
    return [this.#first + this.#at(scrollTop), this.#first + this.#at(scrollTop + clientHeight - 1)];
  }

  get #scroller(): HTMLElement {
    return this.querySelector<HTMLElement>(".scroller") as HTMLElement;
  }

  override connectedCallback(): void {
    super.connectedCallback();
    this.updateComplete.then(() => this.isConnected && this.#resize.observe(this.#scroller));
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#resize.disconnect();
  }

  override focus(): void {
    this.#scroller.focus();
  }

  /** Puts a row at the upper edge, or in the middle. */
  show(n: number, place: "start" | "middle" | "nearest" = "start"): void {
    this.#measure();
    const index = Math.min(Math.max(n - this.#first, 0), Math.max(this.rows.length - 1, 0));
    const scroller = this.#scroller;
    const [top, bottom] = [this.#top(index), this.#top(index + 1)];
    const space = scroller.clientHeight;
    let goal = top;
    if (place === "middle") goal = top - space / 2;
    if (place === "nearest") {
      goal = scroller.scrollTop;
      if (bottom > goal + space) goal = bottom - space;
      if (top < goal) goal = top;
    }
    this.#anchorAt(Math.max(goal, 0));
    this.requestUpdate();
  }

  /** The tops of all rows; the last one is the height of the list. */
  #measure(): void {
    const { rows } = this;
    this.#first = rows[0]?.n ?? 0;
    if (!this.wrap) return;
    const width = this.#scroller.clientWidth;
    if (this.#tops.length < rows.length + 1) this.#tops = new Float64Array(Math.ceil(rows.length * 1.5) + 64);
    let top = 0;
    for (const [index, row] of rows.entries()) {
      this.#tops[index] = top;
      if (row.width !== width || row.height === undefined) {
        row.height = this.estimate(row, width) * LINE_HEIGHT;
        row.width = width;
      }
      top += row.height;
    }
    this.#tops[rows.length] = top;
  }

  #top(index: number): number {
    return this.wrap ? (this.#tops[index] ?? 0) : index * LINE_HEIGHT;
  }

  /** The index of the row at a height. */
  #at(height: number): number {
    const last = Math.max(this.rows.length - 1, 0);
    if (!this.wrap) return Math.min(Math.max(Math.floor(height / LINE_HEIGHT), 0), last);
    let [low, high] = [0, last];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#top(middle) <= height) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #anchorAt(height: number): void {
    const index = this.#at(height);
    this.#anchor = { n: this.#first + index, above: height - this.#top(index) };
  }

  protected override render() {
    const scroller = this.querySelector<HTMLElement>(".scroller");
    const rows = scroller ? this.#window(scroller) : [];
    const active = this.rows[(this.selected ?? -1) - this.#first] === undefined ? nothing : this.#rowId(this.selected);
    return html`
      <div class="scroller ${this.wrap ? "wrap" : ""}" tabindex="0" role="listbox" aria-label=${this.label}
        aria-activedescendant=${active} @wheel=${this.#touched} @touchmove=${this.#touched} @pointerdown=${this.#touched}
        @scroll=${this.#scrolled} @keydown=${this.#key} @click=${this.#click}
        @dblclick=${() => this.#send("open")}>
        <div class="canvas" role="presentation">
          <div class="window" role="presentation">
            ${repeat(rows, (row) => row.n, (row) => this.#row(row))}
          </div>
        </div>
      </div>`;
  }

  #rowId(n: number | undefined): string {
    return `${this.#id}-${n}`;
  }

  #row(row: Row): TemplateResult {
    const { content, classes } = this.view(row);
    const isSelected = row.n === this.selected;
    return html`<div class="row ${classes}" id=${this.#rowId(row.n)} role="option" aria-selected=${isSelected}
      aria-posinset=${row.n - this.#first + 1} aria-setsize=${this.rows.length}>${content}</div>`;
  }

  /** The rows to draw. */
  #window(scroller: HTMLElement): Row[] {
    this.#measure();
    const { rows } = this;
    const space = scroller.clientHeight;
    const end = this.#top(rows.length);
    let top = this.#top(this.#anchor.n - this.#first) + this.#anchor.above;
    if (this.#anchor.n < this.#first) top = 0;
    const last = Math.max(end - space, 0);
    if (this.stick || top > last) top = last;
    this.#anchorAt(top);
    this.#expected = top;
    const from = Math.max(this.#at(top) - SPARE, 0);
    return rows.slice(from, this.#at(top + space) + SPARE + 1);
  }

  protected override firstUpdated(): void {
    this.requestUpdate();
  }

  protected override updated(): void {
    const scroller = this.#scroller;
    const [canvas, window] = [scroller.firstElementChild as HTMLElement, scroller.firstElementChild?.firstElementChild as HTMLElement];
    const drawn = [...window.children] as HTMLElement[];
    const from = drawn[0] ? Number(drawn[0].id.slice(this.#id.length + 1)) - this.#first : 0;
    canvas.style.height = `${this.#top(this.rows.length)}px`;
    window.style.transform = `translateY(${this.#top(from)}px)`;
    if (this.wrap) {
      this.#widest = 0;
      canvas.style.minWidth = "";
      // Rows in sight are measured, and the place is kept by the row at the upper edge.
      let isWrong = false;
      for (const [index, element] of drawn.entries()) {
        const row = this.rows[from + index];
        if (row === undefined || row.height === element.offsetHeight) continue;
        row.height = element.offsetHeight;
        isWrong = true;
      }
      if (isWrong) queueMicrotask(() => this.requestUpdate());
    } else if (this.rows.length === 0) {
      this.#widest = 0;
      canvas.style.minWidth = "";
    } else if (scroller.scrollWidth > Math.max(this.#widest, scroller.clientWidth)) {
      // The width stays when a wide row leaves, so that the rows do not jump sideways.
      this.#widest = scroller.scrollWidth;
      canvas.style.minWidth = `${this.#widest}px`;
    }
    if (Math.abs(scroller.scrollTop - this.#expected) < 1) return;
    scroller.scrollTop = this.#expected;
    // A browser rounds, and does not go beyond what it has laid out.
    this.#expected = scroller.scrollTop;
  }

  /** A person moves the list, or begins to. */
  #touched(): void {
    this.#personalUntil = performance.now() + PERSONAL_MS;
  }

  #scrolled(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    if (Math.abs(scrollTop - this.#expected) < 2) return;
    const now = performance.now();
    // Where the list sticks to its end, only a person moves it away, and not a change of its height.
    if (this.stick && now > this.#personalUntil) return this.requestUpdate();
    this.#personalUntil = Math.max(this.#personalUntil, now + MOMENTUM_MS);
    this.#expected = scrollTop;
    this.#anchorAt(scrollTop);
    const isAtEnd = scrollTop >= scrollHeight - clientHeight - 2;
    if (isAtEnd !== this.stick) this.#send(isAtEnd ? "reach-end" : "leave-end");
    this.#send("move");
    this.requestUpdate();
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [first, last] = [this.#first, this.#first + this.rows.length - 1];
    if (last < first) return;
    const page = Math.max(Math.floor(this.#scroller.clientHeight / LINE_HEIGHT) - 2, 1);
    const [top, bottom] = this.range;
    const at = this.selected;
    const moves: Record<string, number> = {
      ArrowDown: at === undefined ? top : at + 1,
      ArrowUp: at === undefined ? bottom : at - 1,
      PageDown: (at ?? top) + page,
      PageUp: (at ?? bottom) - page,
      Home: first,
      End: last,
    };
    const goal = moves[event.key];
    if (goal !== undefined) {
      this.select(Math.min(Math.max(goal, first), last));
      if (event.key === "End") this.#send("reach-end");
    } else if (event.key === "Enter") {
      this.#send("open");
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Selects a row and shows it. */
  select(n: number): void {
    this.selected = n;
    this.#send("pick");
    this.show(n, "nearest");
  }

  #click(event: MouseEvent): void {
    const row = (event.target as HTMLElement).closest<HTMLElement>(".row");
    // A click that ends a selection of text keeps that.
    if (!row || !this.contains(row) || (window.getSelection()?.toString() ?? "") !== "") return;
    this.selected = Number(row.id.slice(this.#id.length + 1));
    this.#send("pick");
  }

  #send(name: string): void {
    this.dispatchEvent(new CustomEvent(name));
  }
}

customElements.define("p-list", List);
