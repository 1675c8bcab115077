// Package perennial reads streams of a Perennial server that continue by themselves, and publishes messages.
//
//	client, err := perennial.New("127.0.0.1:50051")
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	request := &perennialv1.ReadLinesRequest{Path: "demo/app.log", Follow: true}
//	for line, err := range client.ReadLines(ctx, request) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(line.GetText())
//	}
//
// # Streams
//
// [Client.Countdown], [Client.ReadLines] and [Client.Messages] return an iterator. It yields each item once and in order,
// over as many connections as it takes: after a lost connection, a restarted server or a stream that fell silent, it
// sends the request again with the last cursor. A loop gets an error only as its last value: when the server refuses the
// request, when the context ends, or when the server is away for longer than [WithMaxOutage] allows. To end a stream,
// leave the loop or cancel the context; the server notices at once.
//
// # State
//
// A program that ends and starts again continues after the last item that it has processed if it keeps the state of the
// stream: in a file ([FileStore], with [WithStore]), in the transaction that stores the result of an item ([Line.State],
// [Message.State], [Tick.State], with [WithState]), or on the server as a [Consumer].
//
// # Events
//
// [Client.CountdownAndEvents], [Client.ReadLinesAndEvents] and [Client.MessagesAndEvents] also yield what happens between
// the items, such as rotations and gaps. The streams without events end with a [GapError] where items are missing.
//
// # Publishing
//
// A [Publisher] publishes messages in order. Each message has an id, so that a message whose answer was lost with the
// connection is sent again and stored once.
//
// # Other calls
//
// [Client.CountdownService], [Client.LineService] and [Client.MessageService] are the generated clients, over the same
// connection: with a deadline, with errors of the type [Error], and repeated where that is safe.
package perennial
