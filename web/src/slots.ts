// The streams that may be open at once. Without TLS a browser has six connections to a server, over all its tabs, and an open
// stream keeps one. A seventh request would wait in silence, so the tabs of the page share four slots, by locks of the browser.

export const MAX_STREAMS = 4;

const names = Array.from({ length: MAX_STREAMS }, (_, n) => `perennial-stream-${n + 1}`);
const watchers = new Set<() => void>();
let own = 0;

/** How many streams this tab has open. */
export function ownStreams(): number {
  return own;
}

/** How many streams all tabs have open. */
export async function allStreams(): Promise<number> {
  if (!("locks" in navigator)) return own;
  const { held = [] } = await navigator.locks.query();
  return held.filter(({ name }) => name !== undefined && names.includes(name)).length;
}

/** Calls a function whenever this tab opens or ends a stream. Returns the function that stops it. */
export function watchStreams(watcher: () => void): () => void {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

/** Waits for a slot, and returns the function that gives it back. */
export async function takeSlot(signal: AbortSignal): Promise<() => void> {
  const give = "locks" in navigator ? await takeLock(signal) : await takeTurn(signal);
  own += 1;
  for (const watcher of watchers) watcher();
  return () => {
    own -= 1;
    give();
    for (const watcher of watchers) watcher();
  };
}

/** Takes a free slot. If none is free, asks for all of them, keeps the first, and takes back the other requests. */
async function takeLock(signal: AbortSignal): Promise<() => void> {
  for (const name of names) {
    // Asking for all at once would take them all for a moment, and other tabs would see no free one.
    const give = await tryLock(name);
    if (give === undefined) continue;
    if (!signal.aborted) return give;
    give();
    throw signal.reason;
  }
  return waitForLock(signal);
}

function tryLock(name: string): Promise<(() => void) | undefined> {
  return new Promise((resolve, reject) => {
    navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      if (lock !== null) return new Promise<void>((give) => resolve(give));
      resolve(undefined);
      return undefined;
    }).catch(reject);
  });
}

function waitForLock(signal: AbortSignal): Promise<() => void> {
  const others = new AbortController();
  const ended = AbortSignal.any([signal, others.signal]);
  return new Promise((resolve, reject) => {
    let isTaken = false;
    for (const name of names) {
      const keep = () => {
        if (isTaken) return;
        isTaken = true;
        others.abort();
        return new Promise<void>((give) => resolve(give));
      };
      navigator.locks.request(name, { signal: ended }, keep).catch(() => {
        if (signal.aborted) reject(signal.reason);
      });
    }
  });
}

// A page that came over plain HTTP from another machine has no locks: it counts its own streams.
const waiting: (() => void)[] = [];
let turns = MAX_STREAMS;

async function takeTurn(signal: AbortSignal): Promise<() => void> {
  if (turns > 0) {
    turns -= 1;
  } else {
    await new Promise<void>((resolve, reject) => {
      waiting.push(resolve);
      signal.addEventListener("abort", () => {
        const at = waiting.indexOf(resolve);
        if (at >= 0) waiting.splice(at, 1);
        reject(signal.reason);
      });
    });
  }
  return () => {
    const next = waiting.shift();
    if (next) next();
    else turns += 1;
  };
}
