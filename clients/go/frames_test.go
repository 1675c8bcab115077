package perennial

import (
	"testing"
	"time"
)

func TestACallEndsBeforeTheServerForgetsTheIDOfAMessageThatItSendsAgain(t *testing.T) {
	last := time.Unix(1_000, 0)
	known := last.Add(7 * time.Second)
	for _, one := range []struct {
		name       string
		entries    []*entry
		sent       int
		want       time.Duration
		sendsAgain bool
	}{
		{"no message", nil, 0, 0, false},
		{"a message that was never sent", []*entry{{}}, 0, 0, false},
		{"sent by an earlier call, and not yet by this one", []*entry{{sent: known}}, 0, answerTimeout, true},
		{"sent first by this call", []*entry{{sent: known}}, 1, 7 * time.Second, false},
		{"sent again by this call", []*entry{{sent: known, isAgain: true}}, 1, 7 * time.Second, true},
		{"sent again, and the id is forgotten", []*entry{{sent: last.Add(-time.Second), isAgain: true}}, 1, -time.Second, true},
		{"the oldest decides", []*entry{{sent: known, isAgain: true}, {sent: known.Add(time.Second)}, {}}, 2, 7 * time.Second, true},
	} {
		queue := &frames{entries: one.entries, sent: one.sent}
		got, sendsAgain := queue.idsKnownFor(last)
		if sendsAgain != one.sendsAgain || sendsAgain && got != one.want {
			t.Errorf("%s: %v, %t instead of %v, %t", one.name, got, sendsAgain, one.want, one.sendsAgain)
		}
	}
}

func TestAMessageIsSentAgainOnlyWhileTheServerKnowsItsID(t *testing.T) {
	oldest := time.Unix(1_000, 0)
	now := oldest.Add(time.Minute)
	forgotten, known, fresh := &entry{sent: oldest.Add(-1)}, &entry{sent: oldest}, &entry{}
	queue := &frames{entries: []*entry{forgotten, known, fresh}}
	messages, old := queue.next(now, oldest)
	if len(messages) != 2 || len(old) != 1 || old[0] != forgotten {
		t.Fatalf("%d messages to send and %d given up", len(messages), len(old))
	}
	if !known.isAgain || !known.sent.Equal(oldest) || fresh.isAgain || !fresh.sent.Equal(now) {
		t.Errorf("sent again: %+v; sent first: %+v", known, fresh)
	}
}
