// A ring that empties as a countdown runs.
import { CountdownState } from "perennial-client/web";
import { type TemplateResult, html, svg } from "lit";

import { left } from "./durations.js";
import { type Known, partOf, remaining } from "./shared.js";

const RADIUS = 54;
const LENGTH = 2 * Math.PI * RADIUS;

export interface RingFacts {
  /** The part that is left, from 0 to 1. */
  part: number;
  /** In the middle. */
  text: string;
  /** Below it. */
  note: string;
  tone: "running" | "paused" | "over";
}

export function ring({ part, text, note, tone }: RingFacts): TemplateResult {
  const rest = LENGTH * Math.min(Math.max(part, 0), 1);
  // The ring repeats what the text beside it says.
  return html`
    <div class="ring ${tone}">
      <svg viewBox="0 0 120 120" aria-hidden="true">
        ${svg`<circle class="track" cx="60" cy="60" r=${RADIUS}></circle>
          <circle class="rest" cx="60" cy="60" r=${RADIUS} transform="rotate(-90 60 60)"
            stroke-dasharray="${rest.toFixed(2)} ${LENGTH.toFixed(2)}" stroke-opacity=${rest < 0.5 ? 0 : 1}></circle>`}
      </svg>
      <div class="inside ${text.length > 6 ? "long" : ""}"><b>${text}</b><span>${note}</span></div>
    </div>`;
}

const STATES: Record<CountdownState, { name: string; tone: RingFacts["tone"] }> = {
  [CountdownState.UNSPECIFIED]: { name: "unknown", tone: "over" },
  [CountdownState.RUNNING]: { name: "running", tone: "running" },
  [CountdownState.PAUSED]: { name: "paused", tone: "paused" },
  [CountdownState.ENDED]: { name: "ended", tone: "over" },
  [CountdownState.CANCELLED]: { name: "cancelled", tone: "over" },
};

/** The ring of a shared countdown. */
export function ringOf(known: Known): TemplateResult {
  const { name, tone } = STATES[known.countdown.state] ?? STATES[CountdownState.UNSPECIFIED];
  return ring({ part: partOf(known), text: left(remaining(known)), note: name, tone });
}
