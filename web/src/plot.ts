// A small plot of a value over time.
import { html, svg } from "lit";

import { Element } from "./element.js";
import { format } from "./text.js";

const WIDTH = 300;
const HEIGHT = 56;

export class Plot extends Element {
  static override properties = { values: { attribute: false }, label: {}, show: { attribute: false }, span: {}, fromZero: { attribute: false } };

  /** The values, evenly spaced; the last one is now. Undefined where none was measured. */
  values: (number | undefined)[] = [];
  label = "";
  /** The time from the first value to the last. */
  span = "";
  show: (value: number) => string = (value) => format(Math.round(value * 10) / 10);
  /** The plot begins at 0, and not at the lowest value. */
  fromZero = true;

  protected override render() {
    const known = this.values.filter((value) => value !== undefined);
    const last = known.at(-1);
    const most = Math.max(...known, 0);
    const least = this.fromZero ? 0 : Math.min(...known);
    const range = most - least || 1;
    const text = last === undefined ? "–" : this.show(last);
    const summary = `${this.label}: ${text} now, ${known.length > 0 ? this.show(most) : "–"} at most in ${this.span}`;
    return html`
      <figure class="plot">
        <figcaption><span>${this.label}</span><b>${text}</b></figcaption>
        <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${summary}>
          ${this.#areas((value) => HEIGHT - 1 - ((value - least) / range) * (HEIGHT - 4))}
        </svg>
        <p class="muted"><span>${this.span} ago</span><span>at most ${known.length > 0 ? this.show(most) : "–"}</span></p>
      </figure>`;
  }

  /** A line and the area below it, for each run of values. */
  #areas(y: (value: number) => number) {
    const { values } = this;
    const step = WIDTH / Math.max(values.length - 1, 1);
    const runs: string[][] = [];
    let from = 0;
    const areas = [];
    for (let index = 0; index <= values.length; index += 1) {
      const value = values[index];
      if (value !== undefined) {
        if (values[index - 1] === undefined || runs.length === 0) {
          runs.push([]);
          from = index;
        }
        runs.at(-1)?.push(`${(index * step).toFixed(1)},${y(value).toFixed(1)}`);
      } else if (runs.length > 0 && values[index - 1] !== undefined) {
        const points = (runs.at(-1) ?? []).join(" ");
        const end = ((index - 1) * step).toFixed(1);
        areas.push(svg`<polygon class="area" points="${(from * step).toFixed(1)},${HEIGHT} ${points} ${end},${HEIGHT}"></polygon>
          <polyline class="line" points=${points} vector-effect="non-scaling-stroke"></polyline>`);
      }
    }
    return areas;
  }
}

customElements.define("p-plot", Plot);
