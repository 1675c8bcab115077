// Command conformance lets the conformance kit test this package: it reads a command from stdin and prints what the
// package hands out. See clients/conformance/README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

type command struct {
	Do             string          `json:"do"`
	Server         string          `json:"server"`
	Kind           string          `json:"kind"`
	Request        json.RawMessage `json:"request"`
	State          *string         `json:"state"`
	Store          string          `json:"store"`
	SaveEvery      float64         `json:"save_every"`
	Events         bool            `json:"events"`
	States         bool            `json:"states"`
	Credit         *int            `json:"credit"`
	Timeout        float64         `json:"timeout"`
	ConnectTimeout float64         `json:"connect_timeout"`
	MaxOutage      float64         `json:"max_outage"`
	ConsumerCommit bool            `json:"consumer_commit"`
	CommitEvery    float64         `json:"commit_every"`
	Token          string          `json:"token"`
	TokenFile      string          `json:"token_file"`
	CA             string          `json:"ca"`
	Cert           string          `json:"cert"`
	Key            string          `json:"key"`
	Topic          string          `json:"topic"`
	Count          int             `json:"count"`
	First          int             `json:"first"`
	Prefix         string          `json:"prefix"`
	DedupeWindow   float64         `json:"dedupe_window"`
	Method         string          `json:"method"`
	Items          int             `json:"items"`
}

type object = map[string]any

// errStopped is the kit's request to stop.
var errStopped = errors.New("the kit said stop")

func main() {
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	line, err := input.ReadBytes('\n')
	if err != nil {
		fmt.Fprintln(os.Stderr, "no command:", err)
		os.Exit(1)
	}
	var c command
	if err := json.Unmarshal(line, &c); err != nil {
		fmt.Fprintln(os.Stderr, "the command:", err)
		os.Exit(1)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &run{command: c, credits: make(chan int, 1000), commits: make(chan struct{}, 1000)}
	go r.listen(input, cancel)
	err = r.do(ctx)
	switch {
	case context.Cause(ctx) == errStopped:
		r.print(object{"end": "stopped"})
	case err != nil:
		r.print(object{"error": described(err)})
		r.print(object{"end": "error"})
	default:
		r.print(object{"end": "ok"})
	}
}

// run is one command.
type run struct {
	command  command
	credits  chan int
	commits  chan struct{}
	consumer *perennial.Consumer
	mutex    sync.Mutex
}

func (r *run) print(value object) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	_, _ = os.Stdout.Write(append(text, '\n'))
}

// listen reads the lines that follow the command.
func (r *run) listen(input *bufio.Reader, cancel context.CancelCauseFunc) {
	for {
		line, err := input.ReadBytes('\n')
		var c command
		if err != nil || json.Unmarshal(line, &c) != nil || c.Do == "stop" {
			cancel(errStopped)
			return
		}
		switch c.Do {
		case "more":
			r.credits <- c.Items
		case "commit":
			r.commits <- struct{}{}
		}
	}
}

func (r *run) do(ctx context.Context) error {
	c := r.command
	if c.Do == "info" {
		r.print(object{"info": object{
			"package": "perennial.dev", "version": perennial.Version, "language": "go",
			"can": []string{"stream", "store", "events", "publish", "consumer", "call", "bench", "bench_generated", "token", "tls"},
		}})
		return nil
	}
	client, err := r.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, seconds(c.Timeout))
		defer cancel()
	}
	switch c.Do {
	case "stream":
		return r.stream(ctx, client)
	case "publish":
		return r.publish(ctx, client)
	case "call":
		return r.call(ctx, client)
	case "bench", "bench_generated":
		return r.bench(ctx, client)
	default:
		return fmt.Errorf("the command %q is not known", c.Do)
	}
}

func (r *run) connect() (*perennial.Client, error) {
	c := r.command
	var options []perennial.Option
	if c.CA != "" {
		options = append(options, perennial.WithCA(c.CA))
	}
	if c.Cert != "" {
		options = append(options, perennial.WithCertificate(c.Cert, c.Key))
	}
	if c.Token != "" {
		options = append(options, perennial.WithToken(c.Token))
	}
	if c.TokenFile != "" {
		options = append(options, perennial.WithTokenFile(c.TokenFile))
	}
	return perennial.New(c.Server, options...)
}

func (r *run) options() []perennial.StreamOption {
	c := r.command
	var options []perennial.StreamOption
	if c.State != nil {
		options = append(options, perennial.WithState(*c.State))
	}
	if c.Store != "" {
		options = append(options, perennial.WithStore(perennial.NewFileStore(c.Store)),
			perennial.WithSaveEvery(seconds(c.SaveEvery)))
	}
	if c.ConnectTimeout > 0 {
		options = append(options, perennial.WithConnectTimeout(seconds(c.ConnectTimeout)))
	}
	if c.MaxOutage > 0 {
		options = append(options, perennial.WithMaxOutage(seconds(c.MaxOutage)))
	}
	return options
}

func (r *run) stream(ctx context.Context, client *perennial.Client) error {
	switch r.command.Kind {
	case "lines":
		request, err := requestOf[*perennialv1.ReadLinesRequest](r)
		if err != nil {
			return err
		}
		if r.command.Events {
			return each(client.ReadLinesAndEvents(ctx, request, r.options()...), func(item perennial.LineItem) error {
				return r.value(ctx, item)
			})
		}
		return each(client.ReadLines(ctx, request, r.options()...), func(line perennial.Line) error {
			return r.value(ctx, line)
		})
	case "messages":
		return r.messages(ctx, client)
	default:
		request, err := requestOf[*perennialv1.CountdownRequest](r)
		if err != nil {
			return err
		}
		if r.command.Events {
			return each(client.CountdownAndEvents(ctx, request, r.options()...), func(item perennial.CountdownItem) error {
				return r.value(ctx, item)
			})
		}
		return each(client.Countdown(ctx, request, r.options()...), func(tick perennial.Tick) error {
			if tick.SkippedBefore > 0 {
				r.print(object{"skipped": tick.SkippedBefore})
			}
			return r.value(ctx, tick)
		})
	}
}

func (r *run) messages(ctx context.Context, client *perennial.Client) error {
	request, err := requestOf[*perennialv1.MessagesRequest](r)
	if err != nil {
		return err
	}
	messages, withEvents := client.Messages, client.MessagesAndEvents
	if name := request.GetConsumer(); name != "" {
		r.consumer = client.Consumer(name).CommitEvery(seconds(r.command.CommitEvery))
		messages, withEvents = r.consumer.Messages, r.consumer.MessagesAndEvents
	}
	if r.command.Events {
		return each(withEvents(ctx, request, r.options()...), func(item perennial.MessageItem) error {
			return r.value(ctx, item)
		})
	}
	return each(messages(ctx, request, r.options()...), func(message perennial.Message) error {
		return r.value(ctx, message)
	})
}

func each[T any](stream iter.Seq2[T, error], take func(T) error) error {
	for item, err := range stream {
		if err != nil {
			return err
		}
		if err := take(item); err != nil {
			return err
		}
	}
	return nil
}

// value prints an item or an event.
func (r *run) value(ctx context.Context, value any) error {
	switch value := value.(type) {
	case perennial.Line:
		return r.item(ctx, value.Line, value.State)
	case perennial.Message:
		return r.item(ctx, value.StoredMessage, value.State)
	case perennial.Tick:
		return r.item(ctx, value.Tick, value.State)
	case perennial.Skipped:
		r.print(object{"skipped": value.Ticks})
	case perennial.CaughtUp:
		r.print(object{"caught_up": true})
	case perennial.LineEvent:
		r.event(value.LineStreamEvent, value.GetEvent() != nil)
	case perennial.MessageEvent:
		r.event(value.MessageStreamEvent, value.GetEvent() != nil)
	case perennial.CountdownEvent:
		r.event(value.CountdownStreamEvent, value.GetEvent() != nil)
	}
	return nil
}

func (r *run) event(event proto.Message, isKnown bool) {
	if isKnown {
		r.print(object{"event": asJSON(event)})
	} else {
		r.print(object{"event": object{"unknown": true}})
	}
}

func (r *run) item(ctx context.Context, item proto.Message, state func() string) error {
	printed := object{"item": asJSON(item)}
	if r.command.States {
		printed["state"] = state()
	}
	r.print(printed)
	if r.command.ConsumerCommit {
		if err := r.consumer.Commit(ctx); err != nil {
			return err
		}
	}
	return r.pause(ctx)
}

// pause waits within the loop until the kit gives credit.
func (r *run) pause(ctx context.Context) error {
	if r.command.Credit != nil {
		*r.command.Credit--
	}
	for {
		isOut := r.command.Credit != nil && *r.command.Credit <= 0
		select {
		case <-r.commits:
			if r.consumer != nil {
				if err := r.consumer.Commit(ctx); err != nil {
					return err
				}
			}
			r.print(object{"committed": true})
			continue
		case more := <-r.credits:
			if r.command.Credit != nil {
				*r.command.Credit += more
			}
			continue
		default:
		}
		if !isOut {
			return nil
		}
		select {
		case <-r.commits:
			r.commits <- struct{}{}
		case more := <-r.credits:
			*r.command.Credit += more
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *run) publish(ctx context.Context, client *perennial.Client) error {
	c := r.command
	var options []perennial.PublisherOption
	if c.DedupeWindow > 0 {
		options = append(options, perennial.WithDedupeWindow(seconds(c.DedupeWindow)))
	}
	if c.ConnectTimeout > 0 {
		options = append(options, perennial.WithPublisherConnectTimeout(seconds(c.ConnectTimeout)))
	}
	publisher := client.Publisher(ctx, options...)
	receipts := make(chan *perennial.Receipt, c.Count)
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		n := c.First
		for receipt := range receipts {
			<-receipt.Done()
			response, err := receipt.Wait(ctx)
			if err != nil {
				r.print(object{"receipt": object{"n": n, "error": described(err)}})
			} else {
				r.print(object{"receipt": object{
					"n": n, "sequence": fmt.Sprint(response.GetSequence()), "duplicate": response.GetDuplicate(),
				}})
			}
			n++
		}
	}()
	var failed error
	for n := c.First; n < c.First+c.Count; n++ {
		message := &perennialv1.PublishRequest{
			Topic: c.Topic, Content: &perennialv1.PublishRequest_Text{Text: c.Prefix + fmt.Sprint(n)},
		}
		receipt, err := publisher.Publish(ctx, message)
		if err != nil {
			failed = err
			break
		}
		receipts <- receipt
	}
	close(receipts)
	closed := publisher.Close()
	<-printed
	if failed != nil {
		return failed
	}
	return closed
}

func (r *run) call(ctx context.Context, client *perennial.Client) error {
	countdowns, lines, messages := client.CountdownService(), client.LineService(), client.MessageService()
	var response proto.Message
	var err error
	switch r.command.Method {
	case "GetCountdown":
		response, err = call(ctx, r, &perennialv1.GetCountdownRequest{}, countdowns.GetCountdown)
	case "CreateCountdown":
		response, err = call(ctx, r, &perennialv1.CreateCountdownRequest{}, countdowns.CreateCountdown)
	case "ListTopics":
		response, err = call(ctx, r, &perennialv1.ListTopicsRequest{}, messages.ListTopics)
	case "Publish":
		response, err = call(ctx, r, &perennialv1.PublishRequest{}, messages.Publish)
	case "ListFiles":
		response, err = call(ctx, r, &perennialv1.ListFilesRequest{}, lines.ListFiles)
	default:
		return fmt.Errorf("the method %q is not known", r.command.Method)
	}
	if err != nil {
		return err
	}
	r.print(object{"response": asJSON(response)})
	return nil
}

func seconds(value float64) time.Duration { return time.Duration(value * float64(time.Second)) }

func asJSON(message proto.Message) json.RawMessage {
	text, err := protojson.Marshal(message)
	if err != nil {
		panic(err)
	}
	return text
}

// described is an error in the form of the protocol.
func described(err error) object {
	made := object{
		"code": codeName(codes.Unknown), "reason": "", "field": "", "metadata": object{}, "message": err.Error(),
		"retryable": false,
	}
	if failure, ok := errors.AsType[*perennial.Error](err); ok {
		made["code"], made["reason"], made["field"] = codeName(failure.Code), failure.ReasonName, failure.Field
		made["retryable"], made["message"] = failure.CanRetry(), failure.Message
		if failure.Metadata != nil {
			made["metadata"] = failure.Metadata
		}
	} else if _, ok := errors.AsType[*perennial.StateError](err); ok {
		made["kind"] = "state"
	} else if gap, ok := errors.AsType[*perennial.GapError](err); ok {
		made["kind"] = "gap"
		if gap.Lines != nil {
			made["gap"] = asJSON(gap.Lines)
		} else {
			made["gap"] = asJSON(gap.Messages)
		}
	} else if _, ok := errors.AsType[*perennial.OutcomeUnknownError](err); ok {
		made["kind"] = "outcome_unknown"
	} else if _, ok := errors.AsType[*perennial.ProtocolError](err); ok {
		made["kind"] = "protocol"
	}
	return made
}
