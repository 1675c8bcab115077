package perennial

import (
	"context"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

// CountdownItem is a [Tick], a [CountdownEvent] or a [Skipped].
type CountdownItem interface{ isCountdownItem() }

// Tick is a number of a countdown, and where the stream is after it.
type Tick struct {
	*perennialv1.Tick
	place
	// SkippedBefore is the number of ticks between this one and the one before that were due and are not delivered.
	SkippedBefore int64
}

// State returns the state of the stream after this tick: save it together with the result of the tick, and continue with
// [WithState]. The state of a shared countdown is GetState.
func (t Tick) State() string { return t.place.State() }

// CountdownEvent is something that happened to the countdown before the next tick. An event that this package does not
// know has the Event nil, and its fields are unknown fields.
type CountdownEvent struct {
	*perennialv1.CountdownStreamEvent
	// Countdown is the state of a shared countdown after the event.
	Countdown *perennialv1.Countdown
}

// Skipped is a number of ticks that were due and are not delivered.
type Skipped struct {
	Ticks int64
}

func (Tick) isCountdownItem()           {}
func (CountdownEvent) isCountdownItem() {}
func (Skipped) isCountdownItem()        {}

// Countdown counts down, or watches a shared countdown.
func (c *Client) Countdown(
	ctx context.Context, request *perennialv1.CountdownRequest, options ...StreamOption,
) iter.Seq2[Tick, error] {
	return func(yield func(Tick, error) bool) {
		visit := &tickVisitor{tick: func(tick Tick) bool { return yield(tick, nil) }}
		if err := c.walkCountdown(ctx, request, options, visit); err != nil {
			yield(Tick{}, err)
		}
	}
}

// CountdownAndEvents is Countdown with the events and the skipped ticks between the ticks.
func (c *Client) CountdownAndEvents(
	ctx context.Context, request *perennialv1.CountdownRequest, options ...StreamOption,
) iter.Seq2[CountdownItem, error] {
	return func(yield func(CountdownItem, error) bool) {
		visit := &tickVisitor{
			tick:  func(tick Tick) bool { return yield(tick, nil) },
			event: func(item CountdownItem) bool { return yield(item, nil) },
		}
		if err := c.walkCountdown(ctx, request, options, visit); err != nil {
			yield(nil, err)
		}
	}
}

func (c *Client) walkCountdown(
	ctx context.Context, request *perennialv1.CountdownRequest, options []StreamOption, visit *tickVisitor,
) error {
	request = proto.CloneOf(request)
	visit.step = 1
	if request.Step != nil {
		visit.step = int64(request.GetStep())
	}
	from := source[*perennialv1.CountdownResponse]{
		heartbeat: request.GetHeartbeat(), cursor: request.GetCursor(), limit: request.Limit,
		count: func(response *perennialv1.CountdownResponse) int { return len(response.GetTicks()) },
		open: func(
			ctx context.Context, channel grpc.ClientConnInterface, cursor *string, limit *int64,
		) (receiver[*perennialv1.CountdownResponse], error) {
			request.Cursor, request.Limit = cursor, limit
			return perennialv1.NewCountdownServiceClient(channel).Countdown(ctx, request)
		},
	}
	return walk(ctx, c, kindCountdown, from, newStreamOptions(options), visit)
}

// tickVisitor hands out ticks. Their numbers fall while the countdown does not change, and each change of a shared
// countdown gives it another version.
type tickVisitor struct {
	tick func(Tick) bool
	// event is nil if the caller wants no events.
	event func(CountdownItem) bool
	step  int64
	// skipped is of this response; skippedBefore also counts those of responses without ticks before it.
	skipped, skippedBefore int64
}

func (v *tickVisitor) begin(response *perennialv1.CountdownResponse, pending *key) (int, bool, error) {
	if step := response.GetCountdown().GetStep(); step > 0 {
		v.step = int64(step)
	}
	v.skipped = response.GetSkippedTicks()
	ticks := response.GetTicks()
	if pending == nil {
		return 0, false, nil
	}
	if len(ticks) == 0 {
		return 0, true, nil
	}
	version := int64(0)
	if pending.Shared != nil {
		version = int64(*pending.Shared)
	}
	last := int64(*pending.Remaining)
	if first := ticks[0]; first.GetVersion() == version {
		// Of the numbers that were skipped before the first tick, those down to the pending one were handed out.
		remaining := int64(first.GetRemaining())
		for n := v.skipped; n > 0 && remaining+n*v.step >= last; n-- {
			v.skipped--
		}
	}
	for n, tick := range ticks {
		isHandedOut := tick.GetVersion() < version ||
			tick.GetVersion() == version && int64(tick.GetRemaining()) >= last
		if !isHandedOut {
			return n, false, nil
		}
	}
	return len(ticks), true, nil
}

func (v *tickVisitor) events(response *perennialv1.CountdownResponse, _ *key) error {
	v.skippedBefore += v.skipped
	if v.event == nil {
		return nil
	}
	if v.skipped > 0 && !v.event(Skipped{v.skipped}) {
		return errStopped
	}
	for _, event := range response.GetEvents() {
		if !v.event(CountdownEvent{event, response.GetCountdown()}) {
			return errStopped
		}
	}
	return nil
}

func (v *tickVisitor) keys(response *perennialv1.CountdownResponse) func(int) *key {
	return func(item int) *key {
		tick := response.GetTicks()[item]
		made := &key{Remaining: pointer(tick.GetRemaining())}
		if tick.Version != nil {
			made.Shared = pointer(number(tick.GetVersion()))
		}
		return made
	}
}

func (v *tickVisitor) item(response *perennialv1.CountdownResponse, at place) error {
	tick := Tick{response.GetTicks()[at.index], at, v.skippedBefore}
	v.skippedBefore = 0
	if !v.tick(tick) {
		return errStopped
	}
	return nil
}

func (v *tickVisitor) end(*perennialv1.CountdownResponse) error { return nil }

func (v *tickVisitor) carry(pending *key) *key { return pending }

func (v *tickVisitor) restart() {}
