// A pane with the state of the server, from the calls that every client has: topics, consumers, and how they grow.
import type { ConsumerInfo, TopicInfo } from "perennial-client/web";
import { html, nothing } from "lit";

import "./plot.js";
import { Pane } from "./pane.js";
import { client, faultOf, noticeError } from "./session.js";
import { MAX_STREAMS, allStreams, ownStreams } from "./slots.js";
import { ago, bytes, count, format, moment } from "./text.js";

const POLL_MS = 2_000;
/** The samples of the plots: five minutes. */
const SAMPLES = 150;
const SPAN = "5 min";
const PAGE = 1_000;
const SHOWN = 200;

export class Server extends Pane {
  static override properties = { ...Pane.properties, fault: { state: true } };

  fault = "";
  #topics: TopicInfo[] = [];
  #consumers: ConsumerInfo[] = [];
  #hasMore = false;
  #isLoaded = false;
  #streams = 0;
  #head: bigint | undefined;
  #asked = 0;
  #answerMs = 0;
  #rates: (number | undefined)[] = samples();
  #sizes: (number | undefined)[] = samples();
  #answers: (number | undefined)[] = samples();
  #lags = new Map<string, (number | undefined)[]>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  protected override open(): void {
    clearTimeout(this.#timer);
    void this.#poll();
  }

  protected override close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  async #poll(): Promise<void> {
    if (!document.hidden) await this.#ask();
    if (this.isConnected) this.#timer = setTimeout(() => void this.#poll(), POLL_MS);
  }

  async #ask(): Promise<void> {
    const from = performance.now();
    try {
      const [topics, consumers] = await Promise.all([
        client.messageService.listTopics({ pageSize: PAGE }, { timeoutMs: 5_000 }),
        client.messageService.listConsumers({ pageSize: PAGE }, { timeoutMs: 5_000 }),
      ]);
      this.#answerMs = performance.now() - from;
      this.#topics = topics.topics;
      this.#consumers = consumers.consumers;
      this.#hasMore = topics.nextPageToken !== "" || consumers.nextPageToken !== "";
      this.#sample(from);
      this.#isLoaded = true;
      this.fault = "";
    } catch (error) {
      noticeError(error);
      this.fault = faultOf(error);
      for (const values of [this.#rates, this.#sizes, this.#answers, ...this.#lags.values()]) push(values, undefined);
      this.#head = undefined;
    }
    this.#streams = await allStreams();
    this.requestUpdate();
  }

  #sample(now: number): void {
    const heads = [...this.#topics.map(({ lastSequence = 0n }) => lastSequence), ...this.#consumers.map(({ headSequence = 0n }) => headSequence)];
    const head = heads.reduce((most, one) => (one > most ? one : most), 0n);
    const seconds = (now - this.#asked) / 1_000;
    push(this.#rates, this.#head === undefined ? undefined : Number(head - this.#head) / seconds);
    this.#head = head;
    this.#asked = now;
    push(this.#sizes, this.#size);
    push(this.#answers, this.#answerMs);
    const known = new Map<string, (number | undefined)[]>();
    for (const consumer of this.#consumers.slice(0, SHOWN)) {
      const values = this.#lags.get(consumer.name) ?? samples();
      push(values, lagOf(consumer));
      known.set(consumer.name, values);
    }
    this.#lags = known;
  }

  get #size(): number {
    return this.#topics.reduce((sum, { byteCount = 0n }) => sum + Number(byteCount), 0);
  }

  protected override render() {
    const messages = this.#topics.reduce((sum, { messageCount = 0n }) => sum + messageCount, 0n);
    return html`
      <header class="bar">
        <h2>Server</h2>
        <span class="state ${this.fault ? "lost" : this.#isLoaded ? "live" : "opening"}"><i aria-hidden="true"></i>${this.fault ? "no answer" : this.#isLoaded ? "answers" : "asking"}</span>
        <span class="muted">${window.location.host}</span>
      </header>
      ${this.fault ? html`<p class="notice fault" role="alert">${this.fault}</p>` : nothing}
      <div class="scroll" tabindex="0" role="region" aria-label="State of the server">
        <div class="plots">
          <p-plot .values=${[...this.#rates]} label="Messages a second" span=${SPAN}></p-plot>
          <p-plot .values=${[...this.#sizes]} label="Size of the messages" span=${SPAN} .show=${bytes} .fromZero=${false}></p-plot>
          <p-plot .values=${[...this.#answers]} label="Answer to this page" span=${SPAN} .show=${(value: number) => `${value.toFixed(value < 10 ? 1 : 0)} ms`}></p-plot>
          <dl class="tiles">
            <div><dt>head</dt><dd>${this.#head === undefined ? "–" : format(this.#head)}</dd></div>
            <div><dt>messages</dt><dd>${format(messages)}</dd></div>
            <div><dt>topics</dt><dd>${format(this.#topics.length)}</dd></div>
            <div><dt>streams of this page</dt><dd>${ownStreams()} of ${MAX_STREAMS}${this.#streams > ownStreams() ? `, ${this.#streams - ownStreams()} in other tabs` : ""}</dd></div>
          </dl>
        </div>
        ${this.#hasMore ? html`<p class="notice calm">The server has more: the page shows the first ${format(PAGE)} topics and consumers.</p>` : nothing}
        <h3>Consumers</h3>
        ${this.#consumers.length === 0 ? html`<p class="muted">No consumer has committed a position.</p>` : this.#consumerTable()}
        <h3>Topics</h3>
        ${this.#topics.length === 0 ? html`<p class="muted">No topic has messages.</p>` : this.#topicTable()}
        <p class="muted aside">The open streams of all clients, memory and disk are not in the API: start the server with <code>--metrics</code> and read them there.</p>
      </div>`;
  }

  #consumerTable() {
    return html`
      <table>
        <thead><tr><th scope="col">Consumer</th><th scope="col" class="number">Lag</th><th scope="col">Lag in ${SPAN}</th><th scope="col" class="number">Sequence</th><th scope="col">Commit</th><th scope="col">Reader</th></tr></thead>
        <tbody>${this.#consumers.slice(0, SHOWN).map((consumer) => {
          const { name, sequence, commitTime, connected, fault } = consumer;
          return html`<tr>
            <th scope="row">${name}</th>
            <td class="number">${format(lagOf(consumer))}</td>
            <td><p-plot class="spark" .values=${[...(this.#lags.get(name) ?? [])]} label="Lag of ${name}" span=${SPAN}></p-plot></td>
            <td class="number">${format(sequence ?? 0n)}</td>
            <td class="muted" title=${moment(commitTime)}>${ago(commitTime)}</td>
            <td class=${fault ? "fault" : connected ? "growing" : "muted"}>${fault || (connected ? "connected" : "away")}</td>
          </tr>`;
        })}</tbody>
      </table>
      ${this.#consumers.length > SHOWN ? html`<p class="muted">${count(this.#consumers.length - SHOWN, "more consumer")}.</p>` : nothing}`;
  }

  #topicTable() {
    const most = Math.max(...this.#topics.map(({ byteCount = 0n }) => Number(byteCount)), 1);
    const sorted = this.#topics.toSorted((a, b) => Number((b.byteCount ?? 0n) - (a.byteCount ?? 0n)));
    return html`
      <table>
        <thead><tr><th scope="col">Topic</th><th scope="col" class="number">Messages</th><th scope="col" class="number">Size</th><th scope="col" class="share">Share</th><th scope="col">Newest</th></tr></thead>
        <tbody>${sorted.slice(0, SHOWN).map(
          ({ name, messageCount = 0n, byteCount = 0n, lastTime }) => html`<tr>
            <th scope="row"><a href="#/messages?topics=${encodeURIComponent(name)}&last=100&follow">${name}</a></th>
            <td class="number">${format(messageCount)}</td>
            <td class="number">${bytes(byteCount)}</td>
            <td class="share"><svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="4"></rect><rect class="part" width=${(Number(byteCount) / most) * 100} height="4"></rect></svg></td>
            <td class="muted">${ago(lastTime)}</td>
          </tr>`)}</tbody>
      </table>
      ${sorted.length > SHOWN ? html`<p class="muted">${count(sorted.length - SHOWN, "smaller topic")}.</p>` : nothing}`;
  }
}

function samples(): (number | undefined)[] {
  return new Array<number | undefined>(SAMPLES).fill(undefined);
}

function push(values: (number | undefined)[], value: number | undefined): void {
  values.shift();
  values.push(value);
}

/** The messages that a consumer has not committed; its sequence may be that of a message of the server's own. */
function lagOf({ sequence = 0n, headSequence = 0n }: ConsumerInfo): number {
  return Math.max(Number(headSequence - sequence), 0);
}

customElements.define("p-server", Server);
