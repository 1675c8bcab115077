package perennial_test

import (
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

// waiting is a server whose calls give three lines, and then wait for their end.
type waiting struct {
	perennialv1.UnimplementedLineServiceServer
	ended chan time.Time
}

func (w *waiting) ReadLines(
	_ *perennialv1.ReadLinesRequest, stream grpc.ServerStreamingServer[perennialv1.ReadLinesResponse],
) error {
	var lines []*perennialv1.Line
	for n := range int64(3) {
		lines = append(lines, &perennialv1.Line{Offset: &n, Content: &perennialv1.Line_Text{Text: "a line"}})
	}
	err := stream.Send(&perennialv1.ReadLinesResponse{Lines: lines, Cursor: "c"})
	<-stream.Context().Done()
	w.ended <- time.Now()
	return err
}

// slowStore takes its time for each save.
type slowStore struct{ perennial.MemoryStore }

func (s *slowStore) Save(state string) error {
	time.Sleep(time.Second)
	return s.MemoryStore.Save(state)
}

func TestLeavingTheLoopEndsTheCallBeforeTheStateIsSaved(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	server := grpc.NewServer()
	service := &waiting{ended: make(chan time.Time, 10)}
	perennialv1.RegisterLineServiceServer(server, service)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	client := connect(t, listener.Addr().String())
	request := &perennialv1.ReadLinesRequest{Path: "logs/a.log", Follow: true}
	store := perennial.WithStore(&slowStore{})
	count, left := 0, time.Time{}
	for _, err := range client.ReadLines(t.Context(), request, store, perennial.WithSaveEvery(time.Hour)) {
		fatal(t, err)
		// The state after the second line is not saved yet.
		if count++; count == 3 {
			left = time.Now()
			break
		}
	}
	if took := (<-service.ended).Sub(left); took > 500*time.Millisecond {
		t.Errorf("the server noticed only after %v", took)
	}
}
