// A pane with all shared countdowns, and the form that makes one.
import { type Countdown, CountdownState } from "perennial-client/web";
import { html, nothing } from "lit";
import { repeat } from "lit/directives/repeat.js";

import "./countdown-actions.js";
import "./countdown.js";
import { parseTarget, toDuration, toTimestamp } from "./durations.js";
import { announce } from "./element.js";
import { Pane, StateAnnouncer, stateLabel, stateNotice } from "./pane.js";
import { ringOf } from "./ring.js";
import { client, faultOf, newRequestId, noticeError } from "./session.js";
import { type Known, SharedCountdowns } from "./shared.js";
import { count, format, moment } from "./text.js";

const FRAME_MS = 200;
const SHOWN = 200;

export class Countdowns extends Pane {
  static override properties = { ...Pane.properties, fault: { state: true } };

  fault = "";
  readonly #shared = new SharedCountdowns(() => this.requestUpdate());
  readonly #announcer = new StateAnnouncer(() => "countdowns");
  #timer: ReturnType<typeof setInterval> | undefined;

  protected override open(): void {
    this.close();
    if (this.#isOne) return;
    this.#shared.start();
    const hasFewFrames = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.#timer = setInterval(() => this.#isRunning && this.requestUpdate(), hasFewFrames ? 1_000 : FRAME_MS);
  }

  protected override close(): void {
    this.#shared.stop();
    clearInterval(this.#timer);
  }

  /** The view is of one countdown. */
  get #isOne(): boolean {
    const { path, params } = this.view;
    return path !== "" || params["start"] !== undefined || params["until"] !== undefined;
  }

  get #isRunning(): boolean {
    return this.#shared.list.some(({ countdown }) => countdown.state === CountdownState.RUNNING);
  }

  protected override render() {
    if (this.#isOne) return html`<p-countdown .view=${this.view}></p-countdown>`;
    const { list, reader, isPolled, isLoaded, isCaughtUp, fault } = this.#shared;
    this.#announcer.announce(reader.phase);
    return html`
      <header class="bar">
        <h2>Countdowns</h2>
        ${isPolled ? html`<span class="state">asked every 3 s</span>` : stateLabel(reader, isCaughtUp)}
        <span class="muted">${isLoaded ? `${format(list.length)} shared` : ""}</span>
      </header>
      ${isPolled ? nothing : stateNotice(reader, () => this.#shared.start())}
      ${fault ? html`<p class="notice fault" role="alert">${fault}</p>` : nothing}
      <div class="scroll" tabindex="0" role="region" aria-label="Shared countdowns">
        ${this.#form()}
        <ul class="cards">
          ${repeat(list.slice(0, SHOWN), ({ countdown }) => countdown.name, (known) => this.#card(known))}
        </ul>
        ${list.length > SHOWN ? html`<p class="muted">${count(list.length - SHOWN, "more countdown")}: open one by its name.</p>` : nothing}
        ${isLoaded && list.length === 0
          ? html`<p class="empty muted">No shared countdown yet. One with a name is shared: every client that watches it sees the same ticks.</p>`
          : nothing}
      </div>`;
  }

  #card(known: Known) {
    const { countdown } = known;
    const { name, endTime, state, onEnd } = countdown;
    return html`
      <li class="card">
        ${ringOf(known)}
        <div class="facts">
          <h3><a href="#/countdowns/${encodeURIComponent(name)}">${name}</a></h3>
          <p class="muted">${endTime ? `${state === CountdownState.ENDED ? "ended" : "ends"} ${moment(endTime)}` : "no end while it does not run"}${
            onEnd ? html`, then publishes to <a href="#/messages?topics=${encodeURIComponent(onEnd.topic)}&last=100&follow">${onEnd.topic}</a>` : nothing}</p>
          <p-countdown-actions .countdown=${countdown} .changed=${(changed: Countdown) => this.#shared.put(changed)}
            .deleted=${(gone: string) => this.#shared.remove(gone)}></p-countdown-actions>
        </div>
      </li>`;
  }

  #form() {
    return html`
      <form class="create" @submit=${this.#create}>
        <label>Length or end <input name="target" required size="10" placeholder="10m, 90, 18:00" autocomplete="off"></label>
        <label>Name <input name="name" size="16" placeholder="none: your own" pattern="[A-Za-z0-9_\\-]+(\\.[A-Za-z0-9_\\-]+)*" maxlength="128" autocomplete="off"></label>
        <label>At its end publish to <input name="topic" size="12" placeholder="topic" autocomplete="off"></label>
        <label>Text <input name="text" size="12" autocomplete="off"></label>
        <button class="primary">Start</button>
        ${this.fault ? html`<p class="fault" role="alert">${this.fault}</p>` : nothing}
      </form>`;
  }

  async #create(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    const data = new FormData(form);
    const [text, name, topic, payload] = ["target", "name", "topic", "text"].map((field) => String(data.get(field) ?? "").trim());
    const target = parseTarget(text ?? "");
    this.fault = "";
    if (target === undefined) {
      this.fault = `"${text}" is not a number, a duration or a time: try 90, 10m, 1h30m or 18:00`;
    } else if (!name && topic) {
      this.fault = "only a countdown with a name can publish at its end: give it one";
    } else if (!name) {
      const start = target.case === "start" ? target.value : Math.ceil((target.case === "duration" ? target.value : 0) / 1_000);
      const params: Record<string, string> = target.case === "until" ? { until: target.value.toISOString() } : { start: String(start) };
      this.go({ kind: "countdowns", path: "", params });
    } else {
      await this.#createShared(form, name, target, topic ?? "", payload ?? "");
    }
  }

  async #createShared(form: HTMLFormElement, name: string, target: NonNullable<ReturnType<typeof parseTarget>>, topic: string, text: string) {
    const targets = {
      start: () => ({ case: "start" as const, value: target.value as number }),
      duration: () => ({ case: "duration" as const, value: toDuration(target.value as number) }),
      until: () => ({ case: "untilTime" as const, value: toTimestamp(target.value as Date) }),
    };
    const onEnd = topic === "" ? {} : { onEnd: { topic, content: { case: "text" as const, value: text } } };
    try {
      const requestId = newRequestId();
      const request = { name, target: targets[target.case](), requestId, ...onEnd };
      const { countdown } = await client.countdownService.createCountdown(request);
      if (countdown) this.#shared.put(countdown);
      form.reset();
      announce(`${name}: started`);
    } catch (error) {
      noticeError(error);
      this.fault = faultOf(error);
    }
  }
}

customElements.define("p-countdowns", Countdowns);
