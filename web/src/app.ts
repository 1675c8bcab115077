// The page: its bar, its panes beside each other, and the address that says what they show.
import { html, nothing } from "lit";
import { repeat } from "lit/directives/repeat.js";

import "./countdowns.js";
import "./lines.js";
import "./messages.js";
import "./server.js";
import { Element, announce } from "./element.js";
import type { ViewChange } from "./pane.js";
import { SIGN_IN_NEEDED, faultOf, signIn, signOut } from "./session.js";
import { MAX_STREAMS, allStreams, ownStreams, watchStreams } from "./slots.js";
import { type Kind, MAX_PANES, type View, formatView, formatViews, parseViews } from "./view.js";

const NAMES: Record<Kind, string> = { countdowns: "Countdowns", lines: "Lines", messages: "Messages", server: "Server" };
const SCHEMES = ["auto", "light", "dark"] as const;
type Scheme = (typeof SCHEMES)[number];
const SCHEME_KEY = "perennial-scheme";
/** That there is a cookie, which scripts do not see; not what it is. */
const SIGNED_IN_KEY = "perennial-signed-in";
const STREAMS_MS = 3_000;

interface Shown {
  id: number;
  view: View;
}

export class App extends Element {
  static override properties = {
    panes: { state: true }, streams: { state: true }, scheme: { state: true }, needsToken: { state: true }, fault: { state: true }, isSignedIn: { state: true },
  };

  panes: Shown[] = [];
  streams = 0;
  scheme: Scheme = "auto";
  needsToken = false;
  isSignedIn = false;
  fault = "";
  #ids = 0;

  override connectedCallback(): void {
    super.connectedCallback();
    this.#showAddress();
    window.addEventListener("popstate", () => this.#showAddress());
    window.addEventListener(SIGN_IN_NEEDED, () => (this.needsToken = true));
    watchStreams(() => void this.#countStreams());
    setInterval(() => void this.#countStreams(), STREAMS_MS);
    const kept = SCHEMES.find((scheme) => scheme === recall(SCHEME_KEY));
    if (kept) this.#useScheme(kept);
    this.isSignedIn = recall(SIGNED_IN_KEY) !== null;
  }

  async #countStreams(): Promise<void> {
    this.streams = await allStreams();
  }

  /** Shows what the address says. A pane that shows it already stays. */
  #showAddress(): void {
    const before = [...this.panes];
    this.panes = parseViews(window.location.hash).map((view, index) => {
      const same = before[index];
      if (same && same.view.kind === view.kind) return { id: same.id, view };
      return this.#pane(view);
    });
    this.#title();
  }

  #pane(view: View): Shown {
    this.#ids += 1;
    return { id: this.#ids, view };
  }

  /** Makes the address say what is shown. */
  #note(isStep: boolean): void {
    const hash = formatViews(this.panes.map(({ view }) => view));
    if (hash !== window.location.hash) {
      if (isStep) history.pushState(null, "", hash);
      else history.replaceState(null, "", hash);
    }
    this.#title();
  }

  #title(): void {
    const [first] = this.panes;
    const what = first && (first.view.path || first.view.params["topics"] || NAMES[first.view.kind]);
    document.title = `${what} · Perennial`;
  }

  protected override render() {
    const kinds = this.panes.map(({ view }) => view.kind);
    return html`
      <a class="skip" href="#main" @click=${this.#skip}>Skip to the content</a>
      <header class="top">
        <h1 class="hidden">Perennial</h1>
        <a class="brand" href="#/countdowns" aria-label="Perennial, to the countdowns">
          <svg viewBox="0 0 32 32" aria-hidden="true"><path d="M9 25c0-9 3-15 14-18 1 11-4 16-10 16"></path><path d="M9 25c1-5 4-8 8-11"></path></svg>
          <span>perennial</span>
        </a>
        <nav aria-label="Views">
          ${(Object.keys(NAMES) as Kind[]).map(
            (kind) => html`<a href="#/${kind}" aria-current=${kinds.includes(kind) ? "page" : nothing}>${NAMES[kind]}</a>`,
          )}
        </nav>
        <span class="space"></span>
        ${this.#meter()}
        ${this.#beside()}
        <select class="quiet" aria-label="Colours" @change=${(event: Event) => this.#useScheme((event.target as HTMLSelectElement).value as Scheme)}>
          ${SCHEMES.map((scheme) => html`<option value=${scheme} ?selected=${scheme === this.scheme}>${scheme === "auto" ? "System" : scheme === "light" ? "Light" : "Dark"}</option>`)}
        </select>
        ${this.isSignedIn ? html`<button type="button" class="quiet" @click=${this.#signOut}>Sign out</button>` : nothing}
      </header>
      ${this.needsToken ? this.#signIn() : nothing}
      <main id="main" tabindex="-1" class="panes count-${this.panes.length}">
        ${repeat(this.panes, ({ id }) => id, (pane) => this.#paneView(pane))}
      </main>
      <p id="announcer" class="hidden" role="status" aria-live="polite"></p>`;
  }

  #meter() {
    const others = Math.max(this.streams - ownStreams(), 0);
    const text = `${ownStreams()} of ${MAX_STREAMS} streams open${others > 0 ? `, and ${others} in other tabs` : ""}`;
    const title = `${text}. Without TLS a browser has six connections to a server, so the tabs of this page share ${MAX_STREAMS} streams.`;
    return html`<span class="meter" role="img" aria-label=${title} title=${title}>${Array.from({ length: MAX_STREAMS }, (_, n) =>
      html`<i class=${n < ownStreams() ? "own" : n < this.streams ? "other" : ""}></i>`)}<span aria-hidden="true">${this.streams}/${MAX_STREAMS}</span></span>`;
  }

  #beside() {
    const isFull = this.panes.length >= MAX_PANES;
    return html`
      <select class="quiet" aria-label="Open beside" ?disabled=${isFull} title=${isFull ? "Four panes are open, which is the most" : "Open another view beside"} @change=${this.#open}>
        <option value="" selected>Beside…</option>
        ${(Object.keys(NAMES) as Kind[]).map((kind) => html`<option value=${kind}>${NAMES[kind]}</option>`)}
      </select>`;
  }

  #paneView(pane: Shown) {
    const { view } = pane;
    const views = {
      countdowns: () => html`<p-countdowns .view=${view}></p-countdowns>`,
      lines: () => html`<p-lines .view=${view}></p-lines>`,
      messages: () => html`<p-messages .view=${view}></p-messages>`,
      server: () => html`<p-server .view=${view}></p-server>`,
    };
    return html`
      <section class="pane" aria-label=${view.path || view.params["topics"] || NAMES[view.kind]}
        @click=${(event: MouseEvent) => this.#follow(event, pane)} @view-change=${(event: ViewChange) => this.#changed(event, pane)}>
        ${views[view.kind]()}
        ${this.panes.length > 1
          ? html`<button type="button" class="quiet close" aria-label="Close this pane" title="Close this pane" @click=${() => this.#close(pane)}>×</button>`
          : nothing}
      </section>`;
  }

  /** A link in a pane opens in this pane, and not in place of all of them. */
  #follow(event: MouseEvent, pane: Shown): void {
    const link = (event.target as Element).closest?.("a[href^='#/']");
    const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.defaultPrevented;
    if (!link || !isPlain) return;
    event.preventDefault();
    const [view] = parseViews(link.getAttribute("href") ?? "");
    if (view) this.#replace(pane, view, true);
  }

  #changed({ detail: { view, isStep } }: ViewChange, pane: Shown): void {
    if (formatView(pane.view) !== formatView(view)) this.#replace(pane, view, isStep);
  }

  #replace(pane: Shown, view: View, isStep: boolean): void {
    this.panes = this.panes.map((one) => (one.id === pane.id ? { ...one, view } : one));
    this.#note(isStep);
  }

  #open(event: Event): void {
    const select = event.target as HTMLSelectElement;
    const kind = select.value as Kind;
    select.value = "";
    if (this.panes.length >= MAX_PANES) return;
    this.panes = [...this.panes, this.#pane({ kind, path: "", params: {} })];
    this.#note(true);
    announce(`${NAMES[kind]} opened beside`);
  }

  #close(pane: Shown): void {
    this.panes = this.panes.filter(({ id }) => id !== pane.id);
    this.#note(true);
    this.querySelector<HTMLElement>("main")?.focus();
  }

  #skip(event: Event): void {
    event.preventDefault();
    this.querySelector<HTMLElement>("main")?.focus();
  }

  #signIn() {
    return html`
      <form class="sign-in" aria-label="Sign in" @submit=${this.#submitToken}>
        <label>This server asks for a token <input name="token" type="password" required autocomplete="off" size="40"></label>
        <button class="primary">Sign in</button>
        <button type="button" class="quiet" @click=${() => (this.needsToken = false)}>Not now</button>
        <p class="muted">The browser keeps it as a cookie for this server, which scripts cannot read.</p>
        ${this.fault ? html`<p class="fault" role="alert">${this.fault}</p>` : nothing}
      </form>`;
  }

  async #submitToken(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    try {
      await signIn(String(new FormData(form).get("token") ?? "").trim());
      form.reset();
      this.fault = "";
      this.needsToken = false;
      this.isSignedIn = true;
      remember(SIGNED_IN_KEY, "");
      this.#reopen();
    } catch (error) {
      this.fault = faultOf(error);
    }
  }

  async #signOut(): Promise<void> {
    await signOut().catch(() => undefined);
    this.isSignedIn = false;
    remember(SIGNED_IN_KEY, undefined);
    this.#reopen();
  }

  /** Opens all panes again, with other rights. */
  #reopen(): void {
    this.panes = this.panes.map(({ view }) => this.#pane(view));
  }

  #useScheme(scheme: Scheme): void {
    this.scheme = scheme;
    document.documentElement.dataset["scheme"] = scheme;
    remember(SCHEME_KEY, scheme);
  }
}

/** Keeps a text for the next visit, where the browser allows it. */
function remember(key: string, text: string | undefined): void {
  try {
    if (text === undefined) localStorage.removeItem(key);
    else localStorage.setItem(key, text);
  } catch {
    // It holds until the page is closed.
  }
}

function recall(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

customElements.define("p-app", App);
