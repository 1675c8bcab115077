package perennial_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

func TestALogIsFollowedAcrossARotationLineByLine(t *testing.T) {
	const lines = 30_000
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	server := startServer(t)
	proxy := startProxy(t, server, 200_000)
	path := server.path("app.log")
	appendLines(t, path, 0, lines/3)

	var writer sync.WaitGroup
	defer writer.Wait()
	defer cancel()
	writeRest := func() {
		for start := lines / 3; start < lines && ctx.Err() == nil; start += 500 {
			err := write(path, start, start+500)
			switch start {
			case lines / 2:
				err = errors.Join(err, os.Rename(path, path+".1"))
			case lines * 2 / 3:
				err = errors.Join(err, server.restart())
			}
			if err != nil {
				t.Error(err)
				cancel()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}

	next, rotations := 0, 0
	request := &perennialv1.ReadLinesRequest{Path: "logs/app.log", Follow: true, WaitForCreate: true}
	for item, err := range connect(t, proxy.address).ReadLinesAndEvents(ctx, request) {
		if err != nil {
			t.Fatalf("at line %d of %d: %v", next, lines, err)
		}
		switch item := item.(type) {
		case perennial.LineEvent:
			if item.GetRotated() != nil {
				rotations++
			}
		case perennial.Line:
			if next == 0 {
				writer.Go(writeRest)
			}
			if want := text(next); item.GetText() != want {
				t.Fatalf("line %d is %q, not %q", next, item.GetText(), want)
			}
			next++
		}
		if next == lines {
			break
		}
	}
	if rotations != 1 {
		t.Errorf("%d rotations were reported, not 1", rotations)
	}
	if proxy.cuts.Load() == 0 {
		t.Error("nothing was cut")
	}
	t.Logf("%d lines over %d cuts", next, proxy.cuts.Load())
}

func TestEveryNumberOfASharedCountdownIsDeliveredOrCounted(t *testing.T) {
	const interval = 5 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server := startServer(t)
	proxy := startProxy(t, server, 5_000)
	calls := connect(t, server.address).CountdownService()
	create := &perennialv1.CreateCountdownRequest{
		Name: "show", Target: &perennialv1.CreateCountdownRequest_Start{Start: 400}, Interval: durationpb.New(interval),
	}
	if _, err := calls.CreateCountdown(ctx, create); err != nil {
		t.Fatal(err)
	}
	// While it is paused, the time that is left says how many numbers are still to come.
	paused, err := calls.PauseCountdown(ctx, &perennialv1.PauseCountdownRequest{Name: "show"})
	if err != nil {
		t.Fatal(err)
	}
	left := int64((paused.GetCountdown().GetRemainingDuration().AsDuration() + interval - 1) / interval)

	var seen []int32
	var skipped int64
	var changes []perennialv1.CountdownChange
	isResumed, isKilled := false, false
	resume := time.AfterFunc(200*time.Millisecond, func() {
		_, err := calls.ResumeCountdown(ctx, &perennialv1.ResumeCountdownRequest{Name: "show"})
		if err != nil {
			t.Error(err)
			cancel()
		}
	})
	defer resume.Stop()
	request := &perennialv1.CountdownRequest{Target: &perennialv1.CountdownRequest_Name{Name: "show"}}
	for item, err := range connect(t, proxy.address).CountdownAndEvents(ctx, request) {
		if err != nil {
			t.Fatalf("after %v: %v", seen, err)
		}
		switch item := item.(type) {
		case perennial.Skipped:
			skipped += item.Ticks
		case perennial.CountdownEvent:
			if changed := item.GetChanged(); changed != nil {
				changes = append(changes, changed.GetChange())
				isResumed = isResumed || changed.GetChange() == perennialv1.CountdownChange_COUNTDOWN_CHANGE_RESUMED
			}
		case perennial.Tick:
			seen = append(seen, item.GetRemaining())
			if !isKilled && len(seen) > 100 {
				isKilled = true
				if err := server.restart(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if accounted := int64(len(seen)) + skipped; accounted != left {
		t.Errorf("%d numbers were delivered and %d counted, of %d", len(seen), skipped, left)
	}
	down := slices.Clone(seen)
	slices.SortFunc(down, func(a, b int32) int { return int(b) - int(a) })
	if !slices.Equal(seen, slices.Compact(down)) || seen[len(seen)-1] != 0 {
		t.Errorf("not down to 0: %v", seen)
	}
	if len(changes) != 2 || !isResumed || changes[1] != perennialv1.CountdownChange_COUNTDOWN_CHANGE_ENDED {
		t.Errorf("the changes were %v", changes)
	}
	if proxy.cuts.Load() == 0 {
		t.Error("nothing was cut")
	}
	t.Logf("%d numbers over %d cuts, %d skipped", len(seen), proxy.cuts.Load(), skipped)
}

// states reads a stream and keeps, of each item, its name and the state after it.
type stated struct{ name, state string }

func TestAProgramThatDiesAfterAnyItemContinuesWithTheNextOne(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server := startServer(t)
	client := connect(t, server.address)
	appendLines(t, server.path("old.log"), 0, 40)
	if err := write(server.path("open.log"), 0, 3); err != nil {
		t.Fatal(err)
	}
	publisher := client.Publisher(ctx)
	for n := range 40 {
		if _, err := publisher.Publish(ctx, textMessage(fmt.Sprintf("t.%d", n%3), fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := publisher.Close(); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]func(options ...perennial.StreamOption) []stated{
		"lines": func(options ...perennial.StreamOption) (all []stated) {
			request := &perennialv1.ReadLinesRequest{Path: "logs/old.log"}
			for line, err := range client.ReadLines(ctx, request, options...) {
				fatal(t, err)
				all = append(all, stated{line.GetText(), line.State()})
			}
			return all
		},
		"messages": func(options ...perennial.StreamOption) (all []stated) {
			request := &perennialv1.MessagesRequest{
				Topics: []string{"t.>"}, Start: &perennialv1.MessagesRequest_Earliest{Earliest: true}, UntilCaughtUp: true,
			}
			for message, err := range client.Messages(ctx, request, options...) {
				fatal(t, err)
				all = append(all, stated{message.GetText(), message.State()})
			}
			return all
		},
		"countdown": func(options ...perennial.StreamOption) (all []stated) {
			request := &perennialv1.CountdownRequest{
				Target: &perennialv1.CountdownRequest_Start{Start: 20}, Interval: durationpb.New(time.Millisecond),
				OnLag: perennialv1.OnLag_ON_LAG_BURST,
			}
			for tick, err := range client.Countdown(ctx, request, options...) {
				fatal(t, err)
				all = append(all, stated{fmt.Sprint(tick.GetRemaining()), tick.State()})
			}
			return all
		},
	}
	for kind, read := range kinds {
		all := read()
		for n, item := range all {
			rest := read(perennial.WithState(item.state))
			want := all[n+1:]
			if len(rest) != len(want) || len(rest) > 0 && rest[0].name != want[0].name {
				t.Fatalf("%s: after item %d (%s) there are %d items, not %d", kind, n, item.state, len(rest), len(want))
			}
		}
		if len(all) < 20 {
			t.Errorf("%s: only %d items", kind, len(all))
		}
	}
}

func TestTheRestOfALineThatGrewIsHandedOut(t *testing.T) {
	server := startServer(t)
	client := connect(t, server.address)
	path := server.path("a.log")
	if err := os.WriteFile(path, []byte("one\ntwo\nthr"), 0o600); err != nil {
		t.Fatal(err)
	}
	request := &perennialv1.ReadLinesRequest{Path: "logs/a.log"}
	state := ""
	for line, err := range client.ReadLines(t.Context(), request) {
		fatal(t, err)
		state = line.State()
	}
	// As if the response had more after it: the key of the last line, beside the cursor of the first.
	before := ""
	for line, err := range client.ReadLines(t.Context(), request) {
		fatal(t, err)
		before = line.State()
		break
	}
	state = strings.TrimSuffix(before, "}") + `,"after":{"switches":0,"offset":"8","bytes":"3"}}`
	if err := os.WriteFile(path, []byte("one\ntwo\nthree\nfour\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line, err := range client.ReadLines(t.Context(), request, perennial.WithState(state)) {
		fatal(t, err)
		got = append(got, fmt.Sprintf("%d %s %v", line.GetOffset(), line.GetText(), line.GetContinued()))
	}
	if want := []string{"11 ee true", "14 four false"}; !slices.Equal(got, want) {
		t.Errorf("got %q, not %q", got, want)
	}
}

func TestAStoreInAFileContinuesAfterTheLastProcessedItem(t *testing.T) {
	server := startServer(t)
	client := connect(t, server.address)
	appendLines(t, server.path("a.log"), 0, 30)
	file := server.directory + "/state"
	request := &perennialv1.ReadLinesRequest{Path: "logs/a.log"}
	next := 0
	for run := 0; next < 30; run++ {
		if run > 100 {
			t.Fatalf("only %d lines in %d runs", next, run)
		}
		taken := 0
		for line, err := range client.ReadLines(t.Context(), request, perennial.WithStore(perennial.NewFileStore(file))) {
			fatal(t, err)
			// The loop is left with a line in hand, which is not processed: it comes again.
			if taken == 7 {
				break
			}
			if line.GetText() != text(next) {
				t.Fatalf("line %d is %q", next, line.GetText())
			}
			next, taken = next+1, taken+1
		}
	}
	if mode, err := os.Stat(file); err != nil || mode.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", mode, err)
	}
	for _, damaged := range []string{"", " \n", "{", `{"version":2}`, `{"version":1,"kind":"messages","cursor":"a"}`} {
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, err := range client.ReadLines(t.Context(), request, perennial.WithStore(perennial.NewFileStore(file))) {
			fault, ok := errors.AsType[*perennial.StateError](err)
			if !ok || fault.Place != file {
				t.Errorf("%q: %v", damaged, err)
			}
		}
	}
}

func TestALimitCountsOverCutsAndOverAState(t *testing.T) {
	server := startServer(t)
	proxy := startProxy(t, server, 300_000)
	client := connect(t, proxy.address)
	appendLines(t, server.path("a.log"), 0, 20_000)
	most := int64(12_345)
	request := &perennialv1.ReadLinesRequest{Path: "logs/a.log", Limit: &most}
	read := func(options ...perennial.StreamOption) (count int, states []string) {
		for line, err := range client.ReadLines(t.Context(), request, options...) {
			fatal(t, err)
			count++
			if count%1_000 == 0 {
				states = append(states, line.State())
			}
		}
		return count, states
	}
	count, states := read()
	if count != int(most) || proxy.cuts.Load() == 0 {
		t.Fatalf("%d lines over %d cuts", count, proxy.cuts.Load())
	}
	if count, _ := read(perennial.WithState(states[0])); count != int(most) {
		t.Errorf("%d lines after a state", count)
	}
}

func textMessage(topic, text string) *perennialv1.PublishRequest {
	return &perennialv1.PublishRequest{Topic: topic, Content: &perennialv1.PublishRequest_Text{Text: text}}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
