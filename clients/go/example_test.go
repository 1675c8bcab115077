package perennial_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

func Example() {
	client, err := perennial.New("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	request := &perennialv1.ReadLinesRequest{Path: "demo/app.log", Follow: true}
	for line, err := range client.ReadLines(context.Background(), request) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(line.GetText())
	}
}

func ExampleClient_Countdown() {
	client, err := perennial.New("")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	request := &perennialv1.CountdownRequest{Target: &perennialv1.CountdownRequest_Start{Start: 3}}
	for tick, err := range client.Countdown(context.Background(), request) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(tick.GetRemaining())
	}
}

// A program that is killed continues after the last message that it has processed.
func ExampleWithStore() {
	client, err := perennial.New("")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	request := &perennialv1.MessagesRequest{
		Topics: []string{"demo.>"}, Start: &perennialv1.MessagesRequest_Earliest{Earliest: true},
	}
	store := perennial.WithStore(perennial.NewFileStore("messages.state"))
	for message, err := range client.Messages(context.Background(), request, store) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(message.GetSequence(), message.GetTopic(), message.GetText())
	}
}

func ExampleClient_Publisher() {
	ctx := context.Background()
	client, err := perennial.New("")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	publisher := client.Publisher(ctx)
	for n := range 1_000 {
		message := &perennialv1.PublishRequest{
			Topic: "orders.created", Content: &perennialv1.PublishRequest_Text{Text: fmt.Sprint("order ", n)},
		}
		// The receipt says when the message is on disk, and why it was refused if it was.
		if _, err := publisher.Publish(ctx, message); err != nil {
			log.Fatal(err)
		}
	}
	if err := publisher.Close(); err != nil {
		log.Fatal(err)
	}
}

func ExampleConsumer() {
	ctx := context.Background()
	client, err := perennial.New("")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	consumer := client.Consumer("billing").CommitEvery(time.Second)
	request := &perennialv1.MessagesRequest{Topics: []string{"orders.>"}}
	for message, err := range consumer.Messages(ctx, request) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(message.GetText())
	}
}

func ExampleError() {
	client, err := perennial.New("")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	request := &perennialv1.GetCountdownRequest{Name: "launch"}
	_, err = client.CountdownService().GetCountdown(context.Background(), request)
	if failure, ok := errors.AsType[*perennial.Error](err); ok {
		if failure.Reason == perennialv1.ErrorReason_COUNTDOWN_NOT_FOUND {
			fmt.Println("there is no such countdown")
		}
	}
}
