// The view in hand as commands and programs, for a terminal.
import { html, nothing } from "lit";

import { Element, announce, newId } from "./element.js";
import { faultOf } from "./session.js";

/** A call as each program names it. */
export interface Call {
  /** SERVICE/METHOD of `perennial.v1`. */
  method: string;
  /** The request in the contract's JSON. */
  request: Record<string, unknown>;
  /** The path at which plain HTTP has the call, the field of the request that is in it, and how parameters are named otherwise. */
  door: { path: string; field?: string; names?: Record<string, string> };
  /** The arguments of the program `perennial`. */
  command: string[];
  /** The call in Python, without the client, and a line with what else it imports. */
  python: string;
  pythonImport?: string;
  /** How Python shows an item. */
  pythonItem: string;
}

/** Quotes a word for a shell, if it needs that. */
export function shell(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** A text as Python writes it. */
export function python(text: string): string {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

interface Snippet {
  name: string;
  text: string;
}

export function snippets(call: Call, origin: string): Snippet[] {
  const url = new URL(origin);
  const isSecure = url.protocol === "https:";
  const port = url.port || (isSecure ? "443" : "80");
  const at = `${url.hostname}:${port}`;
  const server = `${url.protocol}//${at}`;
  const request = JSON.stringify(call.request);
  const plain = isSecure ? "" : "-plaintext ";
  const program = [
    ...(call.pythonImport === undefined ? [] : [call.pythonImport, ""]),
    "from perennial_streams import Client",
    "",
    `client = Client(${python(server)})`,
    `for item in client.${call.python}:`,
    `    print(${call.pythonItem})`,
  ];
  return [
    { name: "perennial", text: ["perennial", "--server", server, ...call.command].map(shell).join(" ") },
    { name: "grpcurl", text: `grpcurl ${plain}-d ${shell(request)} ${at} perennial.v1.${call.method}` },
    { name: "Python", text: program.join("\n") },
    { name: "curl", text: `curl -N ${shell(`${url.origin}${doorOf(call)}`)}` },
    { name: "Link", text: window.location.href },
  ];
}

/** The path and the parameters of a call over plain HTTP. */
function doorOf({ door, request }: Call): string {
  const pairs = Object.entries(request).flatMap(([name, value]) => {
    if (name === door.field) return [];
    const values = Array.isArray(value) ? value : [value];
    const parameter = door.names?.[name] ?? name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    return values.map((one) => (one === true ? parameter : `${parameter}=${encodeURIComponent(String(one))}`));
  });
  return `${door.path}${pairs.length === 0 ? "" : `?${pairs.join("&")}`}`;
}

/** A button that offers the view in hand as commands. `call` is asked when it is opened. */
export class Copy extends Element {
  static override properties = { call: { attribute: false }, isOpen: { state: true }, found: { state: true } };

  call: () => Promise<Call> | Call = () => Promise.reject(new Error("there is nothing to copy"));
  isOpen = false;
  found: { snippets: Snippet[] } | { fault: string } | undefined;
  readonly #id = newId("copy");

  protected override render() {
    return html`
      <button type="button" class="quiet" popovertarget=${this.#id} aria-haspopup="dialog">Copy as…</button>
      <div id=${this.#id} popover class="sheet copy" role="dialog" aria-label="Copy this view" @toggle=${this.#toggled}>
        ${this.isOpen ? this.#content() : nothing}
      </div>`;
  }

  #content() {
    const { found } = this;
    if (found === undefined) return html`<p class="muted">Asking the server for the cursor…</p>`;
    if ("fault" in found) return html`<p class="fault">${found.fault}</p>`;
    return html`
      ${found.snippets.map(
        ({ name, text }) => html`
          <section>
            <h3>${name}</h3>
            <button type="button" class="quiet" aria-label="Copy as ${name}" @click=${() => this.#copy(name, text)}>Copy</button>
            <pre tabindex="0" aria-label="The view as ${name}">${text}</pre>
          </section>`,
      )}`;
  }

  async #toggled(event: ToggleEvent): Promise<void> {
    this.isOpen = event.newState === "open";
    if (!this.isOpen) return;
    this.found = undefined;
    try {
      const call = await this.call();
      this.found = { snippets: snippets(call, window.location.origin) };
    } catch (error) {
      this.found = { fault: faultOf(error) };
    }
  }

  async #copy(name: string, text: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      announce(`copied as ${name}`);
    } catch {
      announce("the browser does not allow to copy: select the text");
    }
  }
}

customElements.define("p-copy", Copy);
