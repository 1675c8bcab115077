package perennial

import (
	"slices"
	"time"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

const (
	frameMessages = 1_024
	frameBytes    = 256 << 10
)

// entry is a message without an answer.
type entry struct {
	message *perennialv1.PublishRequest
	bytes   int
	receipt *Receipt
	// sent is when the message was first sent; zero if it was not.
	sent time.Time
	// isAgain is true if an earlier call sent it first.
	isAgain bool
}

// frames holds the messages without an answer, in order: those that were sent on this call, and then the others.
type frames struct {
	entries []*entry
	sent    int
	bytes   int
}

func (f *frames) hasRoom() bool { return len(f.entries) < windowMessages && f.bytes < windowBytes }

func (f *frames) isEmpty() bool { return len(f.entries) == 0 }

func (f *frames) push(one *entry) {
	f.entries = append(f.entries, one)
	f.bytes += one.bytes
}

// next returns the messages of the next request, or nil if all were sent. It takes out those that an earlier call sent
// first before `oldest`, and returns them, too.
func (f *frames) next(now, oldest time.Time) (messages []*perennialv1.PublishRequest, old []*entry) {
	bytes := 0
	for f.sent < len(f.entries) && len(messages) < frameMessages {
		one := f.entries[f.sent]
		if !one.sent.IsZero() && one.sent.Before(oldest) {
			f.entries = slices.Delete(f.entries, f.sent, f.sent+1)
			f.bytes -= one.bytes
			old = append(old, one)
			continue
		}
		if len(messages) > 0 && bytes+one.bytes > frameBytes {
			break
		}
		one.isAgain = !one.sent.IsZero()
		if !one.isAgain {
			one.sent = now
		}
		messages, bytes = append(messages, one.message), bytes+one.bytes
		f.sent++
	}
	return messages, old
}

// idsKnownFor is how long the call may go on until the server may forget the id of a message that the call has sent again,
// and false if it sends none again. `last` is when the server knows the ids of messages that were first sent before it no
// more. Nothing that is sent from now on is so old that its time is shorter than that of an answer.
func (f *frames) idsKnownFor(last time.Time) (time.Duration, bool) {
	if len(f.entries) == 0 || f.entries[0].sent.IsZero() {
		return 0, false
	}
	if f.sent == 0 {
		return answerTimeout, true
	}
	return f.entries[0].sent.Sub(last), f.entries[0].isAgain
}

// answered takes the oldest messages out. It reports whether so many were sent.
func (f *frames) answered(count int) ([]*entry, bool) {
	if count > f.sent {
		return nil, false
	}
	first := f.entries[:count:count]
	f.entries, f.sent = f.entries[count:], f.sent-count
	for _, one := range first {
		f.bytes -= one.bytes
	}
	return first, true
}

func (f *frames) takeAll() []*entry {
	all := f.entries
	*f = frames{}
	return all
}
