package perennial

import (
	"context"
	"errors"
	"math"
	"time"
)

// What ends a call of a publisher besides silence.

// rest is the time that is left until a server must have accepted a call, if none has.
func (p *Publisher) rest() (time.Duration, bool) {
	if p.isAccepted.Load() {
		return 0, false
	}
	if p.began.IsZero() {
		p.began = time.Now()
	}
	return max(0, p.connectTimeout-time.Since(p.began)), true
}

// reason is why a call ended: because a watchdog has cancelled it, which needs another connection, or with its own error.
func (p *Publisher) reason(ctx context.Context, used *connection, err error) error {
	lost, ok := errors.AsType[*Error](context.Cause(ctx))
	if !ok || p.ctx.Err() != nil {
		return err
	}
	p.client.connections.retire(used)
	return lost
}

// watchConnect ends the call when no server accepts it before the connect timeout is over. The caller stops it.
func (p *Publisher) watchConnect(cancel context.CancelCauseFunc) *time.Timer {
	rest, isBounded := p.rest()
	if !isBounded {
		rest = math.MaxInt64
	}
	return time.AfterFunc(rest, func() {
		if !p.isAccepted.Load() {
			cancel(unavailable("no server accepted the call within %v", p.connectTimeout))
		}
	})
}

// watchIDs ends the call before the server forgets the id of a message that was sent again and has no answer. Answers to
// messages before it may still come, so the watchdog of answers does not end the call. The caller calls the result at the end.
func (p *Publisher) watchIDs(cancel context.CancelCauseFunc) (stop func()) {
	var timer *time.Timer
	check := func() {
		p.mutex.Lock()
		defer p.mutex.Unlock()
		left, sendsAgain := p.queue.idsKnownFor(time.Now().Add(dedupeLast - p.window))
		if !sendsAgain {
			return
		}
		if left > 0 {
			timer.Reset(left)
		} else {
			cancel(unavailable("a message that was sent again has no answer, and the server may forget its id soon"))
		}
	}
	timer = time.AfterFunc(math.MaxInt64, check)
	check()
	return func() { timer.Stop() }
}
