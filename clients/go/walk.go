package perennial

import (
	"context"
	"errors"
	"io"
)

// batch is a response, and what the state of each of its items is made of.
type batch struct {
	kind string
	// before is the cursor after which the keys of the items are unique, and after the cursor of this response.
	before, after string
	count         int
	key           func(item int) *key
	// kept is the state that the items of this batch leave as it is, because the item that it names is still to come, and
	// carried is what remains of its key after the batch.
	kept    *state
	carried *key
}

// state is the text of the state after an item.
func (b *batch) state(item int) string {
	switch {
	case b.kept != nil && item < b.count-1:
		return b.kept.text()
	case b.kept != nil:
		return state{Kind: b.kind, Cursor: b.after, After: b.carried}.text()
	case item == b.count-1:
		return state{Kind: b.kind, Cursor: b.after}.text()
	default:
		return state{Kind: b.kind, Cursor: b.before, After: b.key(item)}.text()
	}
}

// place is where an item of a stream is. It makes the state of the stream after the item.
type place struct {
	batch *batch
	index int
}

// State returns the state of the stream after this item: save it together with the result of the item, and continue with
// [WithState].
func (p place) State() string {
	if p.batch == nil {
		return ""
	}
	return p.batch.state(p.index)
}

// errStopped ends a walk whose caller has left the loop.
var errStopped = errors.New("the caller has left the loop")

// visitor hands out the responses of a kind of stream.
type visitor[R response] interface {
	// begin takes notice of a response. If the stream continues after the item `pending`, it returns how many of the first
	// items were handed out before, and whether that item is still to come.
	begin(response R, pending *key) (handedOut int, isStillPending bool, err error)
	// events hands out what is before the items of a response.
	events(response R, pending *key) error
	// keys returns what identifies each item of a response among those after the last cursor at which keys began anew.
	keys(R) func(item int) *key
	// item hands out an item.
	item(R, place) error
	// end hands out what is after the items.
	end(R) error
	// carry returns what identifies the item `pending`, which this response did not have, among those after the response.
	carry(pending *key) *key
	// restart is called when a response is complete and keys begin anew.
	restart()
}

// walk hands out a stream until it ends or the caller stops it.
func walk[R response](
	ctx context.Context, client *Client, kind string, from source[R], options streamOptions, visit visitor[R],
) (err error) {
	keep := keeper{store: options.store, every: options.saveEvery}
	start, err := begin(kind, options, from.cursor)
	if err != nil {
		return err
	}
	rest := int64(-1)
	if from.limit != nil {
		rest = *from.limit
	}
	pending := start.After
	if pending != nil {
		// The limit of a call would count items that were handed out before.
		from.limit = nil
	}
	ctx, stop := client.connections.bind(ctx)
	defer stop()
	flow := newFlow(ctx, client, from, options, start.Cursor)
	defer func() {
		// The server notices at once, however long the last save and the last commit take.
		flow.close()
		failed := keep.finish()
		if failed == nil {
			failed = options.consumer.end(ctx)
		}
		switch {
		case errors.Is(err, errStopped):
			// The loop is over, and takes no error any more. Without the last save, items come again.
			err = nil
		case err == nil:
			err = failed
		}
	}()

	base := start.Cursor
	for {
		response, err := flow.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		count := from.count(response)
		handedOut, isStillPending, err := visit.begin(response, pending)
		if err != nil {
			return err
		}
		if err := visit.events(response, pending); err != nil {
			return err
		}
		made := &batch{kind: kind, before: base, after: response.GetCursor(), count: count, key: visit.keys(response)}
		if isStillPending {
			made.kept, made.carried = &state{Kind: kind, Cursor: base, After: pending}, visit.carry(pending)
		} else {
			pending = nil
		}
		for item := handedOut; item < count; item++ {
			at := place{made, item}
			options.consumer.handsOut(at)
			if err := visit.item(response, at); err != nil {
				return err
			}
			if keep.store != nil {
				if err := keep.done(at.State); err != nil {
					return err
				}
			}
			// Otherwise the server ends the stream at the limit.
			if rest--; rest == 0 && from.limit == nil {
				return nil
			}
		}
		if err := visit.end(response); err != nil {
			return err
		}
		base = response.GetCursor()
		visit.restart()
		if pending != nil {
			pending = made.carried
			continue
		}
		if err := options.consumer.completed(ctx, base); err != nil {
			return err
		}
		if count == 0 && keep.store != nil {
			cursor := base
			if err := keep.idle(func() string { return state{Kind: kind, Cursor: cursor}.text() }); err != nil {
				return err
			}
		}
	}
}

// begin returns the state that a stream continues from: a saved one, or the cursor of the request.
func begin(kind string, options streamOptions, cursor string) (state, error) {
	if options.hasState {
		return parseState(options.state, kind, "the state")
	}
	if options.store == nil {
		return state{Cursor: cursor}, nil
	}
	text, found, err := options.store.Load()
	if err != nil || !found {
		return state{Cursor: cursor}, err
	}
	name := "the state in the store"
	if file, isFile := options.store.(*FileStore); isFile {
		name = file.path
	}
	return parseState(text, kind, name)
}
