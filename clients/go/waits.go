package perennial

import (
	"math/rand/v2"
	"time"
)

const (
	minWait, maxWait      = 100 * time.Millisecond, 2 * time.Second
	defaultConnectTimeout = 10 * time.Second
)

// waits are the times between attempts: random up to a bound that doubles, so that the clients of a restarted server do
// not all return at once.
type waits struct {
	failures int
}

// next is the wait after a failure. The server may ask for a longer one.
func (w *waits) next(failure *Error) time.Duration {
	bound := maxWait
	if w.failures < 8 {
		bound = min(maxWait, minWait<<w.failures)
	}
	w.failures++
	wait := time.Duration(rand.Float64() * float64(bound))
	if failure.CanRetry() {
		wait = max(wait, failure.RetryDelay)
	}
	return wait
}

// reset makes the next wait a short one, because the server has answered.
func (w *waits) reset() { w.failures = 0 }
