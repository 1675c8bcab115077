package perennial

import (
	"context"
	"iter"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

// LineItem is a [Line], a [LineEvent] or a [CaughtUp].
type LineItem interface{ isLineItem() }

// Line is a line of a file, and where the stream is after it.
type Line struct {
	*perennialv1.Line
	place
}

// LineEvent is something that happened to the file before the next line. An event that this package does not know has
// the Event nil, and its fields are unknown fields.
type LineEvent struct {
	*perennialv1.LineStreamEvent
}

// CaughtUp comes when the stream has reached the end of what there is: from here on it is live.
type CaughtUp struct{}

func (Line) isLineItem()        {}
func (LineEvent) isLineItem()   {}
func (CaughtUp) isLineItem()    {}
func (CaughtUp) isMessageItem() {}

// ReadLines reads the lines of a file, and with Follow those that are written to it. It ends with a [GapError] where lines
// are missing.
func (c *Client) ReadLines(
	ctx context.Context, request *perennialv1.ReadLinesRequest, options ...StreamOption,
) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		visit := &lineVisitor{line: func(line Line) bool { return yield(line, nil) }}
		if err := c.walkLines(ctx, request, options, visit); err != nil {
			yield(Line{}, err)
		}
	}
}

// ReadLinesAndEvents is ReadLines with the events between the lines.
func (c *Client) ReadLinesAndEvents(
	ctx context.Context, request *perennialv1.ReadLinesRequest, options ...StreamOption,
) iter.Seq2[LineItem, error] {
	return func(yield func(LineItem, error) bool) {
		visit := &lineVisitor{
			line:  func(line Line) bool { return yield(line, nil) },
			event: func(item LineItem) bool { return yield(item, nil) },
		}
		if err := c.walkLines(ctx, request, options, visit); err != nil {
			yield(nil, err)
		}
	}
}

func (c *Client) walkLines(
	ctx context.Context, request *perennialv1.ReadLinesRequest, options []StreamOption, visit *lineVisitor,
) error {
	request = proto.CloneOf(request)
	from := source[*perennialv1.ReadLinesResponse]{
		heartbeat: request.GetHeartbeat(), cursor: request.GetCursor(), limit: request.Limit,
		count: func(response *perennialv1.ReadLinesResponse) int { return len(response.GetLines()) },
		open: func(
			ctx context.Context, channel grpc.ClientConnInterface, cursor *string, limit *int64,
		) (receiver[*perennialv1.ReadLinesResponse], error) {
			request.Cursor, request.Limit = cursor, limit
			return perennialv1.NewLineServiceClient(channel).ReadLines(ctx, request)
		},
	}
	return walk(ctx, c, kindLines, from, newStreamOptions(options), visit)
}

// lineVisitor hands out lines. An offset is unique only within a file, so it counts the changes of the file since the
// cursor to which the keys belong.
type lineVisitor struct {
	line func(Line) bool
	// event is nil if the caller wants no events.
	event      func(LineItem) bool
	switches   int64
	isCaughtUp bool
	// rest is the line of which only the rest is new; -1 for none.
	rest      int
	restBytes int
}

func (v *lineVisitor) begin(response *perennialv1.ReadLinesResponse, pending *key) (int, bool, error) {
	v.rest = -1
	isLost := false
	for _, event := range response.GetEvents() {
		switch event := event.GetEvent().(type) {
		case *perennialv1.LineStreamEvent_Rotated, *perennialv1.LineStreamEvent_Truncated,
			*perennialv1.LineStreamEvent_Opened, *perennialv1.LineStreamEvent_Late:
			v.switches++
		case *perennialv1.LineStreamEvent_Resumed:
			isLost = isLost || event.Resumed.GetFound() == perennialv1.FileResumedFound_FILE_RESUMED_FOUND_LOST
		}
	}
	lines := response.GetLines()
	switch {
	case pending == nil || isLost:
		return 0, false, nil
	case len(lines) == 0:
		return 0, true, nil
	case v.switches != *pending.Switches:
		// Lines before the change of the file were written after the stream had passed it, so they are new.
		return 0, v.switches < *pending.Switches, nil
	}
	for n, line := range lines {
		if line.GetOffset() > int64(*pending.Offset) {
			return n, false, nil
		}
		if pending.Bytes == nil {
			continue
		}
		// The line had no end yet when it was handed out, and may have grown.
		known := int64(*pending.Offset) + int64(*pending.Bytes) - line.GetOffset()
		if known >= 0 && int64(len(content(line))) > known {
			v.rest, v.restBytes = n, int(known)
			return n, false, nil
		}
	}
	return len(lines), true, nil
}

func (v *lineVisitor) events(response *perennialv1.ReadLinesResponse, _ *key) error {
	for _, event := range response.GetEvents() {
		if v.event == nil {
			if gap := event.GetGap(); gap != nil {
				return &GapError{Lines: gap}
			}
		} else if !v.event(LineEvent{event}) {
			return errStopped
		}
	}
	return nil
}

func (v *lineVisitor) keys(response *perennialv1.ReadLinesResponse) func(int) *key {
	switches := v.switches
	return func(item int) *key {
		line := response.GetLines()[item]
		made := &key{Switches: &switches, Offset: pointer(number(line.GetOffset()))}
		if line.GetPartial() || line.GetNoNewline() {
			made.Bytes = pointer(number(len(content(line))))
		}
		return made
	}
}

func (v *lineVisitor) item(response *perennialv1.ReadLinesResponse, at place) error {
	line := response.GetLines()[at.index]
	if at.index == v.rest {
		line = restOf(line, v.restBytes)
	}
	if !v.line(Line{line, at}) {
		return errStopped
	}
	return nil
}

func (v *lineVisitor) end(response *perennialv1.ReadLinesResponse) error {
	hasCaughtUp := response.GetCaughtUp() && !v.isCaughtUp
	v.isCaughtUp = response.GetCaughtUp()
	if hasCaughtUp && v.event != nil && !v.event(CaughtUp{}) {
		return errStopped
	}
	return nil
}

func (v *lineVisitor) carry(pending *key) *key {
	carried := *pending
	carried.Switches = pointer(*pending.Switches - v.switches)
	return &carried
}

func (v *lineVisitor) restart() { v.switches = 0 }

// content is the bytes of a line, in either form.
func content(line *perennialv1.Line) []byte {
	if data, isData := line.GetContent().(*perennialv1.Line_Data); isData {
		return data.Data
	}
	return []byte(line.GetText())
}

// restOf is a line without the first bytes of its content.
func restOf(line *perennialv1.Line, bytes int) *perennialv1.Line {
	rest := content(line)[bytes:]
	made := proto.CloneOf(line)
	made.Offset, made.Continued = pointer(line.GetOffset()+int64(bytes)), true
	if utf8.Valid(rest) {
		made.Content = &perennialv1.Line_Text{Text: string(rest)}
	} else {
		made.Content = &perennialv1.Line_Data{Data: rest}
	}
	return made
}
