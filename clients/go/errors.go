package perennial

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

// The domain of the ErrorInfo that the server makes.
const domain = "perennial"

// ErrClosed ends the streams and calls of a client that was closed.
var ErrClosed = errors.New("the client is closed")

// Error is the error of a call, from the server or from the transport.
type Error struct {
	// Code is the gRPC code.
	Code codes.Code
	// Reason is the reason of the server; ERROR_REASON_UNSPECIFIED if there is none, or one that this package does not
	// know.
	Reason perennialv1.ErrorReason
	// ReasonName is the name of the reason, also of one that this package does not know. Empty if the error is not from
	// the server.
	ReasonName string
	// Field is the field of the request that is wrong, such as "topic"; empty if the fault is not in a field.
	Field string
	// Metadata has facts for programs, such as "oldest" or "limit".
	Metadata map[string]string
	// Message is the text for people.
	Message string
	// RetryDelay is the delay that the server asks for. It counts only if CanRetry.
	RetryDelay time.Duration

	canRetry bool
	cause    error
}

// Error returns the text for people, with code and reason.
func (e *Error) Error() string {
	if e.ReasonName != "" {
		return fmt.Sprintf("%s (%s)", e.Message, e.ReasonName)
	}
	return fmt.Sprintf("%s (%s)", e.Message, e.Code)
}

// CanRetry reports whether the same call can succeed later. Streams and publishers retry by themselves.
func (e *Error) CanRetry() bool { return e.canRetry }

// GRPCStatus makes the error one of gRPC, for [status.FromError].
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// Is makes a deadline that the server noticed first look as one that this process noticed.
func (e *Error) Is(target error) bool {
	return target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded
}

// Unwrap returns the error of the context or of gRPC that caused this one.
func (e *Error) Unwrap() error { return e.cause }

// GapError ends a stream without events where items are missing. [Client.ReadLinesAndEvents] and
// [Client.MessagesAndEvents] yield the gap as an event and continue.
type GapError struct {
	// Lines is the gap of a stream of lines, otherwise nil.
	Lines *perennialv1.LineGap
	// Messages is the gap of a stream of messages, otherwise nil.
	Messages *perennialv1.MessageGap
}

func (e *GapError) Error() string {
	if gap := e.Messages; gap != nil {
		return fmt.Sprintf("messages from sequence %d to %d are missing: %s",
			gap.GetFirstSequence(), gap.GetLastSequence(), gap.GetReason())
	}
	if e.Lines.GetFile() != "" {
		return fmt.Sprintf("lines are missing: %s %s", e.Lines.GetFile(), e.Lines.GetFault())
	}
	if e.Lines.ByteCount != nil {
		return fmt.Sprintf("lines with %d bytes are missing: %s", e.Lines.GetByteCount(), e.Lines.GetReason())
	}
	return fmt.Sprintf("lines are missing: %s", e.Lines.GetReason())
}

// StateError is a state that cannot be used. A stream never starts from the beginning instead.
type StateError struct {
	// Place is the file, or "the state".
	Place string
	// Fault is what is wrong with it.
	Fault string
}

func (e *StateError) Error() string {
	return fmt.Sprintf("%s %s: restore it, or remove it to start from the beginning", e.Place, e.Fault)
}

// OutcomeUnknownError is the result of a message whose answer was lost, and which may be published or not: sending it
// again could publish it twice, because the server may have forgotten its id.
type OutcomeUnknownError struct {
	// MessageID is the id of the message.
	MessageID string
	// Waited is the time since the message was first sent.
	Waited time.Duration
}

func (e *OutcomeUnknownError) Error() string {
	return fmt.Sprintf("the message %s was sent %v ago and is not answered: it may be published or not",
		e.MessageID, e.Waited.Round(time.Second))
}

// ProtocolError is an answer that no server of this version gives.
type ProtocolError struct {
	// Fault is what the server did.
	Fault string
}

func (e *ProtocolError) Error() string { return "the server does not keep to the protocol: " + e.Fault }

// fromGRPC makes an Error of an error of grpc-go, and decides whether the call can be tried again. A reason of the server
// decides if there is one, and the code otherwise: the transport reports a lost connection by several codes.
func fromGRPC(err error) *Error {
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	failure := status.Convert(err)
	made := &Error{Code: failure.Code(), Message: failure.Message(), cause: err}
	isFromServer, hasDelay := false, false
	for _, detail := range failure.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				isFromServer = true
				made.ReasonName, made.Metadata = detail.GetReason(), detail.GetMetadata()
				made.Reason = perennialv1.ErrorReason(perennialv1.ErrorReason_value[made.ReasonName])
			}
		case *errdetails.RetryInfo:
			hasDelay, made.RetryDelay = true, detail.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			if fields := detail.GetFieldViolations(); len(fields) > 0 {
				made.Field = fields[0].GetField()
			}
		}
	}
	if isFromServer {
		made.canRetry = hasDelay
		return made
	}
	made.RetryDelay = 0
	switch made.Code {
	case codes.Unavailable, codes.Unknown, codes.Internal, codes.Aborted, codes.Canceled:
		made.canRetry = !isRefusedHandshake(made)
	}
	return made
}

// isRefusedHandshake reports whether client and server do not trust each other: the next connection fails as well. grpc-go
// keeps no more than the text of such an error.
func isRefusedHandshake(err *Error) bool {
	for _, text := range []string{"x509: ", "remote error: tls: ", "first record does not look like a TLS handshake"} {
		if err.Code == codes.Unavailable && strings.Contains(err.Message, text) {
			return true
		}
	}
	return false
}

// fromContext is the error of a caller's context that has ended: Canceled as it is, and a deadline as an Error.
func fromContext(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), ErrClosed) {
		return ErrClosed
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Code: codes.DeadlineExceeded, Message: "the deadline of the caller has passed", cause: ctx.Err()}
	}
	return ctx.Err()
}

func unavailable(format string, args ...any) *Error {
	return &Error{Code: codes.Unavailable, Message: fmt.Sprintf(format, args...), canRetry: true}
}
