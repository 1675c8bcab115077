import { Code, ConnectError } from "@connectrpc/connect";

import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { ErrorReason } from "./gen/perennial/v1/errors_pb.js";
import type { LineGap } from "./gen/perennial/v1/lines_pb.js";
import type { MessageGap, PublishResult } from "./gen/perennial/v1/messages_pb.js";

/** The domain of the ErrorInfo that the server makes. */
const DOMAIN = "perennial";

/** Codes of the transport and of the client's own library: connect-node reports a connection that was reset as ABORTED. */
const LOST: readonly Code[] = [Code.Unavailable, Code.Unknown, Code.Internal, Code.Canceled, Code.Aborted];

/** Codes of Node for a server that cannot be trusted, or for files that cannot be used: the next connection fails as well. */
const REFUSED = /^(ERR_TLS|ERR_SSL|ERR_OSSL|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH)/;

/** What a {@link PerennialError} is made of. */
export interface Facts {
  code: Code;
  message: string;
  reason?: string;
  field?: string;
  metadata?: Record<string, string>;
  retryDelayMs?: number | undefined;
  isRetryable?: boolean;
  cause?: unknown;
}

/** The error of a call, from the server or from the transport. */
export class PerennialError extends Error {
  override readonly name: string = "PerennialError";
  /** The gRPC code. */
  readonly code: Code;
  /** The name of the server's reason, also of one that this package does not know. Empty if the error is not from the server. */
  readonly reason: string;
  /** The field of the request that is wrong, such as `topic`; empty if the fault is not in a field. */
  readonly field: string;
  /** Facts for programs, such as `oldest` or `limit`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The delay that the server asks for, in milliseconds. */
  readonly retryDelayMs: number | undefined;
  /** Whether the same call can succeed later. Streams and publishers retry by themselves. */
  readonly isRetryable: boolean;

  constructor(facts: Facts) {
    super(facts.message, { cause: facts.cause });
    this.code = facts.code;
    this.reason = facts.reason ?? "";
    this.field = facts.field ?? "";
    this.metadata = facts.metadata ?? {};
    this.retryDelayMs = facts.retryDelayMs;
    this.isRetryable = facts.isRetryable ?? false;
  }

  /** The reason as a constant; ERROR_REASON_UNSPECIFIED if there is none, or one that this package does not know. */
  get reasonCode(): ErrorReason {
    const known = ErrorReason[this.reason as keyof typeof ErrorReason] as ErrorReason | undefined;
    return known ?? ErrorReason.ERROR_REASON_UNSPECIFIED;
  }
}

/**
 * Ends a stream without events where items are missing. With the option `events`, the stream yields the gap as an event
 * and continues.
 */
export class GapError extends Error {
  override readonly name = "GapError";

  /** @param gap what is missing. */
  constructor(readonly gap: LineGap | MessageGap) {
    super(
      gap.$typeName === "perennial.v1.MessageGap"
        ? `messages from sequence ${gap.firstSequence} to ${gap.lastSequence} are missing`
        : `lines are missing${detailsOf(gap)}`,
    );
  }
}

function detailsOf({ file, fault, byteCount }: LineGap): string {
  if (file !== "") return `: ${file} ${fault}`;
  return byteCount === undefined ? "" : `: ${byteCount} bytes`;
}

/** A state that cannot be used. A stream never starts from the beginning instead. */
export class StateError extends Error {
  override readonly name = "StateError";

  /** @param place the file, or "the state". */
  constructor(readonly place: string, fault: string) {
    super(`${place} ${fault}: restore it, or remove it to start from the beginning`);
  }
}

/**
 * The result of a message whose answer was lost, and which may be published or not: sending it again could publish it
 * twice, because the server may have forgotten its id.
 */
export class OutcomeUnknownError extends Error {
  override readonly name = "OutcomeUnknownError";

  constructor(readonly messageId: string, readonly waitedMs: number) {
    const seconds = Math.round(waitedMs / 1000);
    super(`the message ${messageId} was sent ${seconds} s ago and is not answered: it may be published or not`);
  }
}

/** An answer that no server of this version gives. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";

  constructor(fault: string) {
    super(`the server does not keep to the protocol: ${fault}`);
  }
}

/** The client, the publisher or the stream was closed. */
export class ClosedError extends Error {
  override readonly name = "ClosedError";
}

/** @internal */
export function unavailable(message: string): PerennialError {
  return new PerennialError({ code: Code.Unavailable, message, isRetryable: true });
}

/**
 * Decides whether a failed call can be tried again. A reason of the server decides if there is one, and the code
 * otherwise: the transport reports a lost connection by several codes.
 *
 * @internal
 */
export function fromConnect(error: unknown): Error {
  if (!(error instanceof ConnectError)) return error instanceof Error ? error : new Error(String(error));
  const info = error.findDetails(ErrorInfoSchema).find(({ domain }) => domain === DOMAIN);
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const facts = { code: error.code, message: error.rawMessage, cause: error };
  if (info === undefined) {
    const isRetryable = LOST.includes(error.code) && !isRefusedHandshake(error);
    return new PerennialError({ ...facts, isRetryable });
  }
  const violation = error.findDetails(BadRequestSchema)[0]?.fieldViolations[0];
  return new PerennialError({
    ...facts,
    reason: info.reason,
    field: violation?.field ?? "",
    metadata: info.metadata,
    retryDelayMs: delay && Number(delay.seconds) * 1_000 + delay.nanos / 1e6,
    isRetryable: delay !== undefined,
  });
}

/** Whether client and server do not trust each other. */
function isRefusedHandshake(error: unknown): boolean {
  const seen = new Set<unknown>();
  for (let cause = error; cause instanceof Error && !seen.has(cause); cause = cause.cause) {
    seen.add(cause);
    if ("code" in cause && typeof cause.code === "string" && REFUSED.test(cause.code)) return true;
  }
  return false;
}

/**
 * The error of one message of a flow, as a call of its own would have it.
 *
 * @internal
 */
export function fromResult({ outcome }: PublishResult): Error {
  if (outcome.case !== "error") return new ProtocolError("a result is neither a message nor an error");
  const { code, reason, message, field, metadata, retryDelay } = outcome.value;
  return new PerennialError({
    code,
    message,
    field,
    metadata,
    reason: reason === ErrorReason.ERROR_REASON_UNSPECIFIED ? "" : (ErrorReason[reason] ?? String(reason)),
    retryDelayMs: retryDelay && Number(retryDelay.seconds) * 1_000 + retryDelay.nanos / 1e6,
    isRetryable: retryDelay !== undefined,
  });
}
