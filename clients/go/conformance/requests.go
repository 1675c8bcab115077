package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"perennial.dev"
	perennialv1 "perennial.dev/gen/perennial/v1"
)

// requestOf reads the request of a command.
func requestOf[T proto.Message](r *run) (T, error) {
	var none T
	request := none.ProtoReflect().New().Interface().(T)
	if len(r.command.Request) == 0 {
		return request, nil
	}
	return request, protojson.Unmarshal(r.command.Request, request)
}

func call[Q, A proto.Message](
	ctx context.Context, r *run, request Q, method func(context.Context, Q, ...grpc.CallOption) (A, error),
) (A, error) {
	if len(r.command.Request) > 0 {
		if err := protojson.Unmarshal(r.command.Request, request); err != nil {
			var none A
			return none, err
		}
	}
	return method(ctx, request)
}

// bench counts the lines of a file, through the package or with generated code alone.
func (r *run) bench(ctx context.Context, client *perennial.Client) error {
	request, err := requestOf[*perennialv1.ReadLinesRequest](r)
	if err != nil {
		return err
	}
	items, bytes := 0, 0
	start := time.Now()
	if r.command.Do == "bench" {
		for line, err := range client.ReadLines(ctx, request) {
			if err != nil {
				return err
			}
			items, bytes = items+1, bytes+len(line.GetText())
		}
	} else if items, bytes, err = generated(ctx, r.command.Server, request); err != nil {
		return err
	}
	r.print(object{"bench": object{"items": items, "bytes": bytes, "seconds": time.Since(start).Seconds()}})
	return nil
}

func generated(ctx context.Context, server string, request *perennialv1.ReadLinesRequest) (items, bytes int, err error) {
	target := "passthrough:///" + strings.TrimPrefix(server, "http://")
	channel, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, 0, err
	}
	defer channel.Close()
	stream, err := perennialv1.NewLineServiceClient(channel).ReadLines(ctx, request)
	if err != nil {
		return 0, 0, err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return items, bytes, nil
		}
		if err != nil {
			return 0, 0, err
		}
		for _, line := range response.GetLines() {
			items, bytes = items+1, bytes+len(line.GetText())
		}
	}
}

// codeName is the name of a code in the documents of gRPC.
func codeName(code codes.Code) string {
	names := [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
		"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
		"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	if int(code) < len(names) {
		return names[code]
	}
	return code.String()
}
