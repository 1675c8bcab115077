package perennial_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

// silentProxy passes bytes on, and can hold back those of the server while the connections stay open.
type silentProxy struct {
	address string
	mutex   sync.Mutex
	speaks  *sync.Cond
	silent  bool
	open    map[net.Conn]struct{}
	dials   int
}

func startSilentProxy(t *testing.T, to *server) *silentProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	p := &silentProxy{address: listener.Addr().String(), open: map[net.Conn]struct{}{}}
	p.speaks = sync.NewCond(&p.mutex)
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
		p.speak()
	})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.pass(client, to.address)
		}
	}()
	return p
}

func (p *silentProxy) pass(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	p.mutex.Lock()
	p.open[client] = struct{}{}
	p.dials++
	p.mutex.Unlock()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		p.mutex.Lock()
		for p.silent {
			p.speaks.Wait()
		}
		p.mutex.Unlock()
		if err != nil {
			return
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (p *silentProxy) silence() { p.set(true) }
func (p *silentProxy) speak()   { p.set(false) }

func (p *silentProxy) set(silent bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.silent = silent
	p.speaks.Broadcast()
}

// cut ends the connections that are open.
func (p *silentProxy) cut() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for client := range p.open {
		_ = client.Close()
		delete(p.open, client)
	}
}

func TestAStreamThatFallsSilentContinuesOnAnotherConnection(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server := startServer(t)
	gate := startSilentProxy(t, server)
	client := connect(t, gate.address)
	appendLines(t, server.path("a.log"), 0, 10)
	request := &perennialv1.ReadLinesRequest{
		Path: "logs/a.log", Follow: true, Heartbeat: durationpb.New(200 * time.Millisecond),
	}
	var reason error
	next := 0
	onRetry := perennial.WithOnRetry(func(err error, _ time.Duration) {
		reason = err
		gate.speak()
	})
	for line, err := range client.ReadLines(ctx, request, onRetry) {
		fatal(t, err)
		if line.GetText() != text(next) {
			t.Fatalf("line %d is %q", next, line.GetText())
		}
		next++
		if next == 10 {
			// The time of the caller does not count as silence.
			time.Sleep(300 * time.Millisecond)
			gate.silence()
			appendLines(t, server.path("a.log"), 10, 20)
		}
		if next == 20 {
			break
		}
	}
	if reason == nil {
		t.Error("the stream was not found silent")
	}
	gate.mutex.Lock()
	defer gate.mutex.Unlock()
	if gate.dials < 2 {
		t.Errorf("%d connections were made", gate.dials)
	}
}

func TestAFirstCallWithoutAServerFailsAfterTheConnectTimeout(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	address := listener.Addr().String()
	_ = listener.Close()
	start := time.Now()
	request := &perennialv1.ReadLinesRequest{Path: "logs/a.log"}
	count := 0
	for _, err := range connect(t, address).ReadLines(t.Context(), request, perennial.WithConnectTimeout(time.Second)) {
		count++
		fault, ok := errors.AsType[*perennial.Error](err)
		if !ok || fault.Code != codes.Unavailable || !fault.CanRetry() {
			t.Errorf("the error is %v", err)
		}
	}
	if took := time.Since(start); count != 1 || took > 2*time.Second {
		t.Errorf("%d values after %v", count, took)
	}
}

func TestAnOutageIsBoundedWhereTheCallerBoundsIt(t *testing.T) {
	server := startServer(t)
	appendLines(t, server.path("a.log"), 0, 1)
	request := &perennialv1.ReadLinesRequest{Path: "logs/a.log", Follow: true}
	start := time.Now()
	var last error
	options := perennial.WithMaxOutage(time.Second)
	for _, err := range connect(t, server.address).ReadLines(t.Context(), request, options) {
		if err == nil {
			server.kill()
			start = time.Now()
		}
		last = err
	}
	if fault, ok := errors.AsType[*perennial.Error](last); !ok || fault.Code != codes.Unavailable {
		t.Errorf("the error is %v", last)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestACancelledContextAndADeadlineEndTheStream(t *testing.T) {
	server := startServer(t)
	client := connect(t, server.address)
	appendLines(t, server.path("a.log"), 0, 1)
	request := &perennialv1.ReadLinesRequest{Path: "logs/a.log", Follow: true}
	ctx, cancel := context.WithCancel(t.Context())
	var last error
	var cancelled time.Time
	for _, err := range client.ReadLines(ctx, request) {
		if last = err; err == nil {
			time.AfterFunc(100*time.Millisecond, func() {
				cancelled = time.Now()
				cancel()
			})
		}
	}
	if last != context.Canceled || time.Since(cancelled) > 100*time.Millisecond {
		t.Errorf("the error is %v, after %v", last, time.Since(cancelled))
	}
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for _, err := range client.ReadLines(ctx, request) {
		last = err
	}
	fault, ok := errors.AsType[*perennial.Error](last)
	if !ok || fault.Code != codes.DeadlineExceeded || fault.CanRetry() || !errors.Is(last, context.DeadlineExceeded) {
		t.Errorf("the error is %v", last)
	}
	// Also while the stream waits between two attempts.
	server.kill()
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	for _, err := range client.ReadLines(ctx, request) {
		last = err
	}
	if took := time.Since(start); !errors.Is(last, context.DeadlineExceeded) || took > 400*time.Millisecond {
		t.Errorf("the error is %v, after %v", last, took)
	}
}

func TestAClosedClientEndsItsStreams(t *testing.T) {
	server := startServer(t)
	client := connect(t, server.address)
	appendLines(t, server.path("a.log"), 0, 1)
	request := &perennialv1.ReadLinesRequest{Path: "logs/a.log", Follow: true}
	var last error
	for _, err := range client.ReadLines(t.Context(), request) {
		if last = err; err == nil {
			time.AfterFunc(50*time.Millisecond, func() { _ = client.Close() })
		}
	}
	if !errors.Is(last, perennial.ErrClosed) {
		t.Errorf("the stream ended with %v", last)
	}
	for _, err := range client.ReadLines(t.Context(), request) {
		if !errors.Is(err, perennial.ErrClosed) {
			t.Errorf("a new stream ended with %v", err)
		}
	}
	_, err := client.LineService().ListFiles(t.Context(), &perennialv1.ListFilesRequest{})
	if !errors.Is(err, perennial.ErrClosed) {
		t.Errorf("a call ended with %v", err)
	}
}

func TestARefusedCallHasItsReasonAndIsNotTriedAgain(t *testing.T) {
	client := connect(t, startServer(t).address)
	_, err := client.CountdownService().GetCountdown(t.Context(), &perennialv1.GetCountdownRequest{Name: "missing"})
	fault, ok := errors.AsType[*perennial.Error](err)
	if !ok || fault.Reason != perennialv1.ErrorReason_COUNTDOWN_NOT_FOUND || fault.CanRetry() {
		t.Errorf("the error is %v", err)
	}
	request := &perennialv1.CountdownRequest{Target: &perennialv1.CountdownRequest_Start{Start: -1}}
	for _, err := range client.Countdown(t.Context(), request) {
		fault, ok := errors.AsType[*perennial.Error](err)
		if !ok || fault.Reason != perennialv1.ErrorReason_INVALID_FIELD || fault.Field == "" {
			t.Errorf("the error is %v", err)
		}
	}
}
