// Package perennial shows how a client that is generated from proto/ resumes its streams.
//
// Its tests cut the connection again and again, and compare every line and every number. They need
// target/release/perenniald, or the server that PERENNIALD names.
package perennial

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

// Dial makes a channel that returns within about two seconds after an outage: without a bound on the backoff it can
// take half a minute. The pings find a connection that died in silence.
func Dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second,
			},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
	)
}

// RetryDelay returns how long to wait before the same request is sent with the last cursor, and whether that can help.
// An error that does not come from gRPC is not tried again.
func RetryDelay(err error) (time.Duration, bool) {
	failure, ok := status.FromError(err)
	if !ok {
		return 0, false
	}
	isFromServer := false
	var delay *time.Duration
	for _, detail := range failure.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			isFromServer = isFromServer || detail.GetDomain() == "perennial"
		case *errdetails.RetryInfo:
			given := detail.GetRetryDelay().AsDuration()
			delay = &given
		}
	}
	if isFromServer {
		if delay == nil {
			return 0, false
		}
		return *delay, true
	}
	// The transport or this library failed. Ask only after a call that you did not cancel.
	switch failure.Code() {
	case codes.Unavailable, codes.Unknown, codes.Internal, codes.Aborted, codes.Canceled:
		return 500 * time.Millisecond, true
	default:
		return 0, false
	}
}

// Reason returns why the server refused a call, or ERROR_REASON_UNSPECIFIED if it was not the server or if this client
// does not know the reason.
func Reason(err error) perennialv1.ErrorReason {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "perennial" {
			return perennialv1.ErrorReason(perennialv1.ErrorReason_value[info.GetReason()])
		}
	}
	return perennialv1.ErrorReason_ERROR_REASON_UNSPECIFIED
}
