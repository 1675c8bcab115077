// The files that can be read, to choose one.
import type { FileInfo } from "perennial-client/web";
import { html, nothing } from "lit";

import { Element } from "./element.js";
import { client, faultOf, noticeError } from "./session.js";
import { ago, bytes, count, moment } from "./text.js";

const SHOWN = 500;
const PAGE = 1_000;
const MAX_PAGES = 10;

export class Files extends Element {
  static override properties = { files: { state: true }, filter: { state: true }, fault: { state: true }, isNewestFirst: { state: true } };

  go: (path: string) => void = () => {};
  files: FileInfo[] | undefined;
  filter = "";
  fault = "";
  isNewestFirst = false;
  hasMore = false;

  override connectedCallback(): void {
    super.connectedCallback();
    void this.#load();
  }

  async #load(): Promise<void> {
    this.fault = "";
    try {
      const files: FileInfo[] = [];
      let pageToken = "";
      for (let page = 0; page < MAX_PAGES; page += 1) {
        const answer = await client.lineService.listFiles({ pageSize: PAGE, pageToken });
        files.push(...answer.files);
        pageToken = answer.nextPageToken;
        if (pageToken === "") break;
      }
      this.hasMore = pageToken !== "";
      this.files = files;
    } catch (error) {
      noticeError(error);
      this.fault = faultOf(error);
    }
  }

  protected override render() {
    const { files } = this;
    return html`
      <header class="bar">
        <h2>Files</h2>
        <span class="muted">${files ? count(files.length, "file") : ""}${this.hasMore ? " and more" : ""}</span>
        <span class="space"></span>
        <label class="toggle"><input type="checkbox" .checked=${this.isNewestFirst}
          @change=${() => (this.isNewestFirst = !this.isNewestFirst)}>Newest first</label>
        <input class="find" type="search" placeholder="Filter or path" aria-label="Filter the files, or enter a path"
          @input=${(event: Event) => (this.filter = (event.target as HTMLInputElement).value)}
          @keydown=${(event: KeyboardEvent) => event.key === "Enter" && this.#enter()}>
        <button type="button" class="quiet" @click=${() => this.#load()}>Refresh</button>
      </header>
      ${this.fault ? html`<p class="notice fault" role="alert">${this.fault}</p>` : nothing}
      ${files === undefined ? (this.fault ? nothing : html`<p class="empty muted">Reading the directories…</p>`) : this.#table(files)}`;
  }

  #table(files: FileInfo[]) {
    const filter = this.filter.toLowerCase();
    let found = files.filter(({ path }) => path.toLowerCase().includes(filter));
    if (this.isNewestFirst) found = found.toSorted((a, b) => Number((b.modifyTime?.seconds ?? 0n) - (a.modifyTime?.seconds ?? 0n)));
    if (files.length === 0) {
      return html`<div class="empty"><p>This server serves no files that you may list.</p>
        <p class="muted">Start it with <code>--root logs=/var/log</code>, or with <code>--demo</code>.</p></div>`;
    }
    return html`
      <div class="scroll" tabindex="0" role="region" aria-label="Files">
        <table>
          <thead><tr><th scope="col">File</th><th scope="col" class="number">Size</th><th scope="col">Changed</th></tr></thead>
          <tbody>
            ${found.slice(0, SHOWN).map(
              ({ path, size, modifyTime, growing }) => html`
                <tr>
                  <th scope="row"><a href="#/lines/${path.split("/").map(encodeURIComponent).join("/")}?last=200&follow"
                    @click=${(event: MouseEvent) => this.#click(event, path)}>${path}</a></th>
                  <td class="number">${bytes(size ?? 0n)}</td>
                  <td class=${growing ? "growing" : "muted"} title=${moment(modifyTime)}>${growing ? "growing" : ago(modifyTime)}</td>
                </tr>`,
            )}
          </tbody>
        </table>
        ${found.length > SHOWN ? html`<p class="muted">${count(found.length - SHOWN, "more file")}: filter them.</p>` : nothing}
        ${found.length === 0 ? html`<p class="empty muted">No file matches. Press Enter to open this path.</p>` : nothing}
      </div>`;
  }

  #click(event: MouseEvent, path: string): void {
    // A click that opens a tab or a window stays a link.
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    this.go(path);
  }

  #enter(): void {
    const filter = this.filter.toLowerCase();
    const found = (this.files ?? []).filter(({ path }) => path.toLowerCase().includes(filter));
    const path = found.length > 0 ? found[0]?.path : this.filter;
    if (path) this.go(path);
  }
}

customElements.define("p-files", Files);
