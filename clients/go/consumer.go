package perennial

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

// How long the commit at the end of a stream may take.
const lastCommitTimeout = 2 * time.Second

var errConsumerHasState = errors.New("a consumer keeps its position on the server: leave out WithStore and WithState")

// Consumer reads messages as a consumer, whose position is kept on the server. One stream at a time reads as a consumer.
//
// A commit is that of a whole response of the server: after a crash, the messages since the last response that was
// processed and committed come again, and no message is missed.
type Consumer struct {
	client *Client
	name   string
	every  time.Duration

	mutex sync.Mutex
	// The cursors of the last response whose messages are all processed, and of the last commit.
	done, committed string
	inHand          place
	last            time.Time
}

// Consumer returns the consumer of this name. It exists on the server from its first commit.
func (c *Client) Consumer(name string) *Consumer {
	return &Consumer{client: c, name: name}
}

// CommitEvery makes the streams commit by themselves: at most once in this time, and at their end.
func (c *Consumer) CommitEvery(interval time.Duration) *Consumer {
	c.every = interval
	return c
}

// Messages reads messages after the last commit, or from the start of the request if there is none.
func (c *Consumer) Messages(
	ctx context.Context, request *perennialv1.MessagesRequest, options ...StreamOption,
) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		prepared, err := c.begin(options)
		if err != nil {
			yield(Message{}, err)
			return
		}
		messages(ctx, c.client, c.request(request), prepared)(yield)
	}
}

// MessagesAndEvents is Messages with the events between the messages.
func (c *Consumer) MessagesAndEvents(
	ctx context.Context, request *perennialv1.MessagesRequest, options ...StreamOption,
) iter.Seq2[MessageItem, error] {
	return func(yield func(MessageItem, error) bool) {
		prepared, err := c.begin(options)
		if err != nil {
			yield(nil, err)
			return
		}
		messagesAndEvents(ctx, c.client, c.request(request), prepared)(yield)
	}
}

func (c *Consumer) request(request *perennialv1.MessagesRequest) *perennialv1.MessagesRequest {
	made := proto.CloneOf(request)
	made.Consumer = &c.name
	return made
}

func (c *Consumer) begin(options []StreamOption) (streamOptions, error) {
	made := newStreamOptions(options)
	if c.name == "" {
		return made, errNoName
	}
	if made.store != nil || made.hasState {
		return made, errConsumerHasState
	}
	made.consumer = c
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.done, c.committed, c.inHand, c.last = "", "", place{}, time.Now()
	return made, nil
}

// Commit makes the position of the consumer that after the last response whose messages are all processed. The message
// that the loop works on counts as processed. It makes no call if nothing is new.
func (c *Consumer) Commit(ctx context.Context) error {
	c.mutex.Lock()
	cursor := c.done
	if in := c.inHand.batch; in != nil && c.inHand.index == in.count-1 {
		cursor = in.after
	}
	c.mutex.Unlock()
	return c.commit(ctx, cursor)
}

func (c *Consumer) commit(ctx context.Context, cursor string) error {
	c.mutex.Lock()
	isNew := cursor != "" && cursor != c.committed
	c.mutex.Unlock()
	if !isNew {
		return nil
	}
	request := &perennialv1.CommitCursorRequest{Consumer: c.name, Cursor: cursor}
	if _, err := c.client.MessageService().CommitCursor(ctx, request); err != nil {
		return err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.committed, c.last = cursor, time.Now()
	return nil
}

// handsOut takes the item that the loop works on next. A stream without a consumer has a nil one.
func (c *Consumer) handsOut(at place) {
	if c == nil {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.inHand = at
}

// completed takes the cursor of a response whose items are all processed.
func (c *Consumer) completed(ctx context.Context, cursor string) error {
	if c == nil {
		return nil
	}
	c.mutex.Lock()
	c.done, c.inHand = cursor, place{}
	isDue := c.every > 0 && time.Since(c.last) >= c.every
	c.mutex.Unlock()
	if !isDue {
		return nil
	}
	return c.commit(ctx, cursor)
}

// end commits what is processed, if the consumer commits by itself.
func (c *Consumer) end(ctx context.Context) error {
	if c == nil || c.every == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCommitTimeout)
	defer cancel()
	c.mutex.Lock()
	done := c.done
	c.mutex.Unlock()
	return c.commit(ctx, done)
}
