import { StateError } from "./errors.js";

const VERSION = 1;

/** @internal */
export type Kind = "countdown" | "lines" | "messages";

/**
 * What identifies an item among those after a cursor. Each kind of stream uses its own fields. JSON has 64-bit numbers as
 * strings of digits.
 *
 * @internal
 */
export interface Key {
  /** Of lines: the number of changes of the file since the cursor, the offset, and the bytes of a line that may grow. */
  switches?: number;
  offset?: string;
  bytes?: string;
  /** Of messages. The time tells a message from another one with this sequence, in a log that was restored. */
  sequence?: string;
  publish_time?: string;
  /** Of ticks. Only a shared countdown has versions. */
  remaining?: number;
  version?: string;
}

/**
 * Where a stream continues: after the item `after` of those that follow the cursor, or after the cursor itself.
 *
 * @internal
 */
export interface State {
  cursor: string;
  after?: Key | undefined;
}

const DIGITS = /^-?\d{1,19}$/;
const isNumber = (value: unknown) => Number.isInteger(value);
const isDigits = (value: unknown) => typeof value === "string" && DIGITS.test(value);
const isMissing = (value: unknown) => value === undefined;

const KEYS: Record<Kind, (key: Key) => boolean> = {
  lines: ({ switches, offset, bytes }) =>
    isNumber(switches) && isDigits(offset) && (isMissing(bytes) || isDigits(bytes)),
  messages: ({ sequence, publish_time: time }) => isDigits(sequence) && (isMissing(time) || isDigits(time)),
  countdown: ({ remaining, version }) => isNumber(remaining) && (isMissing(version) || isDigits(version)),
};

/** @internal */
export function stateText(kind: Kind, { cursor, after }: State): string {
  return JSON.stringify({ version: VERSION, kind, cursor, after });
}

/**
 * Reads a state, or a bare cursor as the command line has it.
 *
 * @internal
 */
export function parseState(text: string, kind: Kind, place: string): State {
  const trimmed = text.trim();
  if (trimmed === "") throw new StateError(place, "is empty");
  if (!trimmed.startsWith("{")) {
    if (/\s/.test(trimmed) || trimmed.length > 1_024) throw new StateError(place, "is neither a state nor a cursor");
    return { cursor: trimmed };
  }
  let read: { version?: unknown; kind?: unknown; cursor?: unknown; after?: Key | null };
  try {
    read = JSON.parse(trimmed);
  } catch (error) {
    throw new StateError(place, `is damaged (${error instanceof Error ? error.message : error})`);
  }
  const { version, kind: found, cursor, after } = read;
  if (version !== VERSION) {
    throw new StateError(place, `has the version ${version}, and this client knows version ${VERSION}`);
  }
  if (found !== kind) throw new StateError(place, `is of a stream of ${JSON.stringify(found)}, not of "${kind}"`);
  if (typeof cursor !== "string" || cursor === "") throw new StateError(place, "has no cursor");
  if (after === undefined || after === null) return { cursor };
  if (typeof after !== "object" || !KEYS[kind](after)) {
    throw new StateError(place, `has a key that is not one of ${kind}`);
  }
  return { cursor, after };
}
