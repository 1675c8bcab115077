package perennial

import (
	"context"
	"errors"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

// MessageItem is a [Message], a [MessageEvent] or a [CaughtUp].
type MessageItem interface{ isMessageItem() }

// Message is a message of the log, and where the stream is after it.
type Message struct {
	*perennialv1.StoredMessage
	place
}

// MessageEvent is something that happened to the log before the next message. An event that this package does not know
// has the Event nil, and its fields are unknown fields.
type MessageEvent struct {
	*perennialv1.MessageStreamEvent
}

func (Message) isMessageItem()      {}
func (MessageEvent) isMessageItem() {}

var errIsConsumer = errors.New("the request has a consumer: read it by Client.Consumer, which also commits")

// Messages reads the messages of topics. It ends with a [GapError] where messages are missing.
func (c *Client) Messages(
	ctx context.Context, request *perennialv1.MessagesRequest, options ...StreamOption,
) iter.Seq2[Message, error] {
	return messages(ctx, c, request, newStreamOptions(options))
}

// MessagesAndEvents is Messages with the events between the messages.
func (c *Client) MessagesAndEvents(
	ctx context.Context, request *perennialv1.MessagesRequest, options ...StreamOption,
) iter.Seq2[MessageItem, error] {
	return messagesAndEvents(ctx, c, request, newStreamOptions(options))
}

func messages(
	ctx context.Context, client *Client, request *perennialv1.MessagesRequest, options streamOptions,
) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		visit := &messageVisitor{message: func(message Message) bool { return yield(message, nil) }}
		if err := walkMessages(ctx, client, request, options, visit); err != nil {
			yield(Message{}, err)
		}
	}
}

func messagesAndEvents(
	ctx context.Context, client *Client, request *perennialv1.MessagesRequest, options streamOptions,
) iter.Seq2[MessageItem, error] {
	return func(yield func(MessageItem, error) bool) {
		visit := &messageVisitor{
			message: func(message Message) bool { return yield(message, nil) },
			event:   func(item MessageItem) bool { return yield(item, nil) },
		}
		if err := walkMessages(ctx, client, request, options, visit); err != nil {
			yield(nil, err)
		}
	}
}

func walkMessages(
	ctx context.Context, client *Client, request *perennialv1.MessagesRequest, options streamOptions,
	visit *messageVisitor,
) error {
	request = proto.CloneOf(request)
	if options.consumer == nil && request.Consumer != nil {
		return errIsConsumer
	}
	from := source[*perennialv1.MessagesResponse]{
		heartbeat: request.GetHeartbeat(), cursor: request.GetCursor(), limit: request.Limit,
		count: func(response *perennialv1.MessagesResponse) int { return len(response.GetMessages()) },
		open: func(
			ctx context.Context, channel grpc.ClientConnInterface, cursor *string, limit *int64,
		) (receiver[*perennialv1.MessagesResponse], error) {
			request.Cursor, request.Limit = cursor, limit
			return perennialv1.NewMessageServiceClient(channel).Messages(ctx, request)
		},
	}
	return walk(ctx, client, kindMessages, from, options, visit)
}

// messageVisitor hands out messages, which their sequence identifies.
type messageVisitor struct {
	message func(Message) bool
	// event is nil if the caller wants no events.
	event      func(MessageItem) bool
	isCaughtUp bool
}

func (v *messageVisitor) begin(response *perennialv1.MessagesResponse, pending *key) (int, bool, error) {
	if pending == nil {
		return 0, false, nil
	}
	for _, event := range response.GetEvents() {
		// The log has another history: sequences may go back.
		if isDiverged(event.GetGap()) {
			return 0, false, nil
		}
	}
	for n, message := range response.GetMessages() {
		sequence := message.GetSequence()
		if sequence > int64(*pending.Sequence) {
			return n, false, nil
		}
		if sequence == int64(*pending.Sequence) && pending.PublishTime != nil &&
			nanoseconds(message.GetPublishTime()) != int64(*pending.PublishTime) {
			return 0, false, &Error{
				Code:       codes.OutOfRange,
				Reason:     perennialv1.ErrorReason_LOG_DIVERGED,
				ReasonName: perennialv1.ErrorReason_LOG_DIVERGED.String(),
				Message:    "the log has another message at the sequence of the last one: it was restored from a copy",
			}
		}
	}
	return len(response.GetMessages()), true, nil
}

func isDiverged(gap *perennialv1.MessageGap) bool {
	return gap.GetReason() == perennialv1.MessageGapReason_MESSAGE_GAP_REASON_DIVERGED
}

func nanoseconds(time *timestamppb.Timestamp) int64 {
	return time.GetSeconds()*1_000_000_000 + int64(time.GetNanos())
}

func (v *messageVisitor) events(response *perennialv1.MessagesResponse, pending *key) error {
	for _, event := range response.GetEvents() {
		gap := event.GetGap()
		if gap != nil && pending != nil && gap.GetLastSequence() <= int64(*pending.Sequence) && !isDiverged(gap) {
			continue
		}
		if v.event == nil {
			if gap != nil {
				return &GapError{Messages: gap}
			}
		} else if !v.event(MessageEvent{event}) {
			return errStopped
		}
	}
	return nil
}

func (v *messageVisitor) keys(response *perennialv1.MessagesResponse) func(int) *key {
	return func(item int) *key {
		message := response.GetMessages()[item]
		return &key{
			Sequence:    pointer(number(message.GetSequence())),
			PublishTime: pointer(number(nanoseconds(message.GetPublishTime()))),
		}
	}
}

func (v *messageVisitor) item(response *perennialv1.MessagesResponse, at place) error {
	if !v.message(Message{response.GetMessages()[at.index], at}) {
		return errStopped
	}
	return nil
}

func (v *messageVisitor) end(response *perennialv1.MessagesResponse) error {
	hasCaughtUp := response.GetCaughtUp() && !v.isCaughtUp
	v.isCaughtUp = response.GetCaughtUp()
	if hasCaughtUp && v.event != nil && !v.event(CaughtUp{}) {
		return errStopped
	}
	return nil
}

func (v *messageVisitor) carry(pending *key) *key { return pending }

func (v *messageVisitor) restart() {}
