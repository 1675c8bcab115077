package perennial

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

const (
	limit = 60 * time.Second
	lines = 30_000
)

func TestALogIsFollowedAcrossARotationLineByLine(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	server := startServer(t)
	proxy := startProxy(t, server, 200_000)
	path := filepath.Join(server.directory, "logs", "app.log")
	appendLines(t, path, 0, lines/3)

	var writer sync.WaitGroup
	defer writer.Wait()
	defer cancel()
	writeRest := func() {
		for start := lines / 3; start < lines && ctx.Err() == nil; start += 500 {
			if err := write(path, start, start+500); err != nil {
				fail(err)
			}
			switch start {
			case lines / 2:
				if err := os.Rename(path, path+".1"); err != nil {
					fail(err)
				}
			case lines * 2 / 3:
				if err := server.restart(); err != nil {
					fail(err)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	}

	next, rotations, isWriting := 0, 0, false
	request := &perennialv1.ReadLinesRequest{Path: "logs/app.log", Follow: true, WaitForCreate: true}
	for next < lines {
		// The same request with the last cursor continues where the stream was cut.
		err := read(ctx, proxy.address, request, func(response *perennialv1.ReadLinesResponse) error {
			// The first response has the first cursor: without one, the reader would start with the second file.
			if !isWriting {
				isWriting = true
				writer.Go(writeRest)
			}
			for _, event := range response.GetEvents() {
				if event.GetRotated() != nil {
					rotations++
				}
			}
			for _, line := range response.GetLines() {
				if want := text(next); line.GetText() != want {
					return fmt.Errorf("line %d is %q, not %q", next, line.GetText(), want)
				}
				next++
			}
			request.Cursor = &response.Cursor
			if next >= lines {
				return io.EOF
			}
			return nil
		})
		if ctx.Err() != nil {
			t.Fatalf("at line %d of %d: %v", next, lines, context.Cause(ctx))
		}
		if err == io.EOF {
			continue
		}
		delay, canHelp := RetryDelay(err)
		if !canHelp {
			t.Fatalf("at line %d of %d: %v", next, lines, err)
		}
		time.Sleep(delay / 10)
	}
	if rotations != 1 {
		t.Errorf("%d rotations were reported, not 1", rotations)
	}
	if proxy.cuts.Load() == 0 {
		t.Error("nothing was cut")
	}
	t.Logf("%d lines over %d cuts", next, proxy.cuts.Load())
}

// read takes the responses of one call, on a connection of its own.
func read(
	ctx context.Context, address string, request *perennialv1.ReadLinesRequest,
	take func(*perennialv1.ReadLinesResponse) error,
) error {
	connection, err := Dial(address)
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := perennialv1.NewLineServiceClient(connection).ReadLines(ctx, request, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("a stream that follows has ended")
		}
		if err != nil {
			return err
		}
		if err := take(response); err != nil {
			return err
		}
	}
}

func text(n int) string {
	return fmt.Sprintf("line %d — %s", n, strings.Repeat("x", n%90))
}

func write(path string, from, to int) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	for n := from; n < to; n++ {
		if _, err := fmt.Fprintln(file, text(n)); err != nil {
			return err
		}
	}
	return nil
}

func appendLines(t *testing.T, path string, from, to int) {
	t.Helper()
	if err := write(path, from, to); err != nil {
		t.Fatal(err)
	}
}

// server is a perenniald that keeps its address when it is killed and started again.
type server struct {
	directory, address string
	mutex              sync.Mutex
	process            *exec.Cmd
	hasEnded           bool
}

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{directory: t.TempDir(), address: "127.0.0.1:0"}
	if err := os.Mkdir(filepath.Join(s.directory, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.hasEnded = true
		s.kill()
	})
	if err := s.restart(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) kill() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
	}
}

func (s *server) restart() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.hasEnded {
		return errors.New("the test is over")
	}
	s.kill()
	binary := os.Getenv("PERENNIALD")
	if binary == "" {
		binary = "../../target/release/perenniald"
	}
	s.process = exec.Command(binary, "--listen", s.address, "--data", filepath.Join(s.directory, "data"),
		"--root", "logs="+filepath.Join(s.directory, "logs"), "--log", "error")
	stderr, err := s.process.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.process.Start(); err != nil {
		s.process = nil
		return err
	}
	printed := ""
	for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
		printed += scanner.Text() + "\n"
		if address, ok := strings.CutPrefix(scanner.Text(), "perenniald: listening on http://"); ok {
			s.address = address
			return nil
		}
	}
	return errors.New("the server did not start: " + printed)
}

// proxy passes bytes on, and cuts each connection after 2,000 to 2,000 + most of them.
type proxy struct {
	address string
	most    int64
	cuts    atomic.Int64
}

func startProxy(t *testing.T, to *server, most int64) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	p := &proxy{address: listener.Addr().String(), most: most}
	server := to.address
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.pass(client, server)
		}
	}()
	return p
}

func (p *proxy) pass(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	if _, err := io.CopyN(client, server, 2_000+rand.Int64N(p.most)); err == nil {
		p.cuts.Add(1)
	}
}
