package perennial

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

const (
	// The unanswered messages: what the server's own window takes, minus those that may be on their way.
	windowMessages = 8_192
	windowBytes    = 16 << 20
	// Without an answer for this time, the connection is lost.
	answerTimeout = 30 * time.Second
	// How long the server knows an id by default. The transport may hold a message that it was given until the call is
	// cancelled, so a call ends this long before the server forgets the id of a message that it has sent again; clocks and the
	// disk need some time, too. A message is sent again only if there is the time for an answer before.
	dedupeWindow = 2 * time.Minute
	dedupeLast   = 10 * time.Second
	dedupeMargin = answerTimeout + dedupeLast
	// How long the end of an answered call is awaited.
	closeTimeout = 2 * time.Second
)

// ErrPublisherClosed is the result of a message that was published after Close.
var ErrPublisherClosed = errors.New("the publisher is closed")

// Publisher publishes messages, each on its own and in the order of the calls of Publish.
//
// Each message has an id: its own, or one that the publisher makes. After a lost connection the publisher sends the
// messages that were not answered again, with the same ids, so that none is published twice. It keeps up to 8,192
// messages or 16 MiB without an answer; then Publish waits.
//
// A Publisher is safe for concurrent use.
type Publisher struct {
	client *Client
	ctx    context.Context
	cancel context.CancelCauseFunc
	window time.Duration
	ids    string
	done   chan struct{}
	// connectTimeout bounds the time since the first attempt, until a server has accepted a call.
	connectTimeout time.Duration
	began          time.Time
	isAccepted     atomic.Bool

	mutex  sync.Mutex
	queue  frames
	number uint64
	closed bool
	failed error
	// changed is closed, and made again, when there is room, when all is answered, and when the publisher fails.
	changed chan struct{}
	// wake holds a token when there is something to send, or nothing more to come.
	wake chan struct{}
}

// PublisherOption is an option of a publisher.
type PublisherOption func(*Publisher)

// WithDedupeWindow is how long the server remembers the ids of messages, if its operator changed that from 2 minutes. A
// message whose answer was lost is not sent again after this time minus 40 s: see [OutcomeUnknownError].
func WithDedupeWindow(window time.Duration) PublisherOption {
	return func(p *Publisher) { p.window = window }
}

// WithPublisherConnectTimeout bounds how long the publisher tries to reach a server after its first message. Then it fails,
// and so does each receipt. A server that it has reached is tried again without limit. Unset: 10 s.
func WithPublisherConnectTimeout(timeout time.Duration) PublisherOption {
	return func(p *Publisher) { p.connectTimeout = timeout }
}

// Receipt is the answer to one message.
type Receipt struct {
	done     chan struct{}
	response *perennialv1.PublishResponse
	err      error
}

// Wait returns the answer of the server: the sequence of the message, which is on disk. The error is an [Error] if the
// server refused the message, and an [OutcomeUnknownError] if nobody knows whether it is published.
func (r *Receipt) Wait(ctx context.Context) (*perennialv1.PublishResponse, error) {
	select {
	case <-r.done:
		return r.response, r.err
	case <-ctx.Done():
		return nil, fromContext(ctx)
	}
}

// Done is closed when the answer is there.
func (r *Receipt) Done() <-chan struct{} { return r.done }

func (r *Receipt) resolve(response *perennialv1.PublishResponse, err error) {
	r.response, r.err = response, err
	close(r.done)
}

// Publisher returns a publisher, which lives until Close or until the context ends.
func (c *Client) Publisher(ctx context.Context, options ...PublisherOption) *Publisher {
	var id [16]byte
	_, _ = rand.Read(id[:])
	made := &Publisher{
		client: c, window: dedupeWindow, connectTimeout: defaultConnectTimeout,
		ids:  base64.RawURLEncoding.EncodeToString(id[:]),
		done: make(chan struct{}), changed: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	for _, option := range options {
		option(made)
	}
	ctx, stop := c.connections.bind(ctx)
	made.ctx, made.cancel = context.WithCancelCause(ctx)
	go func() {
		defer close(made.done)
		defer stop()
		made.end(made.run())
	}()
	return made
}

// Publish takes a message, and waits while too many are unanswered. The receipt has the result. The message must not be
// changed until then; the publisher changes nothing in it.
func (p *Publisher) Publish(ctx context.Context, message *perennialv1.PublishRequest) (*Receipt, error) {
	for {
		p.mutex.Lock()
		switch {
		case p.failed != nil:
			defer p.mutex.Unlock()
			return nil, p.failed
		case p.closed:
			p.mutex.Unlock()
			return nil, ErrPublisherClosed
		case p.queue.hasRoom():
			receipt := p.push(message)
			p.mutex.Unlock()
			p.signal()
			return receipt, nil
		}
		changed := p.changed
		p.mutex.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fromContext(ctx)
		}
	}
}

// push adds a message to the queue; the caller holds the mutex.
func (p *Publisher) push(message *perennialv1.PublishRequest) *Receipt {
	if message.MessageId == nil {
		p.number++
		made := &perennialv1.PublishRequest{
			Topic: message.GetTopic(), Content: message.GetContent(), Key: message.Key, Headers: message.GetHeaders(),
			ExpectedSequence: message.ExpectedSequence, Ttl: message.GetTtl(),
		}
		made.MessageId = pointer(fmt.Sprintf("%s-%d", p.ids, p.number))
		message = made
	}
	receipt := &Receipt{done: make(chan struct{})}
	p.queue.push(&entry{message: message, bytes: proto.Size(message), receipt: receipt})
	return receipt
}

// Flush waits until every message has its answer. It returns an error only if the publisher failed or the context
// ended; the results of the messages are in their receipts.
func (p *Publisher) Flush(ctx context.Context) error {
	for {
		p.mutex.Lock()
		isDone, failed, changed := p.queue.isEmpty(), p.failed, p.changed
		p.mutex.Unlock()
		if failed != nil {
			return failed
		}
		if isDone {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fromContext(ctx)
		}
	}
}

// Close waits until every message has its answer, and ends the publisher. It returns why the publisher failed, if it did.
// To end a publisher without waiting, cancel the context that it was made with.
func (p *Publisher) Close() error {
	p.mutex.Lock()
	p.closed = true
	p.mutex.Unlock()
	p.signal()
	<-p.done
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if errors.Is(p.failed, ErrPublisherClosed) {
		return nil
	}
	return p.failed
}

func (p *Publisher) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// notify wakes those who wait for room or for the end; the caller holds the mutex.
func (p *Publisher) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// end gives the messages that have no answer the error.
func (p *Publisher) end(err error) {
	p.cancel(context.Canceled)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err == nil {
		err = ErrPublisherClosed
	}
	p.failed = err
	for _, one := range p.queue.takeAll() {
		one.receipt.resolve(nil, err)
	}
	p.notify()
}

// run sends until the publisher is closed and every message is answered, or until an error that will not pass.
func (p *Publisher) run() error {
	var delays waits
	for {
		if isOver, err := p.awaitWork(); isOver || err != nil {
			return err
		}
		isOver, err := p.once(&delays)
		if isOver {
			return nil
		}
		if p.ctx.Err() != nil {
			return fromContext(p.ctx)
		}
		if errors.Is(err, io.EOF) {
			err = unavailable("the server ended the call before it had answered all messages")
		}
		if fault, ok := errors.AsType[*ProtocolError](err); ok {
			return fault
		}
		failure := fromGRPC(err)
		wait := delays.next(failure)
		if rest, isBounded := p.rest(); !failure.CanRetry() || isBounded && wait >= rest {
			return failure
		}
		if err := sleep(p.ctx, wait); err != nil {
			return err
		}
		p.rewind()
	}
}

// awaitWork waits for a message, and reports whether none will come.
func (p *Publisher) awaitWork() (bool, error) {
	for {
		p.mutex.Lock()
		isEmpty, closed := p.queue.isEmpty(), p.closed
		p.mutex.Unlock()
		if !isEmpty {
			return false, nil
		}
		if closed {
			return true, nil
		}
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			return false, fromContext(p.ctx)
		}
	}
}

// rewind makes every unanswered message one that is still to be sent.
func (p *Publisher) rewind() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.queue.sent = 0
	p.notify()
}

// next takes the messages of the next request, and reports whether none will follow. The server may have forgotten the ids
// of messages that were first sent long ago, so these get an error instead.
func (p *Publisher) next(watchdog *time.Timer) ([]*perennialv1.PublishRequest, bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	now := time.Now()
	isFirst := p.queue.sent == 0
	frame, old := p.queue.next(now, now.Add(dedupeMargin-p.window))
	for _, one := range old {
		one.receipt.resolve(nil, &OutcomeUnknownError{MessageID: one.message.GetMessageId(), Waited: now.Sub(one.sent)})
	}
	if len(old) > 0 {
		p.notify()
	}
	if isFirst && len(frame) > 0 {
		watchdog.Reset(answerTimeout)
	}
	return frame, p.closed && len(frame) == 0
}

// once makes one call. It reports whether the publisher is closed and every message is answered.
func (p *Publisher) once(delays *waits) (bool, error) {
	connection, err := p.client.connections.acquire()
	if err != nil {
		return false, err
	}
	defer p.client.connections.release(connection)
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	defer p.watchConnect(cancel).Stop()
	// It waits for the connection.
	calls, err := perennialv1.NewMessageServiceClient(connection.channel).PublishStream(ctx)
	if err != nil {
		return false, p.reason(ctx, connection, err)
	}
	watchdog := time.AfterFunc(answerTimeout, func() {
		if p.awaitsAnswer() {
			cancel(unavailable("no answer arrived for %v", answerTimeout))
		} else if p.isOver() {
			cancel(nil)
		}
	})
	defer watchdog.Stop()
	defer p.watchIDs(cancel)()
	sender := make(chan struct{})
	go func() {
		defer close(sender)
		p.send(ctx, calls, watchdog)
	}()
	err = p.receive(calls, delays, watchdog)
	isOver := errors.Is(err, io.EOF) && p.isOver()
	cancel(nil)
	<-sender
	return isOver || p.isOver(), p.reason(ctx, connection, err)
}

func (p *Publisher) awaitsAnswer() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.queue.sent > 0
}

func (p *Publisher) isOver() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.closed && p.queue.isEmpty()
}

// send sends what is ready, until the call ends or nothing more will come.
func (p *Publisher) send(
	ctx context.Context, calls grpc.BidiStreamingClient[perennialv1.PublishStreamRequest, perennialv1.PublishStreamResponse],
	watchdog *time.Timer,
) {
	for {
		frame, isOver := p.next(watchdog)
		if isOver {
			_ = calls.CloseSend()
			return
		}
		if frame == nil {
			select {
			case <-p.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		// If the call has ended, the receiver has the error.
		if calls.Send(&perennialv1.PublishStreamRequest{Messages: frame}) != nil {
			return
		}
	}
}

// receive takes answers until the call ends.
func (p *Publisher) receive(
	calls grpc.BidiStreamingClient[perennialv1.PublishStreamRequest, perennialv1.PublishStreamResponse],
	delays *waits, watchdog *time.Timer,
) error {
	// A call that ends without headers was not accepted.
	if headers, err := calls.Header(); err == nil && headers != nil {
		p.isAccepted.Store(true)
	}
	for {
		response, err := calls.Recv()
		if err != nil {
			return err
		}
		delays.reset()
		watchdog.Reset(answerTimeout)
		p.mutex.Lock()
		answered, ok := p.queue.answered(len(response.GetResults()))
		isOver := p.closed && p.queue.isEmpty()
		p.notify()
		p.mutex.Unlock()
		if !ok {
			return &ProtocolError{Fault: "it answered messages that it did not get"}
		}
		for n, result := range response.GetResults() {
			answered[n].receipt.resolve(result.GetPublished(), errorOf(result))
		}
		if isOver {
			// The sender closes its side, and the server ends the call.
			p.signal()
			watchdog.Reset(closeTimeout)
		}
	}
}

// errorOf is the error of one message, as Publish would have returned it.
func errorOf(result *perennialv1.PublishResult) error {
	fault := result.GetError()
	if fault == nil {
		if result.GetPublished() == nil {
			return &ProtocolError{Fault: "a result is neither a message nor an error"}
		}
		return nil
	}
	made := &Error{
		Code: codes.Code(fault.GetCode()), Reason: fault.GetReason(), Field: fault.GetField(),
		Metadata: fault.GetMetadata(), Message: fault.GetMessage(),
		RetryDelay: fault.GetRetryDelay().AsDuration(), canRetry: fault.GetRetryDelay() != nil,
	}
	if fault.GetReason() != perennialv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		made.ReasonName = fault.GetReason().String()
	}
	return made
}
