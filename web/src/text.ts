// Text of files and messages, which is never trusted: it becomes text nodes only, and characters that would not show, or that
// would change how the text around them shows, become visible.
import { type TemplateResult, html } from "lit";

/** Controls but tab, marks of direction and joining, separators, tags, and lone halves of pairs. */
const HIDDEN =
  /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Cs}/u;
const HIDDEN_ALL = new RegExp(HIDDEN, "gu");

/** The characters of a text that a row shows. */
export const MAX_SHOWN = 8_192;

/** A text for a row: hidden characters are visible, matches are marked, and a long text is cut. */
export function showText(text: string, find?: RegExp): (string | TemplateResult)[] {
  const shown = text.length > MAX_SHOWN ? text.slice(0, MAX_SHOWN) : text;
  const parts: (string | TemplateResult)[] = [];
  if (find === undefined) {
    parts.push(...visible(shown));
  } else {
    let at = 0;
    for (const match of shown.matchAll(find)) {
      if (match[0] === "") break;
      parts.push(...visible(shown.slice(at, match.index)), html`<mark>${visible(match[0])}</mark>`);
      at = match.index + match[0].length;
    }
    parts.push(...visible(shown.slice(at)));
  }
  if (shown.length < text.length) {
    parts.push(html`<span class="more">… ${format(text.length - shown.length)} more characters: open the row</span>`);
  }
  return parts;
}

/** A whole text, with hidden characters visible. */
export function visible(text: string): (string | TemplateResult)[] {
  if (!HIDDEN.test(text)) return text === "" ? [] : [text];
  const parts: (string | TemplateResult)[] = [];
  let at = 0;
  for (const match of text.matchAll(HIDDEN_ALL)) {
    if (match.index > at) parts.push(text.slice(at, match.index));
    parts.push(html`<span class="hidden-character">${nameOf(match[0])}</span>`);
    at = match.index + match[0].length;
  }
  if (at < text.length) parts.push(text.slice(at));
  return parts;
}

/** A picture of a control character, or the number of another one. */
function nameOf(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

/** An expression that finds a text as it is, in either case. */
export function finder(text: string): RegExp | undefined {
  return text === "" ? undefined : new RegExp(text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"), "giu");
}

const numbers = new Intl.NumberFormat("en-US");

/** A number with separators of thousands. */
export function format(value: number | bigint): string {
  return numbers.format(value);
}

/** A number of things: "1 line", "2,000 lines". */
export function count(value: number | bigint, one: string, many = `${one}s`): string {
  return `${format(value)} ${Number(value) === 1 ? one : many}`;
}

export function bytes(value: number | bigint): string {
  let left = Number(value);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (left < 1_024) return `${unit === "B" || left >= 100 ? Math.round(left) : left.toFixed(1)} ${unit}`;
    left /= 1_024;
  }
  return `${left.toFixed(1)} TiB`;
}

interface Instant {
  seconds: bigint;
  nanos: number;
}

export function toDate({ seconds, nanos }: Instant): Date {
  return new Date(Number(seconds) * 1_000 + Math.floor(nanos / 1e6));
}

/** Hours, minutes, seconds and milliseconds in local time. */
export function clock(time: Instant | undefined, hasMillis = true): string {
  if (time === undefined) return "";
  const date = toDate(time);
  const pad = (value: number, digits = 2) => String(value).padStart(digits, "0");
  const text = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return hasMillis ? `${text}.${pad(date.getMilliseconds(), 3)}` : text;
}

/** The day and the time in local time; the time alone for today. */
export function moment(time: Instant | undefined): string {
  if (time === undefined) return "";
  const date = toDate(time);
  const isToday = date.toDateString() === new Date().toDateString();
  const day = `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")}`;
  return isToday ? clock(time, false) : `${day} ${clock(time, false)}`;
}

/** A time with its nanoseconds, as the contract's JSON has it. */
export function timestamp(time: Instant | undefined): string {
  if (time === undefined) return "";
  const whole = new Date(Number(time.seconds) * 1_000).toISOString().slice(0, 19);
  return `${whole}.${String(time.nanos).padStart(9, "0")}Z`;
}

/** How long ago a moment is, roughly. */
export function ago(time: Instant | undefined): string {
  if (time === undefined) return "";
  const seconds = Math.max((Date.now() - toDate(time).getTime()) / 1_000, 0);
  if (seconds < 60) return "just now";
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}
