// The base of the page's elements. They have no shadow root: one style sheet is for all of them, and labels reach across.
import { LitElement, type PropertyValues } from "lit";

export class Element extends LitElement {
  protected override createRenderRoot(): HTMLElement {
    return this;
  }
}

/** An element that draws at most once a frame, and not at all in a hidden tab. */
export class FrameElement extends Element {
  protected override async scheduleUpdate(): Promise<void> {
    await new Promise(requestAnimationFrame);
    await super.scheduleUpdate();
  }
}

export type { PropertyValues };

/** Makes an id for labels. */
let ids = 0;
export function newId(prefix: string): string {
  ids += 1;
  return `${prefix}-${ids}`;
}

/** Says something to a screen reader, once. */
export function announce(text: string): void {
  const place = document.getElementById("announcer");
  if (place && place.textContent !== text) place.textContent = text;
}
