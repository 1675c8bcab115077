// The form that publishes a message.
import { html, nothing } from "lit";

import { Element, announce } from "./element.js";
import { client, faultOf, newRequestId, noticeError } from "./session.js";
import { clock } from "./text.js";

export class Publish extends Element {
  static override properties = { topic: {}, fault: { state: true }, receipt: { state: true }, isBusy: { state: true } };

  topic = "";
  fault = "";
  receipt = "";
  isBusy = false;

  protected override render() {
    return html`
      <details class="publish">
        <summary>Publish a message</summary>
        <form @submit=${this.#publish} @keydown=${this.#key}>
          <label>Topic <input name="topic" required autocomplete="off" .value=${this.topic} list="topics"></label>
          <label>Key <input name="key" autocomplete="off"></label>
          <label class="wide">Text <textarea name="text" rows="3" spellcheck="false"></textarea></label>
          <label class="wide">Headers, one a line, as name: value <textarea name="headers" rows="1" spellcheck="false"></textarea></label>
          <div class="actions">
            <button class="primary" ?disabled=${this.isBusy}>Publish</button>
            <span class="muted">Ctrl+Enter</span>
            <output class="muted">${this.receipt}</output>
          </div>
          ${this.fault ? html`<p class="fault" role="alert">${this.fault}</p>` : nothing}
        </form>
      </details>`;
  }

  #key(event: KeyboardEvent): void {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    (event.currentTarget as HTMLFormElement).requestSubmit();
  }

  async #publish(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const data = new FormData(event.target as HTMLFormElement);
    const [topic = "", key, text = "", lines = ""] = ["topic", "key", "text", "headers"].map((name) => String(data.get(name) ?? ""));
    const headers: Record<string, string> = {};
    for (const line of lines.split("\n").filter((line) => line.trim() !== "")) {
      const at = line.indexOf(":");
      if (at < 1) {
        this.fault = `the header "${line}" has no name: try name: value`;
        return;
      }
      headers[line.slice(0, at).trim()] = line.slice(at + 1).trim();
    }
    this.fault = "";
    this.isBusy = true;
    try {
      const content = { case: "text" as const, value: text };
      // With an id the package repeats the call after a lost answer, and the message is published once.
      const request = { topic, content, headers, messageId: newRequestId(), ...(key ? { key } : {}) };
      const { sequence, publishTime } = await client.messageService.publish(request);
      this.receipt = `on disk as ${sequence}, ${clock(publishTime)}`;
      announce(`published as ${sequence}`);
    } catch (error) {
      noticeError(error);
      this.fault = faultOf(error);
    } finally {
      this.isBusy = false;
    }
  }
}

customElements.define("p-publish", Publish);
