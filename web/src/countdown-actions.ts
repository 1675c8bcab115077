// The buttons of a shared countdown.
import { type Countdown, CountdownState } from "perennial-client/web";
import { html, nothing } from "lit";

import { parseDuration, toDuration } from "./durations.js";
import { Element, announce } from "./element.js";
import { client, faultOf, noticeError } from "./session.js";

const MINUTE_MS = 60_000;
/** How long a button asks before it deletes. */
const CONFIRM_MS = 4_000;

export class CountdownActions extends Element {
  static override properties = {
    countdown: { attribute: false }, hasMore: { attribute: false }, isAsking: { state: true }, fault: { state: true }, isBusy: { state: true },
  };

  countdown: Countdown | undefined;
  /** Also show what a card has no room for. */
  hasMore = false;
  changed: (countdown: Countdown) => void = () => {};
  deleted: (name: string) => void = () => {};
  isAsking = false;
  isBusy = false;
  fault = "";

  protected override render() {
    const { countdown } = this;
    if (countdown === undefined) return nothing;
    const { state, name } = countdown;
    const isActive = state === CountdownState.RUNNING || state === CountdownState.PAUSED;
    const toggle =
      state === CountdownState.PAUSED
        ? html`<button type="button" @click=${() => this.#do("resumed", (at) => client.countdownService.resumeCountdown(at))}>Resume</button>`
        : html`<button type="button" @click=${() => this.#do("paused", (at) => client.countdownService.pauseCountdown(at))}>Pause</button>`;
    return html`
      <div class="actions" role="group" aria-label="Change ${name}">
        ${isActive
          ? html`${toggle}
              <button type="button" @click=${() => this.#extend(-MINUTE_MS)}>−1 min</button>
              <button type="button" @click=${() => this.#extend(MINUTE_MS)}>+1 min</button>`
          : nothing}
        ${isActive && this.hasMore
          ? html`<form class="inline" @submit=${this.#extendBy}>
                <input name="by" size="7" placeholder="5m, -30s" aria-label="Extend by" required><button>Extend</button>
              </form>
              <button type="button" @click=${() => this.#do("cancelled", (at) => client.countdownService.cancelCountdown(at))}>Cancel</button>`
          : nothing}
        <button type="button" class=${this.isAsking ? "danger" : "quiet"} @click=${this.#delete}>${this.isAsking ? "Really delete" : "Delete"}</button>
      </div>
      ${this.fault ? html`<p class="fault" role="alert">${this.fault}</p>` : nothing}`;
  }

  async #do(done: string, call: (at: { name: string; version: bigint }) => Promise<{ countdown?: Countdown }>): Promise<void> {
    const { name = "", version = 0n } = this.countdown ?? {};
    this.fault = "";
    try {
      // The version makes a click change what the person saw, and nothing else.
      const { countdown } = await call({ name, version });
      if (countdown) this.changed(countdown);
      announce(`${name}: ${done}`);
    } catch (error) {
      noticeError(error);
      this.fault = faultOf(error);
    }
  }

  #extend(millis: number): void {
    const by = toDuration(millis);
    void this.#do(millis > 0 ? "extended" : "shortened", (at) => client.countdownService.extendCountdown({ ...at, by }));
  }

  #extendBy(event: SubmitEvent): void {
    event.preventDefault();
    const text = String(new FormData(event.target as HTMLFormElement).get("by") ?? "");
    const millis = parseDuration(text);
    if (millis === undefined || millis === 0) this.fault = `"${text}" is not a duration: try 5m, 1h30m or -30s`;
    else this.#extend(millis);
  }

  async #delete(): Promise<void> {
    const { name = "" } = this.countdown ?? {};
    if (!this.isAsking) {
      this.isAsking = true;
      setTimeout(() => (this.isAsking = false), CONFIRM_MS);
      return;
    }
    this.isAsking = false;
    try {
      await client.countdownService.deleteCountdown({ name });
      this.deleted(name);
      announce(`${name}: deleted`);
    } catch (error) {
      noticeError(error);
      this.fault = faultOf(error);
    }
  }
}

customElements.define("p-countdown-actions", CountdownActions);
