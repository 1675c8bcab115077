// What the panes of lines and of messages share: a list that follows its stream or keeps its place, a search in what is loaded,
// and an address that opens on the row in hand.
import { html, nothing } from "lit";

import "./list.js";
import { announce } from "./element.js";
import { Finds } from "./finds.js";
import type { List } from "./list.js";
import { Pane, StateAnnouncer } from "./pane.js";
import type { Reader } from "./reader.js";
import { MAX_ROWS, type Rows } from "./rows.js";
import { noticeError } from "./session.js";
import { count, format } from "./text.js";
import type { View } from "./view.js";

/** How long the list has to be quiet before the address says where it is. */
const SETTLE_MS = 250;

type Params = Record<string, string | undefined>;

/** A stream and the rows that it has made. */
export interface Feed<T> {
  readonly rows: Rows<T>;
  readonly reader: Pick<Reader<unknown>, "phase" | "error" | "retryAt" | "stop" | "wake">;
  readonly isCaughtUp: boolean;
  /** Read on, whatever is in sight. */
  follows: boolean;
  /** The number of the last row in sight. */
  lastInSight: number;
  start(view: View): void;
}

export abstract class RowsPane<T extends { kind: string }> extends Pane {
  static override properties = { ...Pane.properties, selected: { state: true }, isOpen: { state: true } };

  selected: number | undefined;
  /** The details of the selected row are shown. */
  isOpen = false;
  protected abstract readonly feed: Feed<T>;
  #kept: Finds<T> | undefined;
  readonly #announcer = new StateAnnouncer(() => this.titleText());
  #selectsFirst = false;
  #settle: ReturnType<typeof setTimeout> | undefined;

  /** What the pane shows, for a screen reader. */
  protected abstract titleText(): string;
  /** The text of a row in which a search looks. */
  protected abstract textOf(value: T): string;
  /** The parameters of an address that opens on a row. */
  protected abstract placeParams(n: number): Params | undefined;
  /** The parameters of an address that follows. */
  protected abstract followParams(): Params;
  /** Keys beside those that both panes have. */
  protected keys(): Record<string, () => void> {
    return {};
  }

  protected get finds(): Finds<T> {
    return (this.#kept ??= new Finds<T>(this.feed.rows, (value) => this.textOf(value)));
  }

  protected get follows(): boolean {
    return this.view.params["follow"] !== undefined;
  }

  protected get list(): List | null {
    return this.querySelector("p-list");
  }

  protected startFeed(hasSelected: boolean): void {
    this.selected = undefined;
    this.#selectsFirst = hasSelected;
    this.isOpen = false;
    this.finds.set(this.view.params["find"] ?? "");
    this.feed.follows = this.follows;
    this.feed.start(this.view);
  }

  protected override close(): void {
    this.feed.reader.stop();
    clearTimeout(this.#settle);
  }

  protected changed(): void {
    const { reader } = this.feed;
    this.#announcer.announce(reader.phase);
    if (reader.phase === "failed") noticeError(reader.error);
    this.finds.update();
    if (this.#selectsFirst) this.#selectFirst();
    this.list?.requestUpdate();
    this.requestUpdate();
  }

  /** Selects the item that the address names: the first one, which notes may precede. */
  #selectFirst(): void {
    const first = this.feed.rows.list.find(({ value }) => value.kind !== "note");
    if (first === undefined) return;
    this.selected = first.n;
    this.#selectsFirst = false;
  }

  protected followToggle() {
    return html`<label class="toggle"><input type="checkbox" .checked=${this.follows} @change=${this.toggleFollow}>Follow</label>`;
  }

  protected search(things: string) {
    const { finds } = this;
    const at = finds.position(this.selected);
    const place = at === undefined ? "" : `${format(at)} of `;
    const result = finds.isEmpty ? "" : finds.total === 0 ? "none loaded" : `${place}${format(finds.total)} loaded`;
    const label = `Find in loaded ${things}`;
    return html`
      <div class="search" role="search">
      <input class="find" type="search" placeholder=${label} aria-label=${label} .value=${finds.text} @input=${this.#find} @keydown=${this.#findKey}>
      <output class="muted found">${result}</output>
      <button type="button" class="quiet icon" aria-label="Previous match" ?disabled=${finds.total === 0} @click=${() => this.#findNext(-1)}>↑</button>
      <button type="button" class="quiet icon" aria-label="Next match" ?disabled=${finds.total === 0} @click=${() => this.#findNext(1)}>↓</button></div>`;
  }

  /** What the page has dropped, with the way back to it. */
  protected dropped(things: string, back: (() => void) | undefined) {
    const { first } = this.feed.rows;
    if (first === 0) return nothing;
    return html`<p class="notice calm">${format(first)} earlier rows left this list, which keeps about ${format(MAX_ROWS)}.
      ${back ? html`<button type="button" @click=${back}>Back to earlier ${things}</button>` : nothing}</p>`;
  }

  protected readCount(read: number, thing: string): string {
    const { rows } = this.feed;
    return `${count(read, thing)} read${rows.first > 0 ? `, ${format(rows.list.length)} kept` : ""}`;
  }

  protected rowsList(label: string, properties: Pick<List, "view"> & Partial<Pick<List, "estimate" | "wrap">>, classes = "") {
    const { view, estimate = () => 1, wrap = false } = properties;
    return html`<p-list class=${classes} .rows=${this.feed.rows.list} .view=${view} .estimate=${estimate} .wrap=${wrap} .stick=${this.follows}
      .selected=${this.selected} .label=${label} @pick=${this.#pick} @open=${this.toggleDetails} @move=${this.#moved}
      @reach-end=${() => this.#reachEnd(false)} @leave-end=${() => this.leaveEnd()} @keydown=${this.#key}></p-list>`;
  }

  protected toggleFollow(): void {
    if (this.follows) this.leaveEnd();
    else this.#reachEnd(true);
  }

  /** Follows again: if the person asks for it, or has reached the end of the stream. */
  #reachEnd(isAsked: boolean): void {
    if (!isAsked && !this.feed.isCaughtUp) return;
    this.feed.follows = true;
    clearTimeout(this.#settle);
    this.note({ ...this.followParams(), follow: "" });
    this.feed.reader.wake();
    this.requestUpdate();
  }

  protected leaveEnd(): void {
    this.feed.follows = false;
    this.note({ follow: undefined });
    this.#moved();
    this.requestUpdate();
  }

  #pick(): void {
    this.selected = this.list?.selected;
    if (this.follows) this.leaveEnd();
    this.#moved();
  }

  #moved(): void {
    const { list } = this;
    if (list) this.feed.lastInSight = list.range[1];
    this.feed.reader.wake();
    clearTimeout(this.#settle);
    this.#settle = setTimeout(() => this.#settled(), SETTLE_MS);
  }

  /** The row that the address opens on: the selected one if it is in sight or open, or the first in sight. */
  protected rowInHand(): number | undefined {
    const { list, selected } = this;
    if (!list) return undefined;
    const [first, last] = list.range;
    if (selected !== undefined && (this.isOpen || (selected >= first && selected <= last))) return selected;
    return first;
  }

  #settled(): void {
    const n = this.rowInHand();
    if (n === undefined || this.follows) return;
    const params = this.placeParams(n);
    if (params) this.note(params);
  }

  protected toggleDetails(): void {
    const { list, selected } = this;
    this.isOpen = !this.isOpen && selected !== undefined;
    if (!this.isOpen) list?.focus();
    // The details take room from the list, and the row must stay in sight.
    else void this.updateComplete.then(() => selected !== undefined && list?.show(selected, "nearest"));
  }

  #find(event: Event): void {
    const text = (event.target as HTMLInputElement).value;
    this.finds.set(text);
    this.note({ find: text === "" ? undefined : text });
    this.list?.requestUpdate();
    this.requestUpdate();
  }

  #findKey(event: KeyboardEvent): void {
    if (event.key === "Enter") this.#findNext(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") this.list?.focus();
    else return;
    event.preventDefault();
  }

  #findNext(step: 1 | -1): void {
    const n = this.finds.next(this.selected ?? this.list?.range[0] ?? 0, step);
    if (n === undefined) return;
    this.list?.select(n);
    const at = this.finds.position(n);
    announce(`match ${at} of ${this.finds.total}`);
  }

  /** Keys without a modifier work only in the list, where nothing is typed. */
  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const actions: Record<string, () => void> = {
      f: () => this.toggleFollow(),
      "/": () => this.querySelector<HTMLInputElement>(".find")?.focus(),
      n: () => this.#findNext(1),
      N: () => this.#findNext(-1),
      Escape: () => this.isOpen && this.toggleDetails(),
      ...this.keys(),
    };
    const action = actions[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  }
}
