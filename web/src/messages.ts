// A pane with the messages of topics.
import type { TopicInfo } from "perennial-client/web";
import { html, nothing } from "lit";

import "./copy.js";
import "./payload.js";
import "./plot.js";
import "./publish.js";
import { type Call, python } from "./copy.js";
import type { Row, RowView } from "./list.js";
import { MessageFeed, type MessageRow, type NoteRow, SECONDS, requestOf, topicsOf } from "./message-feed.js";
import { stateLabel, stateNotice } from "./pane.js";
import { RowsPane } from "./rows-pane.js";
import { client, noticeError } from "./session.js";
import { clock, format, showText, timestamp } from "./text.js";
import { type View, numberParam, withParams } from "./view.js";

type Value = MessageRow | NoteRow;

const FIRST_MESSAGES = "100";
const CLEARED = { seq: undefined, last: undefined, earliest: undefined, state: undefined, time: undefined };
const STARTS = {
  last: "Last messages",
  earliest: "Oldest",
  now: "From now on",
  state: "Last of each topic",
  seq: "Sequence",
  time: "Time",
} as const;
type Start = keyof typeof STARTS;

/** How far back a jump to earlier messages goes, in sequences. */
const BACK = 2_000;

export class Messages extends RowsPane<Value> {
  static override properties = { ...RowsPane.properties, startKind: { state: true }, topics: { state: true } };

  startKind: Start = "last";
  topics: TopicInfo[] = [];
  protected readonly feed = new MessageFeed(() => this.changed());

  protected override titleText(): string {
    return "messages";
  }

  protected override textOf(row: Value): string {
    return row.kind === "note" ? row.text : `${row.message.topic} ${row.message.key ?? ""} ${row.text}`;
  }

  /** A sequence is never used again, so it is the place of a message for ever. */
  protected override placeParams(n: number) {
    const sequence = this.feed.sequenceAt(n);
    return sequence === undefined ? undefined : { ...CLEARED, seq: String(sequence) };
  }

  protected override followParams() {
    const hasStart = Object.keys(CLEARED).some((name) => name !== "seq" && this.view.params[name] !== undefined);
    return { seq: undefined, ...(hasStart ? {} : { last: FIRST_MESSAGES }) };
  }

  protected override open(): void {
    const { view } = this;
    const hasTopics = topicsOf(view).length > 0;
    this.startKind = (Object.keys(STARTS) as Start[]).find((kind) => view.params[kind] !== undefined) ?? (hasTopics ? "now" : "last");
    void this.#loadTopics();
    if (!hasTopics) return this.close();
    this.startFeed(view.params["seq"] !== undefined && !this.follows);
  }

  async #loadTopics(): Promise<void> {
    try {
      this.topics = (await client.messageService.listTopics({ pageSize: 500 })).topics;
    } catch (error) {
      noticeError(error);
    }
  }

  protected override render() {
    const { view } = this;
    const { reader, isCaughtUp } = this.feed;
    const hasTopics = topicsOf(view).length > 0;
    this.feed.advance();
    return html`
      <header class="bar">
        <h2>Messages</h2>
        ${hasTopics ? stateLabel(reader, isCaughtUp) : nothing}
        <span class="space"></span>
        ${hasTopics ? html`<p-copy .call=${() => this.#call()}></p-copy>` : nothing}
      </header>
      <form class="bar tools" @submit=${this.#apply}>
        <input class="topics" name="topics" required placeholder="demo.>, orders.*" aria-label="Topics or patterns, with commas between"
          list="topics" autocomplete="off" spellcheck="false" .value=${view.params["topics"] ?? ""}>
        <datalist id="topics">${this.topics.map(({ name }) => html`<option value=${name}></option>`)}</datalist>
        <select aria-label="Start at" @change=${(event: Event) => (this.startKind = (event.target as HTMLSelectElement).value as Start)}>
          ${Object.entries(STARTS).map(([kind, label]) => html`<option value=${kind} ?selected=${kind === this.startKind}>${label}</option>`)}
        </select>
        ${this.#place()}
        <button>Go</button>
        ${hasTopics
          ? html`${this.followToggle()}<span class="space"></span>${this.search("messages")}`
          : nothing}
      </form>
      ${hasTopics ? this.#feedView() : this.#topicTable()}
      <p-publish .topic=${topicsOf(view).find((topic) => !/[*>]/.test(topic)) ?? ""}></p-publish>`;
  }

  #feedView() {
    const { reader, rates } = this.feed;
    return html`
      ${stateNotice(reader, () => this.feed.start(this.view))}
      ${this.dropped("messages", () => this.#back())}
      ${this.rowsList(`Messages of ${this.view.params["topics"]}`, { view: this.#row }, "messages")}
      ${this.#details()}
      <footer class="bar status muted">
        <span>${this.readCount(this.feed.messages, "message")}</span>
        <span class="space"></span>
        <p-plot class="small" .values=${[...rates]} label="messages a second" span="${SECONDS / 60} min"></p-plot>
      </footer>`;
  }

  #topicTable() {
    return html`
      <div class="scroll" tabindex="0" role="region" aria-label="Topics">
        ${this.topics.length === 0
          ? html`<p class="empty muted">No topic has messages yet. A topic exists from its first message.</p>`
          : html`<table>
              <thead><tr><th scope="col">Topic</th><th scope="col" class="number">Messages</th><th scope="col" class="number">Newest</th><th scope="col">Published</th></tr></thead>
              <tbody>${this.topics.map(
                ({ name, messageCount, lastSequence, lastTime }) => html`
                  <tr>
                    <th scope="row"><a href="#/messages?topics=${encodeURIComponent(name)}&last=100&follow">${name}</a></th>
                    <td class="number">${format(messageCount ?? 0n)}</td>
                    <td class="number">${format(lastSequence ?? 0n)}</td>
                    <td class="muted">${clock(lastTime, false)}</td>
                  </tr>`)}</tbody>
            </table>`}
      </div>`;
  }

  #place() {
    const { view, startKind } = this;
    if (startKind === "time") {
      return html`<input name="place" type="datetime-local" step="1" required aria-label="Published at or after" .value=${localTime(view.params["time"])}>`;
    }
    if (startKind !== "last" && startKind !== "seq") return nothing;
    const value = numberParam(view, startKind) ?? (startKind === "last" ? FIRST_MESSAGES : "");
    return html`<input name="place" type="number" min=${startKind === "seq" ? 1 : 0} required aria-label=${STARTS[startKind]} .value=${String(value)}>`;
  }

  #details() {
    const row = this.selected === undefined ? undefined : this.feed.rows.get(this.selected);
    if (!this.isOpen || row?.kind !== "message") return nothing;
    return html`<p-payload .message=${row.message} .close=${() => this.toggleDetails()}></p-payload>`;
  }

  readonly #row = (row: Row): RowView => {
    const { value } = row as Row & { value: Value };
    if (value.kind === "note") return { content: html`<span class="gutter"></span><span>${value.text}</span>`, classes: `note ${value.tone}` };
    const { message, text } = value;
    const { pattern } = this.finds;
    return {
      content: html`<span class="gutter">${message.sequence}</span><time title=${timestamp(message.publishTime)}>${clock(message.publishTime)}</time><span
        class="topic">${showText(message.topic, pattern)}</span>${message.key ? html`<span class="key">${showText(message.key, pattern)}</span>` : nothing}<span
        class="text ${message.content.case === "data" ? "muted" : ""}">${showText(text, pattern)}</span>`,
      classes: "",
    };
  };

  #apply(event: SubmitEvent): void {
    event.preventDefault();
    const data = new FormData(event.target as HTMLFormElement);
    const [topics, place] = [String(data.get("topics") ?? ""), String(data.get("place") ?? "")];
    const kind = this.startKind;
    const value = kind === "time" ? new Date(place).toISOString() : kind === "last" || kind === "seq" ? place : "";
    const start = kind === "now" ? {} : { [kind]: value };
    const follow = kind === "earliest" || kind === "seq" || kind === "time" ? undefined : "";
    this.go(withParams(this.view, { ...CLEARED, topics: topics.replaceAll(/\s/g, ""), ...start, follow }));
  }

  #back(): void {
    const first = this.feed.firstSequence ?? 1n;
    const from = first > BigInt(BACK) ? first - BigInt(BACK) : 1n;
    this.go(withParams(this.view, { ...CLEARED, seq: String(from), follow: undefined }));
  }

  #call(): Call {
    return callOf(this.view);
  }
}

export function callOf(view: View): Call {
  const { topics, start } = requestOf(view);
  const request: Record<string, unknown> = { topics };
  const command = ["messages", ...topics];
  const args = topics.map(python);
  let pythonImport: string | undefined;
  if (start.case === "fromSequence") {
    request["fromSequence"] = String(start.value);
    command.push("--from", String(start.value));
    args.push(`from_sequence=${start.value}`);
  } else if (start.case === "last") {
    request["last"] = String(start.value);
    command.push("--last", String(start.value));
    args.push(`last=${start.value}`);
  } else if (start.case === "fromTime") {
    const time = new Date(view.params["time"] ?? "").toISOString();
    request["fromTime"] = time;
    command.push("--from", time);
    args.push(`from_time=datetime.fromisoformat(${python(time.replace("Z", "+00:00"))})`);
    pythonImport = "from datetime import datetime";
  } else if (start.case !== undefined) {
    request[start.case] = true;
    command.push(...(start.case === "earliest" ? ["--from", "earliest"] : ["--last-per-topic"]));
    args.push(start.case === "earliest" ? "earliest=True" : "last_per_topic=True");
  }
  return {
    method: "MessageService/Messages",
    door: { path: "/v1/messages", names: { topics: "topic" } },
    request,
    command,
    python: `messages(${args.join(", ")})`,
    pythonItem: "item.sequence, item.topic, item.text",
    ...(pythonImport === undefined ? {} : { pythonImport }),
  };
}

/** A time as the browser's field for local times has it. */
function localTime(text: string | undefined): string {
  const date = new Date(text ?? "");
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

customElements.define("p-messages", Messages);
