// The client of the server that served the page. A token is exchanged for a cookie that scripts cannot read and that goes to
// this server only; the page keeps no token.
import { PerennialError, connect } from "perennial-client/web";

export const client = connect();

/** Asks the page to show the form for a token. */
export const SIGN_IN_NEEDED = "sign-in-needed";

/** Shows the form for a token if an error says that the server demands one. */
export function noticeError(error: unknown): void {
  if (error instanceof PerennialError && error.reason.startsWith("CREDENTIALS_")) {
    window.dispatchEvent(new Event(SIGN_IN_NEEDED));
  }
}

const SESSION = "/v1/session";

/** Exchanges a token for a cookie. Throws an error with a text for people. */
export async function signIn(token: string): Promise<void> {
  const body = JSON.stringify({ token });
  const answer = await fetch(SESSION, { method: "POST", headers: { "content-type": "application/json" }, body });
  if (answer.ok) return;
  const problem = (await answer.json().catch(() => ({}))) as { detail?: string; title?: string };
  throw new Error(problem.detail ?? problem.title ?? `the server answered ${answer.status}`);
}

/** Removes the cookie. */
export async function signOut(): Promise<void> {
  await fetch(SESSION, { method: "DELETE" });
}

/** An error as one sentence. */
export function faultOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An id that makes a request safe to repeat. */
export function newRequestId(): string {
  const parts = crypto.getRandomValues(new Uint8Array(16));
  return [...parts].map((part) => part.toString(16).padStart(2, "0")).join("");
}
