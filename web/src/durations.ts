// Durations and moments as people write them: 90, 5m, 1h30m, 18:00.

/** The parts of a duration or a moment of the contract. */
interface Parts {
  seconds: bigint;
  nanos: number;
}

const UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export type Target =
  | { case: "start"; value: number }
  | { case: "duration"; value: number }
  | { case: "until"; value: Date };

/** Reads a number to count from, a duration in milliseconds, or a time of day to come. */
export function parseTarget(text: string, now = new Date()): Target | undefined {
  const trimmed = text.trim();
  if (/^\d{1,10}$/.test(trimmed)) return { case: "start", value: Number(trimmed) };
  const time = /^([01]?\d|2[0-3]):([0-5]\d)$/.exec(trimmed);
  if (time) {
    const moment = new Date(now);
    moment.setHours(Number(time[1]), Number(time[2]), 0, 0);
    if (moment <= now) moment.setDate(moment.getDate() + 1);
    return { case: "until", value: moment };
  }
  const value = parseDuration(trimmed);
  return value === undefined || value <= 0 ? undefined : { case: "duration", value };
}

/** Reads a duration such as 1h30m or -45s, in milliseconds. */
export function parseDuration(text: string): number | undefined {
  const found = /^([+-]?)((?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+)$/.exec(text.trim());
  if (!found) return undefined;
  let total = 0;
  for (const [, value, unit] of (found[2] ?? "").matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    total += Number(value) * (UNITS[unit ?? "s"] ?? 0);
  }
  return found[1] === "-" ? -total : total;
}

/** A duration of the contract. */
export function toDuration(millis: number): Parts {
  const seconds = Math.trunc(millis / 1_000);
  return { seconds: BigInt(seconds), nanos: Math.round((millis - seconds * 1_000) * 1e6) };
}

export function toMillis(duration: Parts | undefined): number {
  return duration === undefined ? 0 : Number(duration.seconds) * 1_000 + duration.nanos / 1e6;
}

export function toTimestamp(date: Date): Parts {
  const millis = date.getTime();
  const seconds = Math.floor(millis / 1_000);
  return { seconds: BigInt(seconds), nanos: (millis - seconds * 1_000) * 1e6 };
}

/** What is left, in whole seconds rounded up: 1:02:03, 4:05, 0:07. From a day on, in days and hours. */
export function left(millis: number): string {
  const total = Math.max(Math.ceil(millis / 1_000), 0);
  const [days, hours, minutes, seconds] = [
    Math.floor(total / 86_400), Math.floor(total / 3_600) % 24, Math.floor(total / 60) % 60, total % 60,
  ];
  const pad = (value: number) => String(value).padStart(2, "0");
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(seconds)}` : `${minutes}:${pad(seconds)}`;
}
