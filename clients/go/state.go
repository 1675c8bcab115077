package perennial

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

const (
	stateVersion = 1

	kindCountdown = "countdown"
	kindLines     = "lines"
	kindMessages  = "messages"
)

// state is where a stream continues: after the item `after` of those that follow the cursor, or after the cursor itself.
// It has the same text in all languages.
type state struct {
	Version int    `json:"version"`
	Kind    string `json:"kind"`
	Cursor  string `json:"cursor"`
	After   *key   `json:"after,omitempty"`
}

// key identifies an item among those after a cursor. Each kind of stream uses its own fields.
type key struct {
	// Of lines: the number of changes of the file since the cursor, the offset, and the bytes of a line that may grow.
	Switches *int64  `json:"switches,omitempty"`
	Offset   *number `json:"offset,omitempty"`
	Bytes    *number `json:"bytes,omitempty"`
	// Of messages. The time tells a message from another one with this sequence, in a log that was restored.
	Sequence    *number `json:"sequence,omitempty"`
	PublishTime *number `json:"publish_time,omitempty"`
	// Of ticks. Only a shared countdown has versions. The field of the text is "version".
	Remaining *int32  `json:"remaining,omitempty"`
	Shared    *number `json:"version,omitempty"`
}

// number is a 64-bit number, which JSON has as a string of digits.
type number int64

func (n number) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(n), 10), nil }

func (n *number) UnmarshalText(text []byte) error {
	parsed, err := strconv.ParseInt(string(text), 10, 64)
	*n = number(parsed)
	return err
}

func (s state) text() string {
	s.Version = stateVersion
	// A state has only numbers, and texts without a `<`, so it has no characters that Marshal would escape.
	text, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("a state is always valid JSON: %v", err))
	}
	return string(text)
}

// parseState reads a state, or a bare cursor as the command line has it.
func parseState(text, kind, place string) (state, error) {
	refuse := func(fault string, args ...any) (state, error) {
		return state{}, &StateError{Place: place, Fault: fmt.Sprintf(fault, args...)}
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return refuse("is empty")
	}
	if !strings.HasPrefix(text, "{") {
		if strings.ContainsAny(text, " \t\r\n") || len(text) > 1024 {
			return refuse("is neither a state nor a cursor")
		}
		return state{Kind: kind, Cursor: text}, nil
	}
	var read state
	if err := json.Unmarshal([]byte(text), &read); err != nil {
		return refuse("is damaged (%v)", err)
	}
	switch {
	case read.Version != stateVersion:
		return refuse("has the version %d, and this client knows version %d", read.Version, stateVersion)
	case read.Kind != kind:
		return refuse("is of a stream of %q, not of %q", read.Kind, kind)
	case read.Cursor == "":
		return refuse("has no cursor")
	case read.After != nil && !read.After.isOf(kind):
		return refuse("has a key that is not one of %s", kind)
	}
	return read, nil
}

func (k *key) isOf(kind string) bool {
	switch kind {
	case kindLines:
		return k.Switches != nil && k.Offset != nil
	case kindMessages:
		return k.Sequence != nil
	default:
		return k.Remaining != nil
	}
}

func pointer[T any](value T) *T { return &value }
