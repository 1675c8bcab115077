package perennial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

// Version is the version of this package.
const Version = "0.1.0"

const (
	// The largest response. The server's limits of a line and of a message are far lower unless its operator raised them.
	maxResponseBytes = 64 << 20
	// The pings that find a connection that died in silence.
	pingAfter, pingTimeout = 30 * time.Second, 20 * time.Second
	// How long one attempt to connect may take.
	connectAttempt = 5 * time.Second
	// How long a call that is no stream may take if its context has no deadline.
	callTimeout = 30 * time.Second
)

// Client calls a server. It is safe for concurrent use, and its streams and calls share a connection.
type Client struct {
	connections *connections
	calls       resilient
}

// Option is an option of [New].
type Option func(*options) error

type options struct {
	tls   *tls.Config
	token func(context.Context) (string, error)
	dial  []grpc.DialOption
}

func (o *options) tlsConfig() *tls.Config {
	if o.tls == nil {
		o.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return o.tls
}

// WithDialOptions adds options of grpc-go, such as an interceptor.
func WithDialOptions(more ...grpc.DialOption) Option {
	return func(o *options) error {
		o.dial = append(o.dial, more...)
		return nil
	}
}

// New makes a client of the server at an address: `HOST[:PORT]`, `http://HOST[:PORT]`, `https://HOST[:PORT]` or
// `unix:PATH`. The default port is 50051. An empty address is that of the environment variable PERENNIAL_SERVER, or
// http://127.0.0.1:50051 if that is not set. Without an option for it, the token is that of PERENNIAL_TOKEN, if that is
// set.
//
// New does not connect. It fails for an address or a file that cannot be used, and for a token that would leave the
// machine in plain text.
func New(server string, opts ...Option) (*Client, error) {
	var o options
	for _, option := range opts {
		if err := option(&o); err != nil {
			return nil, err
		}
	}
	if token := os.Getenv("PERENNIAL_TOKEN"); o.token == nil && token != "" {
		_ = WithToken(token)(&o)
	}
	at, err := parseAddress(server, o.tls != nil)
	if err != nil {
		return nil, err
	}
	if o.token != nil && !at.isSecure && !at.isLocal {
		return nil, fmt.Errorf("the token would be sent in plain text to %s: try https", at.url)
	}
	transport := insecure.NewCredentials()
	if at.isSecure {
		transport = credentials.NewTLS(o.tlsConfig())
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("perennial-go/" + Version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		// A stream whose connection failed takes a new channel, so this backoff bounds only other uses.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
			},
			MinConnectTimeout: connectAttempt,
		}),
	}
	if o.token != nil {
		dial = append(dial, grpc.WithPerRPCCredentials(bearer{o.token}))
	}
	connections := newConnections(at.target, append(dial, o.dial...))
	// An address or an option that grpc-go refuses fails here, and not at the first call.
	first, err := connections.acquire()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at.url, err)
	}
	connections.release(first)
	return &Client{connections: connections, calls: resilient{connections}}, nil
}

// Close ends all streams and calls with [ErrClosed], and closes the connection. A publisher should be closed before, or
// its unanswered messages are lost.
func (c *Client) Close() error {
	return c.connections.close()
}

// CountdownService calls the methods of countdowns: create, pause, extend, list.
func (c *Client) CountdownService() perennialv1.CountdownServiceClient {
	return perennialv1.NewCountdownServiceClient(c.calls)
}

// LineService calls the methods of files: list.
func (c *Client) LineService() perennialv1.LineServiceClient {
	return perennialv1.NewLineServiceClient(c.calls)
}

// MessageService calls the methods of messages: publish, topics, consumers.
func (c *Client) MessageService() perennialv1.MessageServiceClient {
	return perennialv1.NewMessageServiceClient(c.calls)
}

// resilient makes the calls of generated clients: with a deadline, with errors of the type Error, and repeated where that
// is safe. Streams pass through it as they are.
type resilient struct {
	connections *connections
}

func (r resilient) Invoke(ctx context.Context, method string, request, reply any, opts ...grpc.CallOption) error {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	ctx, stop := r.connections.bind(ctx)
	defer stop()
	var delays waits
	until := time.Now().Add(defaultConnectTimeout)
	for {
		err := r.once(ctx, method, request, reply, opts)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fromContext(ctx)
		}
		failure := fromGRPC(err)
		wait := delays.next(failure)
		if !failure.CanRetry() || !isSafeToRepeat(method, request) || time.Now().Add(wait).After(until) {
			return failure
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func (r resilient) once(ctx context.Context, method string, request, reply any, opts []grpc.CallOption) error {
	connection, err := r.connections.acquire()
	if err != nil {
		return err
	}
	defer r.connections.release(connection)
	return connection.channel.Invoke(ctx, method, request, reply, opts...)
}

func (r resilient) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	connection, err := r.connections.acquire()
	if err != nil {
		return nil, err
	}
	// The channel stays open until the client is closed, because nobody says when the stream has ended.
	return connection.channel.NewStream(ctx, desc, method, opts...)
}

// isSafeToRepeat reports whether a call that was repeated after a lost answer has the effect of one call.
func isSafeToRepeat(method string, request any) bool {
	switch request := request.(type) {
	case *perennialv1.PublishRequest:
		return request.MessageId != nil
	case *perennialv1.PublishBatchRequest:
		for _, message := range request.GetMessages() {
			if message.MessageId == nil {
				return false
			}
		}
		return true
	case *perennialv1.CreateCountdownRequest:
		return request.RequestId != nil
	case *perennialv1.CommitCursorRequest, *perennialv1.GetCountdownRequest, *perennialv1.ListCountdownsRequest,
		*perennialv1.ListFilesRequest, *perennialv1.ListTopicsRequest, *perennialv1.ListConsumersRequest:
		return true
	}
	return false
}

// sleep waits, or returns the error of the context when that ends.
func sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fromContext(ctx)
	}
}

var errNoName = errors.New("a consumer needs a name")
