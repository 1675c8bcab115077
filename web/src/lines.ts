// A pane with the lines of one file.
import { html, nothing } from "lit";

import "./copy.js";
import "./files.js";
import { type Call, python } from "./copy.js";
import { announce } from "./element.js";
import { LineFeed, type LineRow, type NoteRow, type Place, requestOf } from "./line-feed.js";
import type { Row, RowView } from "./list.js";
import { stateLabel, stateNotice } from "./pane.js";
import { RowsPane } from "./rows-pane.js";
import { MAX_SHOWN, count, format, showText, visible } from "./text.js";
import { type View, numberParam, withParams } from "./view.js";

type Value = LineRow | NoteRow;

/** The lines that a file shows at first. */
const FIRST_LINES = "200";
/** The width of the gutter in characters, as the style sheet has it. */
const GUTTER = 14;

const STARTS = { last: "Last lines", line: "Line number", offset: "Byte offset" } as const;
const CLEARED = { cursor: undefined, after: undefined, last: undefined, line: undefined, offset: undefined };

export class Lines extends RowsPane<Value> {
  static override properties = { ...RowsPane.properties, startKind: { state: true } };

  startKind: keyof typeof STARTS = "last";
  protected readonly feed = new LineFeed(() => this.changed());
  /** The line that the next feed is to show. */
  #goal: Place | undefined;
  /** The width of a character. */
  #character = 0;

  protected override titleText(): string {
    return this.view.path;
  }

  protected override textOf({ text }: Value): string {
    return text;
  }

  protected override placeParams(n: number) {
    const place = this.feed.placeOf(n);
    return place && { ...CLEARED, cursor: place.cursor, after: place.after };
  }

  /** An address that follows begins with the last lines: the cursor of its start is long gone. */
  protected override followParams() {
    return { ...CLEARED, last: this.view.params["last"] ?? FIRST_LINES };
  }

  protected override keys() {
    return { w: () => this.#toggleWrap() };
  }

  protected override open(): void {
    const { view } = this;
    if (view.path === "") return this.close();
    for (const kind of ["last", "line", "offset"] as const) if (view.params[kind] !== undefined) this.startKind = kind;
    this.startFeed(view.params["cursor"] !== undefined && this.#goal === undefined);
    this.feed.goal = this.#goal;
    this.#goal = undefined;
  }

  protected override changed(): void {
    const reached = this.feed.takeGoal();
    if (reached !== undefined) {
      this.selected = reached;
      this.list?.show(reached, "middle");
    }
    super.changed();
  }

  protected override render() {
    const { view } = this;
    if (view.path === "") return html`<p-files .go=${(path: string) => this.#openFile(path)}></p-files>`;
    const { reader, isCaughtUp } = this.feed;
    const wraps = view.params["wrap"] !== undefined;
    return html`
      <header class="bar">
        <button type="button" class="quiet" @click=${() => this.go({ kind: "lines", path: "", params: {} })}>Files</button>
        <h2 class="path" title=${view.path}>${view.path}</h2>
        ${stateLabel(reader, isCaughtUp)}
        <span class="space"></span>
        <p-copy .call=${() => this.#call()}></p-copy>
      </header>
      <form class="bar tools" @submit=${this.#jump}>
        <select aria-label="Start at" .value=${this.startKind} @change=${(event: Event) => this.#pickStart(event)}>
          ${Object.entries(STARTS).map(([kind, label]) => html`<option value=${kind} ?selected=${kind === this.startKind}>${label}</option>`)}
        </select>
        <input name="place" type="number" min="0" required aria-label=${STARTS[this.startKind]} .value=${this.#place()}>
        <button>Go</button>
        ${this.followToggle()}
        <label class="toggle"><input type="checkbox" .checked=${wraps} @change=${this.#toggleWrap}>Wrap</label>
        <span class="space"></span>
        ${this.search("lines")}
      </form>
      ${stateNotice(reader, () => this.feed.start(this.view))}
      ${this.#earlier()}
      ${this.rowsList(`Lines of ${view.path}`, { view: this.#row, estimate: this.#estimate, wrap: wraps })}
      ${this.#details()}
      <footer class="bar status muted">
        <span>${this.readCount(this.feed.lines, "line")}</span>
        <span class="space"></span>
        <span class="keys">↑ ↓ select · Enter details · f follow · w wrap · / find · n next</span>
      </footer>`;
  }

  #earlier() {
    const earlier = this.feed.earlier();
    if (this.feed.rows.first > 0) return this.dropped("lines", earlier && (() => this.#back()));
    if (earlier === undefined || this.follows) return nothing;
    return html`<p class="notice calm">The file has earlier lines. <button type="button" @click=${this.#back}>Read them</button></p>`;
  }

  #details() {
    const row = this.selected === undefined ? undefined : this.feed.rows.get(this.selected);
    if (!this.isOpen || row?.kind !== "line") return nothing;
    return html`
      <section class="details" aria-label="The line">
        <header class="bar">
          <dl>
            ${row.number === undefined ? nothing : html`<div><dt>line</dt><dd>${format(row.number)}</dd></div>`}
            <div><dt>byte</dt><dd>${format(row.offset)}</dd></div>
            <div><dt>length</dt><dd>${count(row.text.length, "character")}</dd></div>
            ${row.flags === "" ? nothing : html`<div><dt>note</dt><dd>${row.flags}</dd></div>`}
          </dl>
          <span class="space"></span>
          <button type="button" class="quiet" @click=${() => this.#copyText(row.text)}>Copy text</button>
          <button type="button" class="quiet" aria-label="Close details" @click=${this.toggleDetails}>Close</button>
        </header>
        <pre tabindex="0" aria-label="Text of the line">${visible(row.text)}</pre>
      </section>`;
  }

  readonly #row = (row: Row): RowView => {
    const { value } = row as Row & { value: Value };
    if (value.kind === "note") return { content: html`<span class="gutter"></span><span>${value.text}</span>`, classes: `note ${value.tone}` };
    const place = value.number ?? value.offset;
    const content = html`<span class="gutter" title=${value.number === undefined ? "byte offset" : "line number"}>${
      value.number === undefined ? "@" : ""}${place}</span><span class="text">${showText(value.text, this.finds.pattern)}${
      value.flags === "" ? nothing : html`<span class="flag">${value.flags}</span>`}</span>`;
    return { content, classes: levelOf(value.text) };
  };

  readonly #estimate = (row: Row, width: number): number => {
    this.#character ||= measureCharacter(this);
    const columns = Math.max(Math.floor(width / this.#character) - GUTTER, 10);
    const { text } = (row as Row & { value: Value }).value;
    return Math.max(Math.ceil(Math.min(text.length, MAX_SHOWN) / columns), 1);
  };

  #openFile(path: string): void {
    this.go({ kind: "lines", path, params: { last: FIRST_LINES, follow: "" } });
  }

  #place(): string {
    return String(numberParam(this.view, this.startKind) ?? (this.startKind === "last" ? FIRST_LINES : ""));
  }

  #pickStart(event: Event): void {
    this.startKind = (event.target as HTMLSelectElement).value as keyof typeof STARTS;
  }

  #jump(event: SubmitEvent): void {
    event.preventDefault();
    const place = String(new FormData(event.target as HTMLFormElement).get("place") ?? "");
    const follow = this.startKind === "last" ? "" : undefined;
    this.go(withParams(this.view, { ...CLEARED, [this.startKind]: place, follow }));
  }

  #toggleWrap(): void {
    this.note({ wrap: this.view.params["wrap"] === undefined ? "" : undefined });
    this.requestUpdate();
  }

  #back(): void {
    const earlier = this.feed.earlier();
    if (earlier === undefined) return;
    const view = withParams(this.view, { ...earlier.params, follow: undefined });
    this.#goal = earlier.goal;
    this.go(view);
    announce("reads earlier lines");
  }

  async #copyText(text: string): Promise<void> {
    await navigator.clipboard.writeText(text).then(() => announce("copied"), () => announce("the browser does not allow to copy"));
  }

  async #call(): Promise<Call> {
    const { view } = this;
    const n = this.rowInHand();
    const cursor = this.follows || n === undefined ? undefined : await this.feed.exactCursor(n).catch(() => undefined);
    return callOf(view, cursor, this.follows);
  }
}

/** A view as a call. */
export function callOf(view: View, cursor: string | undefined, follow: boolean): Call {
  const { start } = requestOf(view);
  const request: Record<string, unknown> = { path: view.path };
  const command = ["lines", view.path];
  const args = [python(view.path)];
  if (cursor !== undefined) {
    request["cursor"] = cursor;
    command.push("--cursor", cursor);
    args.push(`state=${python(cursor)}`);
  } else if (start.case !== undefined) {
    const value = Number(start.value);
    request[start.case] = start.case === "last" ? value : String(value);
    command.push({ last: "-n", fromLine: "--from-line", fromOffset: "--from-offset" }[start.case], String(value));
    args.push(`${{ last: "last", fromLine: "from_line", fromOffset: "from_offset" }[start.case]}=${value}`);
  }
  if (follow) {
    request["follow"] = true;
    command.push("-f");
    args.push("follow=True");
  }
  return {
    method: "LineService/ReadLines",
    door: { path: `/v1/lines/${view.path.split("/").map(encodeURIComponent).join("/")}`, field: "path" },
    request,
    command,
    python: `read_lines(${args.join(", ")})`,
    pythonItem: "item.text",
  };
}

/** The level that most logs have near the start of a line, as a colour of its number. */
function levelOf(text: string): string {
  const level = /\b(?:(ERROR|FATAL|CRITICAL|PANIC|error|fatal)|(WARN|WARNING|warn|warning))\b/.exec(text.slice(0, 120));
  return level?.[1] ? "error" : level?.[2] ? "warn" : "";
}

function measureCharacter(place: HTMLElement): number {
  const probe = document.createElement("span");
  probe.className = "probe";
  probe.textContent = "0".repeat(100);
  place.append(probe);
  const width = probe.getBoundingClientRect().width / 100;
  probe.remove();
  return width || 8;
}

customElements.define("p-lines", Lines);
