package perennial_test

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

// The figures of the manual, which take minutes: PERENNIAL_FIGURES=1 go test -v -run Figure.
func needsTime(t *testing.T) {
	t.Helper()
	if os.Getenv("PERENNIAL_FIGURES") == "" {
		t.Skip("PERENNIAL_FIGURES is not set")
	}
}

func TestFigureAMillionLinesThroughTwentyKillsArriveOnce(t *testing.T) {
	needsTime(t)
	const lines, kills = 1_000_000, 20
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	server := startServer(t)
	path := server.path("app.log")
	appendLines(t, path, 0, 1)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	others.Go(func() {
		for from := 1; from < lines && ctx.Err() == nil; from += 20_000 {
			fatal(t, write(path, from, min(from+20_000, lines)))
			time.Sleep(200 * time.Millisecond)
		}
	})
	others.Go(func() {
		for range kills {
			time.Sleep(time.Duration(300+rand.IntN(200)) * time.Millisecond)
			fatal(t, server.restart())
		}
	})
	start, next, retries := time.Now(), 0, 0
	request := &perennialv1.ReadLinesRequest{Path: "logs/app.log", Follow: true}
	onRetry := perennial.WithOnRetry(func(error, time.Duration) { retries++ })
	for line, err := range connect(t, server.address).ReadLines(ctx, request, onRetry) {
		fatal(t, err)
		if line.GetText() != text(next) {
			t.Fatalf("line %d is %q", next, line.GetText())
		}
		if next++; next == lines {
			break
		}
	}
	t.Logf("%d lines through %d kills, each once, over %d attempts, in %v", next, kills, retries, time.Since(start))
}

func TestFigureAStreamIsBackAfterAnOutageOfThirtySeconds(t *testing.T) {
	needsTime(t)
	for range 3 {
		server := startServer(t)
		path := server.path("app.log")
		appendLines(t, path, 0, 1)
		request := &perennialv1.ReadLinesRequest{Path: "logs/app.log", Follow: true}
		var back time.Time
		for line, err := range connect(t, server.address).ReadLines(t.Context(), request) {
			fatal(t, err)
			if line.GetText() == text(1) {
				break
			}
			server.kill()
			appendLines(t, path, 1, 2)
			go func() {
				time.Sleep(30 * time.Second)
				fatal(t, server.restart())
				back = time.Now()
			}()
		}
		took := time.Since(back)
		t.Logf("back %v after the server", took)
		if took > 2500*time.Millisecond {
			t.Errorf("back only after %v", took)
		}
	}
}
