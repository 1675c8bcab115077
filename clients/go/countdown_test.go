package perennial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

func TestEveryNumberOfASharedCountdownIsDeliveredOrCounted(t *testing.T) {
	const interval = 5 * time.Millisecond
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	server := startServer(t)
	proxy := startProxy(t, server, 5_000)
	calls := countdowns(t, server.address)

	create := &perennialv1.CreateCountdownRequest{
		Name:     "show",
		Target:   &perennialv1.CreateCountdownRequest_Start{Start: 400},
		Interval: durationpb.New(interval),
	}
	if _, err := calls.CreateCountdown(ctx, create, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	// While it is paused, the time that is left says how many numbers are still to come.
	paused, err := calls.PauseCountdown(ctx, &perennialv1.PauseCountdownRequest{Name: "show"})
	if err != nil {
		t.Fatal(err)
	}
	left := int64((paused.GetCountdown().GetRemainingDuration().AsDuration() + interval - 1) / interval)

	w := &watch{request: &perennialv1.CountdownRequest{Target: &perennialv1.CountdownRequest_Name{Name: "show"}}}
	isResumed, isKilled := false, false
	for {
		err := w.read(ctx, proxy.address, func() error {
			if !isResumed {
				isResumed = true
				_, err := calls.ResumeCountdown(ctx, &perennialv1.ResumeCountdownRequest{Name: "show"})
				return err
			}
			if !isKilled && len(w.seen) > 100 {
				isKilled = true
				return server.restart()
			}
			return nil
		})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("after %v: %v", w.seen, context.Cause(ctx))
		}
		delay, canHelp := RetryDelay(err)
		if !canHelp {
			t.Fatalf("after %v: %v", w.seen, err)
		}
		time.Sleep(delay / 10)
	}
	w.check(t, left)
	if proxy.cuts.Load() == 0 {
		t.Error("nothing was cut")
	}
	t.Logf("%d numbers over %d cuts, %d skipped", len(w.seen), proxy.cuts.Load(), w.skipped)
}

func TestARefusedCallHasItsReasonAndIsNotTriedAgain(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	calls := countdowns(t, startServer(t).address)

	_, err := calls.GetCountdown(ctx, &perennialv1.GetCountdownRequest{Name: "missing"})
	if reason := Reason(err); reason != perennialv1.ErrorReason_COUNTDOWN_NOT_FOUND {
		t.Errorf("the reason is %v: %v", reason, err)
	}
	if delay, canHelp := RetryDelay(err); canHelp {
		t.Errorf("it would be tried again after %v: %v", delay, err)
	}
	// This library ends the call at its deadline, and names no reason.
	_, canHelp := RetryDelay(status.FromContextError(context.DeadlineExceeded).Err())
	if canHelp {
		t.Error("a deadline that has passed would be tried again")
	}
	request := &perennialv1.CountdownRequest{Target: &perennialv1.CountdownRequest_Start{Start: -1}}
	stream, err := calls.Countdown(ctx, request)
	if err == nil {
		_, err = stream.Recv()
	}
	if reason := Reason(err); reason != perennialv1.ErrorReason_INVALID_FIELD {
		t.Errorf("the reason is %v: %v", reason, err)
	}
}

// countdowns calls a server over a connection that outlives its restarts.
func countdowns(t *testing.T, address string) perennialv1.CountdownServiceClient {
	t.Helper()
	connection, err := Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return perennialv1.NewCountdownServiceClient(connection)
}

// watch holds what was seen of a countdown, and the request that continues after it.
type watch struct {
	request *perennialv1.CountdownRequest
	seen    []int32
	skipped int64
	changes []perennialv1.CountdownChange
}

// read reads the responses of one call, on a connection of its own, up to the end of the countdown.
func (w *watch) read(ctx context.Context, address string, after func() error) error {
	connection, err := Dial(address)
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := perennialv1.NewCountdownServiceClient(connection).Countdown(ctx, w.request, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		w.skipped += response.GetSkippedTicks()
		for _, tick := range response.GetTicks() {
			w.seen = append(w.seen, tick.GetRemaining())
		}
		for _, event := range response.GetEvents() {
			if changed := event.GetChanged(); changed != nil {
				w.changes = append(w.changes, changed.GetChange())
			}
		}
		w.request.Cursor = &response.Cursor
		if err := after(); err != nil {
			return err
		}
	}
}

// check compares what was seen with the count of the numbers that were to come.
func (w *watch) check(t *testing.T, left int64) {
	t.Helper()
	if accounted := int64(len(w.seen)) + w.skipped; accounted != left {
		t.Errorf("%d numbers were delivered and %d counted, of %d", len(w.seen), w.skipped, left)
	}
	down := slices.Clone(w.seen)
	slices.SortFunc(down, func(a, b int32) int { return int(b) - int(a) })
	if !slices.Equal(w.seen, slices.Compact(down)) || w.seen[len(w.seen)-1] != 0 {
		t.Errorf("not down to 0: %v", w.seen)
	}
	changes := []perennialv1.CountdownChange{
		perennialv1.CountdownChange_COUNTDOWN_CHANGE_RESUMED,
		perennialv1.CountdownChange_COUNTDOWN_CHANGE_ENDED,
	}
	if !slices.Equal(w.changes, changes) {
		t.Errorf("the events were %v, not %v", w.changes, changes)
	}
}
