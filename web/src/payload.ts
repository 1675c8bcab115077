// One message in full.
import type { StoredMessage } from "perennial-client/web";
import { html, nothing } from "lit";

import { Element, announce } from "./element.js";
import { bytes, timestamp, visible } from "./text.js";

/** The bytes of binary data that are shown. */
const MAX_HEX = 4_096;

export class Payload extends Element {
  static override properties = { message: { attribute: false }, isIndented: { state: true } };

  message: StoredMessage | undefined;
  close: () => void = () => {};
  isIndented = true;

  protected override render() {
    const { message } = this;
    if (message === undefined) return nothing;
    const { sequence, topic, publishTime, key, headers, messageId, expireTime, content } = message;
    const json = content.case === "text" ? indented(content.value) : undefined;
    const text = content.case === "data" ? hex(content.value) : this.isIndented && json !== undefined ? json : (content.value ?? "");
    const size = content.case === "data" ? content.value.length : new TextEncoder().encode(content.value ?? "").length;
    return html`
      <section class="details" aria-label="The message">
        <header class="bar">
          <dl>
            <div><dt>sequence</dt><dd>${sequence}</dd></div>
            <div><dt>topic</dt><dd>${visible(topic)}</dd></div>
            <div><dt>published</dt><dd>${timestamp(publishTime)}</dd></div>
            <div><dt>size</dt><dd>${bytes(size)}</dd></div>
            ${key === undefined ? nothing : html`<div><dt>key</dt><dd>${visible(key)}</dd></div>`}
            ${messageId === undefined ? nothing : html`<div><dt>id</dt><dd>${visible(messageId)}</dd></div>`}
            ${expireTime === undefined ? nothing : html`<div><dt>expires</dt><dd>${timestamp(expireTime)}</dd></div>`}
            ${Object.entries(headers).map(([name, value]) => html`<div><dt>${visible(name)}</dt><dd>${visible(value)}</dd></div>`)}
          </dl>
          <span class="space"></span>
          ${json === undefined
            ? nothing
            : html`<label class="toggle"><input type="checkbox" .checked=${this.isIndented}
                @change=${() => (this.isIndented = !this.isIndented)}>Indent JSON</label>`}
          ${content.case === "data" ? nothing : html`<button type="button" class="quiet" @click=${() => this.#copy(content.value ?? "")}>Copy text</button>`}
          <button type="button" class="quiet" aria-label="Close details" @click=${this.close}>Close</button>
        </header>
        <pre tabindex="0" aria-label="Payload of the message">${text.split("\n").map((line, n) => (n === 0 ? visible(line) : ["\n", visible(line)]))}</pre>
      </section>`;
  }

  async #copy(text: string): Promise<void> {
    await navigator.clipboard.writeText(text).then(() => announce("copied"), () => announce("the browser does not allow to copy"));
  }
}

/** JSON with indents, or undefined if the text is not JSON. The tokens stay as they are: a large number keeps its digits. */
function indented(text: string): string | undefined {
  if (!/^\s*[{[]/.test(text)) return undefined;
  try {
    JSON.parse(text);
  } catch {
    return undefined;
  }
  let made = "";
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g)) {
    if (token === "{" || token === "[") {
      depth += 1;
      made += token + line();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      made = /[{[]\s*$/.test(made) ? made.trimEnd() + token : made + line() + token;
    } else {
      made += token === "," ? token + line() : token === ":" ? ": " : token;
    }
  }
  return made;
}

function hex(data: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < Math.min(data.length, MAX_HEX); at += 16) {
    const part = [...data.subarray(at, at + 16)];
    const digits = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = part.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${digits.padEnd(47)}  ${text}`);
  }
  if (data.length > MAX_HEX) lines.push(`… ${bytes(data.length - MAX_HEX)} more`);
  return lines.join("\n");
}

customElements.define("p-payload", Payload);
