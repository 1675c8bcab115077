package perennial

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

// WatchFiles yields the files that match globs, such as `logs/**/*.log`: those that are there, and then those that appear
// and go. It yields responses.
//
// After a lost connection it continues by itself. Where files came or went meanwhile, a response has an event `relisted`:
// forget the files, because all come again. It keeps no state, so options for states have no effect.
func (c *Client) WatchFiles(
	ctx context.Context, request *perennialv1.WatchFilesRequest, options ...StreamOption,
) iter.Seq2[*perennialv1.WatchFilesResponse, error] {
	return func(yield func(*perennialv1.WatchFilesResponse, error) bool) {
		request := proto.CloneOf(request)
		from := source[*perennialv1.WatchFilesResponse]{
			heartbeat: request.GetHeartbeat(), cursor: request.GetCursor(), limit: request.Limit,
			count: func(response *perennialv1.WatchFilesResponse) int { return len(response.GetChanges()) },
			open: func(
				ctx context.Context, channel grpc.ClientConnInterface, cursor *string, limit *int64,
			) (receiver[*perennialv1.WatchFilesResponse], error) {
				request.Cursor, request.Limit = cursor, limit
				return perennialv1.NewLineServiceClient(channel).WatchFiles(ctx, request)
			},
		}
		ctx, stop := c.connections.bind(ctx)
		defer stop()
		flow := newFlow(ctx, c, from, newStreamOptions(options), from.cursor)
		// A response is handed out as a whole, so its cursor is enough.
		flow.isProbe = false
		defer flow.close()
		for {
			response, err := flow.next()
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(nil, err)
				return
			case !yield(response, nil):
				return
			}
		}
	}
}
