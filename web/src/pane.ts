// What all panes share: a view from the address, changes of it, and how the state of a stream is shown.
import { type TemplateResult, html, nothing } from "lit";

import { Element, announce } from "./element.js";
import type { Phase, Reader } from "./reader.js";
import { MAX_STREAMS } from "./slots.js";
import { type View, formatView, withParams } from "./view.js";

/** A pane wants another address: in place of the one in the history, or after it. */
export class ViewChange extends CustomEvent<{ view: View; isStep: boolean }> {
  constructor(view: View, isStep: boolean) {
    super("view-change", { detail: { view, isStep }, bubbles: true });
  }
}

export abstract class Pane extends Element {
  static override properties = { view: { attribute: false } };

  view: View = { kind: "countdowns", path: "", params: {} };
  #shown = "";
  #ticker: ReturnType<typeof setInterval> | undefined;

  /** Begins to show `view`. Called for the first one, and when the address is changed from outside. */
  protected abstract open(): void;
  /** Ends what `open` has begun. */
  protected abstract close(): void;

  protected override willUpdate(): void {
    const text = formatView(this.view);
    if (text === this.#shown) return;
    this.#shown = text;
    this.open();
  }

  override connectedCallback(): void {
    super.connectedCallback();
    // Waits and ages are shown in seconds.
    this.#ticker = setInterval(() => this.requestUpdate(), 1_000);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    clearInterval(this.#ticker);
    this.close();
    this.#shown = "";
  }

  /** Makes the address say what the pane shows, without opening it again. */
  protected note(changes: Record<string, string | undefined>): void {
    const view = withParams(this.view, changes);
    const text = formatView(view);
    if (text === this.#shown) return;
    this.#shown = text;
    this.view = view;
    this.dispatchEvent(new ViewChange(view, false));
  }

  /** Opens another view in this pane. */
  protected go(view: View): void {
    this.#shown = "";
    this.view = view;
    this.dispatchEvent(new ViewChange(view, true));
    this.requestUpdate();
  }
}

const LABELS: Record<Phase, string> = {
  idle: "not connected",
  waiting: "waits for a stream",
  opening: "connecting",
  open: "reading",
  held: "paused",
  lost: "connection lost",
  ended: "ended",
  failed: "failed",
};

/** The state of a stream as a label with a colour. */
export function stateLabel(reader: Reader<unknown>, isLive: boolean): TemplateResult {
  const { phase } = reader;
  const isOpen = phase === "open" || phase === "held";
  const name = phase === "open" && isLive ? "live" : phase;
  const text = name === "live" ? "live" : isOpen && isLive ? "live, paused" : LABELS[phase];
  const wait = Math.max(Math.ceil((reader.retryAt - performance.now()) / 1_000), 0);
  const rest = phase === "lost" ? html` <span class="muted">${wait > 0 ? `tries again in ${wait} s` : "tries again"}</span>` : nothing;
  return html`<span class="state ${name}"><i aria-hidden="true"></i>${text}${rest}</span>`;
}

/** What a person must know about a stream that is not read. */
export function stateNotice(reader: Reader<unknown>, retry: () => void): TemplateResult | typeof nothing {
  if (reader.phase === "waiting") {
    return html`<p class="notice" role="status">This stream waits: the tabs of this page keep at most ${MAX_STREAMS} streams open,
      because a browser has six connections to a server without TLS. Close a pane or a tab to start it.</p>`;
  }
  if (reader.phase === "failed") {
    return html`<p class="notice fault" role="alert">${reader.error?.message ?? "the stream failed"}
      <button type="button" @click=${retry}>Try again</button></p>`;
  }
  return nothing;
}

/** Tells a screen reader about a change of a stream. */
export class StateAnnouncer {
  #last: Phase = "idle";

  constructor(private readonly name: () => string) {}

  announce(phase: Phase): void {
    if (phase === this.#last) return;
    const wasLost = this.#last === "lost";
    this.#last = phase;
    if (phase === "lost") announce(`${this.name()}: connection lost`);
    else if (phase === "open" && wasLost) announce(`${this.name()}: resumed`);
    else if (phase === "failed" || phase === "ended") announce(`${this.name()}: ${LABELS[phase]}`);
  }
}
