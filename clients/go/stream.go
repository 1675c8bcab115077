package perennial

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	defaultHeartbeat = 15 * time.Second
	// A stream that misses this number of heartbeats is lost.
	missedHeartbeats = 3
	// A busy machine may pause for this time, so a short heartbeat does not shorten it.
	minSilence = 5 * time.Second
	// A longer silence would overflow a time.Duration when the time for a connection is added.
	maxSilence = 100 * 365 * 24 * time.Hour
	// How much longer the first response of an attempt may take, because the connection is made first.
	connectAllowance = 10 * time.Second
)

// StreamOption is an option of one stream.
type StreamOption func(*streamOptions)

type streamOptions struct {
	store          Store
	saveEvery      time.Duration
	state          string
	hasState       bool
	connectTimeout time.Duration
	maxOutage      time.Duration
	onRetry        func(error, time.Duration)
	consumer       *Consumer
}

func newStreamOptions(options []StreamOption) streamOptions {
	made := streamOptions{connectTimeout: defaultConnectTimeout}
	for _, option := range options {
		option(&made)
	}
	return made
}

// WithStore keeps the state of the stream in a store, and continues from the state that is there. The state is saved after
// each item, before the next one is yielded: an item is saved as processed when the loop asks for the next one.
func WithStore(store Store) StreamOption { return func(o *streamOptions) { o.store = store } }

// WithSaveEvery saves to the store at most once in this time, and at the end of the stream. A program that is killed then
// gets the items of up to this time again.
func WithSaveEvery(interval time.Duration) StreamOption {
	return func(o *streamOptions) { o.saveEvery = interval }
}

// WithState continues after the item whose state this is, as [Line.State], [Message.State] and [Tick.State] return it. A
// bare cursor, as the program perennial prints it, is a state, too.
func WithState(state string) StreamOption {
	return func(o *streamOptions) { o.state, o.hasState = state, true }
}

// WithConnectTimeout bounds how long the stream tries to get its first response. Unset: 10 s.
func WithConnectTimeout(timeout time.Duration) StreamOption {
	return func(o *streamOptions) { o.connectTimeout = timeout }
}

// WithMaxOutage ends the stream with its last error when there was no response for this time after a failure. Unset: the
// stream tries for ever.
func WithMaxOutage(outage time.Duration) StreamOption {
	return func(o *streamOptions) { o.maxOutage = outage }
}

// WithOnRetry calls a function before each wait for another attempt, with the error and the length of the wait.
func WithOnRetry(report func(err error, wait time.Duration)) StreamOption {
	return func(o *streamOptions) { o.onRetry = report }
}

type response interface {
	GetCursor() string
}

type receiver[R any] interface {
	Recv() (R, error)
}

// source is a kind of stream: how it is called, and the number of items in a response.
type source[R response] struct {
	heartbeat *durationpb.Duration
	// cursor is that of the caller's request; empty for none.
	cursor string
	// limit is that of the caller; nil for none.
	limit *int64
	open  func(ctx context.Context, channel grpc.ClientConnInterface, cursor *string, limit *int64) (receiver[R], error)
	count func(R) int
}

// flow is one stream over many calls. It yields each response once and in order.
type flow[R response] struct {
	client  *Client
	source  source[R]
	options streamOptions
	ctx     context.Context
	silence time.Duration

	cursor *string
	// left is the rest of the caller's limit; nil for none.
	left *int64
	// isProbe is true if the next call asks for one item: see open.
	isProbe bool

	attempt *attempt[R]
	waits   waits
	// outage is when the stream began to wait for a response; zero while it has one.
	outage      time.Time
	hasAnswered bool
}

type attempt[R response] struct {
	calls      receiver[R]
	connection *connection
	cancel     context.CancelFunc
	silent     atomic.Bool
	timer      *time.Timer
	// isProbe is true if the call ends after one item, whatever the caller's limit.
	isProbe     bool
	hasAnswered bool
}

// longestSilence is how long a stream may bring nothing. A heartbeat may be as long as a time.Duration can be: a multiple of
// it would be negative.
func longestSilence(asked *durationpb.Duration) time.Duration {
	heartbeat := defaultHeartbeat
	if asked != nil {
		heartbeat = asked.AsDuration()
	}
	return max(missedHeartbeats*min(heartbeat, maxSilence/missedHeartbeats), minSilence)
}

func newFlow[R response](ctx context.Context, client *Client, source source[R], options streamOptions, cursor string) *flow[R] {
	made := &flow[R]{
		client: client, source: source, options: options, ctx: ctx,
		silence: longestSilence(source.heartbeat),
		outage:  time.Now(),
	}
	if source.limit != nil {
		made.left = pointer(*source.limit)
	}
	if cursor != "" {
		made.cursor = &cursor
	}
	// The first response has items, and no cursor is before them. So the first call asks for one item, after which there
	// is a cursor. A consumer has its position on the server, and a second call would take over from the first.
	made.isProbe = cursor == "" && options.consumer == nil
	return made
}

// next returns the next response, or io.EOF at the end of the stream.
func (f *flow[R]) next() (R, error) {
	for {
		response, err := f.once()
		if err == nil {
			err = f.received(response)
			return response, err
		}
		if f.ctx.Err() != nil {
			return response, fromContext(f.ctx)
		}
		// Every item was delivered; only the OK was lost.
		if f.left != nil && *f.left <= 0 {
			return response, io.EOF
		}
		if errors.Is(err, io.EOF) {
			if !f.isProbing() || f.isProbe {
				return response, io.EOF
			}
			f.close()
			continue
		}
		if err := f.failed(err); err != nil {
			return response, err
		}
	}
}

// isProbing reports whether the open call ends after its first item.
func (f *flow[R]) isProbing() bool { return f.attempt != nil && f.attempt.isProbe }

func (f *flow[R]) received(response R) error {
	cursor := response.GetCursor()
	if cursor == "" {
		return &ProtocolError{Fault: "a response has no cursor"}
	}
	f.cursor = &cursor
	items := int64(f.source.count(response))
	if items > 0 {
		f.isProbe = false
	}
	if f.left != nil {
		*f.left -= items
	}
	f.waits.reset()
	f.hasAnswered, f.attempt.hasAnswered, f.outage = true, true, time.Time{}
	return nil
}

func (f *flow[R]) once() (R, error) {
	var none R
	if f.attempt == nil {
		if err := f.open(); err != nil {
			return none, err
		}
	}
	attempt := f.attempt
	wait := f.silence
	if !attempt.hasAnswered {
		wait += connectAllowance
		if rest, bounded := f.rest(); bounded {
			wait = min(wait, max(rest, 0))
		}
	}
	// The timer runs only while the stream waits for a response, not while the caller works on one.
	attempt.timer.Reset(wait)
	response, err := attempt.calls.Recv()
	attempt.timer.Stop()
	if err != nil && attempt.silent.Load() && f.ctx.Err() == nil {
		f.client.connections.retire(attempt.connection)
		return none, unavailable("nothing arrived for %v", wait.Round(time.Millisecond))
	}
	return response, err
}

// rest is how long the stream may still try to get a response, if that is bounded.
func (f *flow[R]) rest() (time.Duration, bool) {
	limit := f.options.maxOutage
	if !f.hasAnswered {
		limit = f.options.connectTimeout
	}
	if limit <= 0 || f.outage.IsZero() {
		return 0, false
	}
	return limit - time.Since(f.outage), true
}

func (f *flow[R]) open() error {
	connection, err := f.client.connections.acquire()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(f.ctx)
	made := &attempt[R]{connection: connection, cancel: cancel, isProbe: f.isProbe}
	made.timer = time.AfterFunc(time.Hour, func() {
		made.silent.Store(true)
		cancel()
	})
	made.timer.Stop()
	f.attempt = made
	limit := f.left
	if f.isProbe {
		limit = pointer(int64(1))
	}
	made.calls, err = f.source.open(ctx, connection.channel, f.cursor, limit)
	return err
}

// close ends the open call. The server gets a reset of the stream.
func (f *flow[R]) close() {
	if attempt := f.attempt; attempt != nil {
		attempt.timer.Stop()
		attempt.cancel()
		f.client.connections.release(attempt.connection)
		f.attempt = nil
	}
}

// failed waits before the next attempt, or returns the error if there should be no other one.
func (f *flow[R]) failed(err error) error {
	f.close()
	if errors.Is(err, ErrClosed) {
		return err
	}
	failure := fromGRPC(err)
	if failure.Code == codes.Unavailable && failure.ReasonName == "" && failure.Message == "" {
		failure.Message = "the connection was lost"
	}
	if !failure.CanRetry() {
		return failure
	}
	if f.outage.IsZero() {
		f.outage = time.Now()
	}
	wait := f.waits.next(failure)
	if rest, bounded := f.rest(); bounded && wait >= rest {
		return failure
	}
	if f.options.onRetry != nil {
		f.options.onRetry(failure, wait)
	}
	return sleep(f.ctx, wait)
}
