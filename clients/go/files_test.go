package perennial_test

import (
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

// watched keeps the files of a stream.
type watched struct {
	files    map[string]bool
	relisted int
}

func (w *watched) take(t *testing.T, response *perennialv1.WatchFilesResponse) {
	t.Helper()
	for _, event := range response.GetEvents() {
		if event.GetRelisted() != nil {
			w.relisted++
			clear(w.files)
		}
	}
	for _, change := range response.GetChanges() {
		if added := change.GetAdded(); added != nil {
			if w.files[added.GetPath()] {
				t.Errorf("%s comes twice", added.GetPath())
			}
			w.files[added.GetPath()] = true
		} else {
			delete(w.files, change.GetRemoved().GetPath())
		}
	}
}

func TestFilesThatMatchGlobsAreWatchedOverAServerThatIsKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server := startServer(t)
	appendLines(t, server.path("a.log"), 0, 1)
	appendLines(t, server.path("a.txt"), 0, 1)
	client := connect(t, server.address)

	has := &watched{files: map[string]bool{}}
	request := &perennialv1.WatchFilesRequest{
		Globs: []string{"logs/**/*.log"}, Heartbeat: durationpb.New(time.Second),
	}
	next, stop := iter.Pull2(client.WatchFiles(ctx, request))
	defer stop()
	until := func(wanted ...string) {
		t.Helper()
		for !slices.Equal(slices.Sorted(maps.Keys(has.files)), wanted) {
			response, err, ok := next()
			if err != nil || !ok {
				t.Fatalf("has %v, not %v: %v", has.files, wanted, err)
			}
			has.take(t, response)
		}
	}
	until("logs/a.log")
	appendLines(t, server.path("b.log"), 0, 1)
	until("logs/a.log", "logs/b.log")
	server.kill()
	appendLines(t, server.path("c.log"), 0, 1)
	if err := errors.Join(os.Remove(server.path("a.log")), server.restart()); err != nil {
		t.Fatal(err)
	}
	until("logs/b.log", "logs/c.log")
	if has.relisted != 1 {
		t.Errorf("%d times all came again", has.relisted)
	}

	all := &watched{files: map[string]bool{}}
	request = &perennialv1.WatchFilesRequest{Globs: []string{"logs"}, UntilCaughtUp: true}
	for response, err := range client.WatchFiles(ctx, request) {
		if err != nil {
			t.Fatal(err)
		}
		all.take(t, response)
	}
	if len(all.files) != 3 {
		t.Errorf("%v", all.files)
	}
	for _, err := range client.WatchFiles(ctx, &perennialv1.WatchFilesRequest{Globs: []string{"none/*"}}) {
		var failure *perennial.Error
		if !errors.As(err, &failure) || failure.ReasonName != "FILE_NOT_FOUND" {
			t.Errorf("%v", err)
		}
	}
}
