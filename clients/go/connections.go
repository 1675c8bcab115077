package perennial

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// connections holds the channel that new calls take, and those that older calls still use.
//
// A channel of grpc-go that could not connect waits with a backoff of its own, and fails calls meanwhile. A call that is
// tried again takes a new channel instead, so that the wait of the caller is the only one. A channel that fell silent is
// left to the calls that are on it, because only the network knows whether it is dead.
type connections struct {
	target string
	dial   []grpc.DialOption

	closed context.Context
	close_ context.CancelCauseFunc

	mutex   sync.Mutex
	current *connection
	all     map[*connection]struct{}
}

type connection struct {
	channel *grpc.ClientConn
	users   int
	retired bool
}

func newConnections(target string, dial []grpc.DialOption) *connections {
	closed, cancel := context.WithCancelCause(context.Background())
	return &connections{target: target, dial: dial, closed: closed, close_: cancel, all: map[*connection]struct{}{}}
}

// bind returns a context that also ends, with ErrClosed, when the client is closed.
func (c *connections) bind(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.closed, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}

// acquire returns the channel for a call; release it after the call.
func (c *connections) acquire() (*connection, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed.Err() != nil {
		return nil, ErrClosed
	}
	if c.current != nil && c.current.channel.GetState() == connectivity.TransientFailure {
		c.drop(c.current)
	}
	if c.current == nil {
		channel, err := grpc.NewClient(c.target, c.dial...)
		if err != nil {
			return nil, err
		}
		c.current = &connection{channel: channel}
		c.all[c.current] = struct{}{}
	}
	c.current.users++
	return c.current, nil
}

func (c *connections) release(used *connection) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	used.users--
	c.closeUnused(used)
}

// retire makes new calls take another channel.
func (c *connections) retire(used *connection) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.drop(used)
}

func (c *connections) drop(used *connection) {
	used.retired = true
	if c.current == used {
		c.current = nil
	}
	c.closeUnused(used)
}

func (c *connections) closeUnused(used *connection) {
	if _, isOpen := c.all[used]; isOpen && used.retired && used.users == 0 {
		delete(c.all, used)
		_ = used.channel.Close()
	}
}

func (c *connections) close() error {
	c.close_(ErrClosed)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.current = nil
	var first error
	for used := range c.all {
		if err := used.channel.Close(); err != nil && first == nil {
			first = err
		}
		delete(c.all, used)
	}
	return first
}
