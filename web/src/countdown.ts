// One countdown, shared or one's own, as the stream of its ticks.
import {
  type Countdown,
  CountdownChange,
  type CountdownItem,
  CountdownState,
  PerennialError,
} from "perennial-client/web";
import { html, nothing } from "lit";

import "./copy.js";
import "./countdown-actions.js";
import { type Call, python } from "./copy.js";
import { left, toMillis, toTimestamp } from "./durations.js";
import { Pane, StateAnnouncer, stateLabel, stateNotice } from "./pane.js";
import { Reader } from "./reader.js";
import { ring, ringOf } from "./ring.js";
import { client, noticeError } from "./session.js";
import type { Known } from "./shared.js";
import { clock, count, format, moment } from "./text.js";
import { type View, numberParam } from "./view.js";

const FRAME_MS = 100;
/** The entries of the list that are kept. */
const KEPT = 200;

interface Entry {
  time: string;
  text: string;
  isTick: boolean;
}

const CHANGES: Record<CountdownChange, string> = {
  [CountdownChange.UNSPECIFIED]: "changed",
  [CountdownChange.CREATED]: "created",
  [CountdownChange.PAUSED]: "paused",
  [CountdownChange.RESUMED]: "resumed",
  [CountdownChange.EXTENDED]: "moved its end",
  [CountdownChange.CANCELLED]: "cancelled",
  [CountdownChange.ENDED]: "ended",
};

export class OneCountdown extends Pane {
  readonly #reader = new Reader<CountdownItem>({
    open: (options) => {
      const { cursor } = this.view.params;
      return client.countdown(requestOf(this.view), { ...options, events: true, ...(cursor ? { state: cursor } : {}) });
    },
    take: (item) => this.#take(item),
    change: () => this.#changed(),
    resumed: (outageMs) => this.#add(`the connection was lost for ${(outageMs / 1_000).toFixed(1)} s, and the stream resumed`),
  });
  readonly #announcer = new StateAnnouncer(() => this.view.path || "countdown");
  #entries: Entry[] = [];
  #known: Known | undefined;
  #number: number | undefined;
  /** The moment of the last tick, by `performance.now()`, and the whole length: of one's own countdown. */
  #end: { at: number; total: number } | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #noted = 0;

  protected override open(): void {
    this.#entries = [];
    this.#known = undefined;
    this.#number = undefined;
    this.#end = undefined;
    this.#reader.start();
    if (this.view.path) void this.#refresh();
    clearInterval(this.#timer);
    const hasFewFrames = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.#timer = setInterval(() => this.requestUpdate(), hasFewFrames ? 1_000 : FRAME_MS);
  }

  protected override close(): void {
    this.#reader.stop();
    clearInterval(this.#timer);
  }

  #changed(): void {
    this.#announcer.announce(this.#reader.phase);
    if (this.#reader.phase === "failed") noticeError(this.#reader.error);
    this.requestUpdate();
  }

  async #refresh(): Promise<void> {
    try {
      const { countdown } = await client.countdownService.getCountdown({ name: this.view.path });
      if (countdown) this.#know(countdown);
    } catch (error) {
      if (error instanceof PerennialError && error.reason === "COUNTDOWN_NOT_FOUND") this.#known = undefined;
    }
    this.requestUpdate();
  }

  #know(countdown: Countdown): void {
    this.#known = { countdown, at: performance.now() };
    this.requestUpdate();
  }

  #take(item: CountdownItem): void {
    if (item.case === "skipped") {
      this.#add(`${count(item.ticks, "tick")} skipped while the page was away`);
    } else if (item.case === "event") {
      if (item.countdown) this.#know(item.countdown);
      const { event } = item.value;
      if (event.case === "changed") this.#add(`${CHANGES[event.value.change] ?? "changed"}${by(toMillis(event.value.by))}`);
      if (event.case === "clockStepped") this.#add(`the clock of the server was set${by(toMillis(event.value.by))}`);
    } else {
      const { remaining = 0, remainingDuration, dueTime } = item.value;
      this.#number = remaining;
      const rest = toMillis(remainingDuration);
      const total = Math.max(this.#end?.total ?? 0, rest, (numberParam(this.view, "start") ?? 0) * 1_000);
      this.#end = { at: performance.now() + rest, total };
      this.#add(format(remaining), clock(dueTime), true);
      this.#noteCursor();
    }
  }

  #add(text: string, time = clock(toTimestamp(new Date())), isTick = false): void {
    this.#entries.unshift({ time, text, isTick });
    if (this.#entries.length > KEPT) this.#entries.length = KEPT;
  }

  /** The address has the cursor of one's own countdown, so that loading the page again continues it. */
  #noteCursor(): void {
    const { state } = this.#reader;
    if (this.view.path !== "" || state === undefined || performance.now() - this.#noted < 900) return;
    this.#noted = performance.now();
    this.note({ cursor: (JSON.parse(state) as { cursor: string }).cursor });
  }

  protected override render() {
    const { path } = this.view;
    const name = path || "Your own countdown";
    return html`
      <header class="bar">
        <button type="button" class="quiet" @click=${() => this.go({ kind: "countdowns", path: "", params: {} })}>All countdowns</button>
        <h2>${name}</h2>
        ${stateLabel(this.#reader, this.#number !== undefined)}
        <span class="space"></span>
        <p-copy .call=${() => callOf(this.view)}></p-copy>
      </header>
      ${stateNotice(this.#reader, () => this.#reader.start())}
      <div class="one">
        <div class="big">
          ${this.#ring()}
          ${this.#known
            ? html`<p-countdown-actions .countdown=${this.#known.countdown} .hasMore=${true}
                .changed=${(changed: Countdown) => this.#know(changed)}
                .deleted=${() => this.go({ kind: "countdowns", path: "", params: {} })}></p-countdown-actions>`
            : nothing}
          ${this.#facts()}
        </div>
        <section class="ticks" aria-label="Ticks">
          <h3>Ticks</h3>
          <ol class="scroll" tabindex="0" aria-label="Ticks and changes, the newest first">
            ${this.#entries.map(({ time, text, isTick }) => html`<li class=${isTick ? "" : "change"}><time>${time}</time><span>${text}</span></li>`)}
          </ol>
        </section>
      </div>`;
  }

  #ring() {
    if (this.#known) return ringOf(this.#known);
    const rest = this.#end ? Math.max(this.#end.at - performance.now(), 0) : 0;
    const isOver = this.#reader.phase === "ended";
    return ring({
      part: this.#end && this.#end.total > 0 ? rest / this.#end.total : 0,
      text: this.#end ? left(rest) : "–",
      note: isOver ? "ended" : this.#number === undefined ? "" : format(this.#number),
      tone: isOver ? "over" : "running",
    });
  }

  #facts() {
    const { countdown } = this.#known ?? {};
    if (countdown === undefined) return nothing;
    const { endTime, totalDuration, createTime, version, state } = countdown;
    return html`
      <dl>
        ${endTime ? html`<dt>${state === CountdownState.ENDED ? "ended" : "ends"}</dt><dd>${moment(endTime)}</dd>` : nothing}
        <dt>length</dt><dd>${left(toMillis(totalDuration))}</dd>
        <dt>created</dt><dd>${moment(createTime)}</dd>
        <dt>version</dt><dd>${version ?? ""}</dd>
        ${this.#number === undefined ? nothing : html`<dt>tick</dt><dd>${format(this.#number)}</dd>`}
      </dl>`;
  }
}

function by(millis: number): string {
  return millis === 0 ? "" : ` by ${millis < 0 ? "−" : "+"}${left(Math.abs(millis))}`;
}

function requestOf({ path, params }: View) {
  const { until, start } = params;
  if (path !== "") return { target: { case: "name" as const, value: path } };
  const moment = new Date(until ?? "");
  if (until !== undefined && !Number.isNaN(moment.getTime())) {
    return { target: { case: "untilTime" as const, value: toTimestamp(moment) } };
  }
  return { target: { case: "start" as const, value: Number(start ?? 0) } };
}

function callOf({ path, params }: View): Call {
  const { start, until, cursor } = params;
  const call = (request: Record<string, unknown>, command: string[], program: string): Call => ({
    method: "CountdownService/Countdown",
    request,
    door: path === "" ? { path: "/v1/countdown" } : { path: `/v1/countdowns/${encodeURIComponent(path)}`, field: "name" },
    command: ["countdown", ...command],
    python: `countdown(${program})`,
    pythonItem: "item.remaining",
  });
  if (path !== "") return call({ name: path }, ["--name", path], `name=${python(path)}`);
  if (cursor !== undefined) return call({ cursor }, ["--cursor", cursor], `state=${python(cursor)}`);
  if (until === undefined) return call({ start: Number(start) }, [String(start)], String(Number(start)));
  const program = `until_time=datetime.fromisoformat(${python(until.replace("Z", "+00:00"))})`;
  return { ...call({ untilTime: until }, ["--until", until], program), pythonImport: "from datetime import datetime" };
}

customElements.define("p-countdown", OneCountdown);
