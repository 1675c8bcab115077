package perennial_test

import (
	"bufio"
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

	"perennial.dev"
)

// No test may take longer than this.
const limit = 60 * time.Second

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
	options            []string
	mutex              sync.Mutex
	process            *exec.Cmd
	hasEnded           bool
}

func startServer(t *testing.T, options ...string) *server {
	t.Helper()
	s := &server{directory: t.TempDir(), address: "127.0.0.1:0", options: options}
	if err := os.Mkdir(filepath.Join(s.directory, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.hasEnded = true
		s.end()
	})
	if err := s.restart(); err != nil {
		t.Fatal(err)
	}
	return s
}

// kill ends the server at once, as kill -9 does.
func (s *server) kill() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.end()
}

func (s *server) end() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
	}
}

// path is that of a log.
func (s *server) path(name string) string { return filepath.Join(s.directory, "logs", name) }

func connect(t *testing.T, address string, options ...perennial.Option) *perennial.Client {
	t.Helper()
	client, err := perennial.New(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// program is the server.
func program() string {
	if binary := os.Getenv("PERENNIALD"); binary != "" {
		return binary
	}
	return "../../target/release/perenniald"
}

func (s *server) restart() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.hasEnded {
		return errors.New("the test is over")
	}
	s.end()
	options := append([]string{"--listen", s.address, "--data", filepath.Join(s.directory, "data"),
		"--root", "logs=" + filepath.Join(s.directory, "logs"), "--log", "error"}, s.options...)
	s.process = exec.Command(program(), options...)
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
		if _, address, ok := strings.Cut(scanner.Text(), "perenniald: listening on http"); ok {
			_, s.address, _ = strings.Cut(address, "://")
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
