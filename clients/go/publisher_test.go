package perennial_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

// A busy machine may need longer for the first answer than a caller should wait.
var patient = perennial.WithPublisherConnectTimeout(time.Minute)

func TestAPublisherSurvivesCutsAndKillsWithoutDoublesAndInOrder(t *testing.T) {
	const count = 20_000
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server := startServer(t)
	proxy := startProxy(t, server, 100_000)
	publisher := connect(t, proxy.address).Publisher(ctx, patient)
	receipts := make([]*perennial.Receipt, count)
	for n := range receipts {
		receipt, err := publisher.Publish(ctx, textMessage("t", fmt.Sprint(n)))
		fatal(t, err)
		receipts[n] = receipt
		if n == count/2 {
			fatal(t, server.restart())
		}
	}
	fatal(t, publisher.Flush(ctx))
	fatal(t, publisher.Close())
	last := int64(0)
	for n, receipt := range receipts {
		answer, err := receipt.Wait(ctx)
		fatal(t, err)
		if answer.GetSequence() <= last {
			t.Fatalf("message %d has the sequence %d after %d", n, answer.GetSequence(), last)
		}
		last = answer.GetSequence()
	}
	next := 0
	for message, err := range connect(t, server.address).Messages(ctx, everything()) {
		fatal(t, err)
		if message.GetText() != fmt.Sprint(next) {
			t.Fatalf("message %d is %q", next, message.GetText())
		}
		next++
	}
	if next != count {
		t.Errorf("%d messages are in the log, not %d", next, count)
	}
	if proxy.cuts.Load() == 0 {
		t.Error("nothing was cut")
	}
	t.Logf("%d messages over %d cuts", next, proxy.cuts.Load())
}

func everything() *perennialv1.MessagesRequest {
	return &perennialv1.MessagesRequest{
		Topics: []string{">"}, Start: &perennialv1.MessagesRequest_Earliest{Earliest: true}, UntilCaughtUp: true,
	}
}

func TestAMessageThatIsRefusedHasItsErrorAndTheOthersArePublished(t *testing.T) {
	server := startServer(t)
	publisher := connect(t, server.address).Publisher(t.Context(), patient)
	var receipts []*perennial.Receipt
	for _, topic := range []string{"a", "not a topic", "b"} {
		receipt, err := publisher.Publish(t.Context(), textMessage(topic, "x"))
		fatal(t, err)
		receipts = append(receipts, receipt)
	}
	fatal(t, publisher.Close())
	for n, receipt := range receipts {
		_, err := receipt.Wait(t.Context())
		fault, _ := errors.AsType[*perennial.Error](err)
		switch {
		case n != 1:
			fatal(t, err)
		case fault == nil || fault.Field != "topic" || fault.Reason != perennialv1.ErrorReason_INVALID_FIELD:
			t.Errorf("the error is %v", err)
		}
	}
	if _, err := publisher.Publish(t.Context(), textMessage("a", "x")); !errors.Is(err, perennial.ErrPublisherClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestAMessageThatTheServerMayHaveForgottenIsNotSentTwice(t *testing.T) {
	server := startServer(t)
	gate := startSilentProxy(t, server)
	client := connect(t, gate.address)
	// Messages may be on their way for the window minus 40 s: here 100 ms.
	publisher := client.Publisher(t.Context(), patient, perennial.WithDedupeWindow(40*time.Second+100*time.Millisecond))
	first, err := publisher.Publish(t.Context(), textMessage("t", "first"))
	fatal(t, err)
	_, err = first.Wait(t.Context())
	fatal(t, err)

	gate.silence()
	lost, err := publisher.Publish(t.Context(), textMessage("t", "lost"))
	fatal(t, err)
	time.Sleep(300 * time.Millisecond)
	gate.cut()
	gate.speak()
	_, err = lost.Wait(t.Context())
	if _, ok := errors.AsType[*perennial.OutcomeUnknownError](err); !ok {
		t.Errorf("the result of the lost message is %v", err)
	}
	after, err := publisher.Publish(t.Context(), textMessage("t", "after"))
	fatal(t, err)
	_, err = after.Wait(t.Context())
	fatal(t, err)
	fatal(t, publisher.Close())
}

func TestFlushWaitsForEveryReceiptAndCloseToo(t *testing.T) {
	server := startServer(t)
	gate := startSilentProxy(t, server)
	publisher := connect(t, gate.address).Publisher(t.Context(), patient)
	fatal(t, publisher.Flush(t.Context()))
	gate.silence()
	receipt, err := publisher.Publish(t.Context(), textMessage("t", "x"))
	fatal(t, err)
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := publisher.Flush(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("flush without an answer: %v", err)
	}
	gate.cut()
	gate.speak()
	fatal(t, publisher.Flush(t.Context()))
	last, err := publisher.Publish(t.Context(), textMessage("t", "y"))
	if err == nil {
		err = publisher.Close()
	}
	fatal(t, err)
	for n, one := range []*perennial.Receipt{receipt, last} {
		select {
		case <-one.Done():
			_, err := one.Wait(t.Context())
			fatal(t, err)
		default:
			t.Errorf("message %d has no answer", n)
		}
	}
}

func TestAPublisherThatReachesNoServerFailsAfterItsConnectTimeout(t *testing.T) {
	publisher := connect(t, "127.0.0.1:1").Publisher(t.Context(), perennial.WithPublisherConnectTimeout(300*time.Millisecond))
	receipt, err := publisher.Publish(t.Context(), textMessage("t", "x"))
	fatal(t, err)
	_, published := receipt.Wait(t.Context())
	_, later := publisher.Publish(t.Context(), textMessage("t", "y"))
	for _, err := range []error{published, publisher.Flush(t.Context()), later, publisher.Close()} {
		if fault, ok := errors.AsType[*perennial.Error](err); !ok || fault.Code != codes.Unavailable {
			t.Errorf("the error is %v", err)
		}
	}
}

func TestTooManyUnansweredMessagesMakePublishWait(t *testing.T) {
	server := startServer(t)
	gate := startSilentProxy(t, server)
	gate.silence()
	publisher := connect(t, gate.address).Publisher(t.Context(), patient)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	count := 0
	for ; ; count++ {
		if _, err := publisher.Publish(ctx, textMessage("t", "x")); err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the error is %v", err)
			}
			break
		}
	}
	if count != 8_192 {
		t.Errorf("%d messages were taken without an answer", count)
	}
	gate.speak()
	gate.cut()
	fatal(t, publisher.Close())
}

func TestAConsumerContinuesAfterItsLastCommit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server := startServer(t)
	client := connect(t, server.address)
	publisher := client.Publisher(ctx, patient)
	for n := range 30 {
		_, err := publisher.Publish(ctx, textMessage("t", fmt.Sprint(n)))
		fatal(t, err)
	}
	fatal(t, publisher.Close())
	request := everything()
	request.MaxBatch = new(int32)
	*request.MaxBatch = 5
	read := func(most int, commit bool) (texts []string) {
		consumer := client.Consumer("billing")
		for message, err := range consumer.Messages(ctx, request) {
			fatal(t, err)
			texts = append(texts, message.GetText())
			if commit {
				fatal(t, consumer.Commit(ctx))
			}
			if len(texts) == most {
				break
			}
		}
		return texts
	}
	if got := read(12, true); got[0] != "0" {
		t.Errorf("it begins with %v", got)
	}
	// Two responses of five are committed; the messages after them come again.
	if got := read(3, false); got[0] != "10" {
		t.Errorf("it continues with %v", got)
	}
	consumer := client.Consumer("billing").CommitEvery(time.Millisecond)
	for _, err := range consumer.Messages(ctx, request) {
		fatal(t, err)
	}
	if got := read(3, false); len(got) != 0 {
		t.Errorf("after the last commit: %v", got)
	}
	for _, err := range consumer.Messages(ctx, request, perennial.WithStore(&perennial.MemoryStore{})) {
		if err == nil {
			t.Error("a consumer took a store")
		}
	}
}
