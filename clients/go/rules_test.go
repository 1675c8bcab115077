package perennial

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	perennialv1 "perennial.dev/gen/perennial/v1"
)

func failure(t *testing.T, code codes.Code, details ...protoadapt.MessageV1) error {
	t.Helper()
	made, err := status.New(code, "text").WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return made.Err()
}

func TestAReasonDecidesWhetherACallIsTriedAgainAndTheCodeOnlyWithoutOne(t *testing.T) {
	ours := &errdetails.ErrorInfo{Domain: "perennial", Reason: "DRAINING"}
	unknown := &errdetails.ErrorInfo{Domain: "perennial", Reason: "OF_A_LATER_VERSION"}
	other := &errdetails.ErrorInfo{Domain: "proxy.example", Reason: "UPSTREAM"}
	delay := &errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		isLost := code == codes.Unavailable || code == codes.Unknown || code == codes.Internal ||
			code == codes.Aborted || code == codes.Canceled
		for _, one := range []struct {
			name    string
			details []protoadapt.MessageV1
			want    bool
			delay   time.Duration
		}{
			{"reason and delay", []protoadapt.MessageV1{ours, delay}, true, 3 * time.Second},
			{"reason", []protoadapt.MessageV1{ours}, false, 0},
			{"unknown reason and delay", []protoadapt.MessageV1{unknown, delay}, true, 3 * time.Second},
			{"unknown reason", []protoadapt.MessageV1{unknown}, false, 0},
			{"another domain", []protoadapt.MessageV1{other}, isLost, 0},
			{"another domain and delay", []protoadapt.MessageV1{other, delay}, isLost, 0},
			{"nothing", nil, isLost, 0},
		} {
			got := fromGRPC(failure(t, code, one.details...))
			if got.CanRetry() != one.want || got.RetryDelay != one.delay || got.Code != code {
				t.Errorf("%v with %s: %v after %v", code, one.name, got.CanRetry(), got.RetryDelay)
			}
		}
	}
	got := fromGRPC(failure(t, codes.Unavailable, unknown))
	if got.ReasonName != "OF_A_LATER_VERSION" || got.Reason != perennialv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		t.Errorf("an unknown reason is %q, %v", got.ReasonName, got.Reason)
	}
	for _, text := range []string{"x509: certificate signed by unknown authority", "remote error: tls: bad certificate"} {
		if fromGRPC(status.Error(codes.Unavailable, "authentication handshake failed: "+text)).CanRetry() {
			t.Errorf("tried again: %s", text)
		}
	}
}

func TestWaitsAreRandomUpToABoundThatDoublesToTwoSeconds(t *testing.T) {
	var delays waits
	for n, bound := range []time.Duration{100, 200, 400, 800, 1600, 2000, 2000, 2000, 2000, 2000, 2000} {
		bound *= time.Millisecond
		all := map[time.Duration]bool{}
		for range 20 {
			at := waits{failures: n}
			wait := at.next(&Error{})
			if wait < 0 || wait > bound {
				t.Errorf("wait %d is %v, over %v", n, wait, bound)
			}
			all[wait] = true
		}
		if len(all) < 2 {
			t.Errorf("wait %d is not random", n)
		}
	}
	if wait := delays.next(&Error{canRetry: true, RetryDelay: time.Minute}); wait != time.Minute {
		t.Errorf("the server asked for a minute, and the wait is %v", wait)
	}
}

func TestAnAddressIsReadOrRefusedWithOneThatWorks(t *testing.T) {
	t.Setenv("PERENNIAL_SERVER", "")
	for text, want := range map[string]string{
		"":                         "http://127.0.0.1:50051",
		"localhost":                "http://localhost:50051",
		"10.0.0.1:7":               "http://10.0.0.1:7",
		"http://a.example":         "http://a.example:50051",
		"https://a.example":        "https://a.example:50051",
		"https://a.example:443/":   "https://a.example:443",
		"[::1]:9":                  "http://[::1]:9",
		"http://[::1]":             "http://[::1]:50051",
		"unix:/run/perennial.sock": "unix:/run/perennial.sock",
	} {
		if got, err := parseAddress(text, false); err != nil || got.url != want {
			t.Errorf("%q is %q, %v", text, got.url, err)
		}
	}
	if got, err := parseAddress("a.example", true); err != nil || got.url != "https://a.example:50051" {
		t.Errorf("with TLS it is %q, %v", got.url, err)
	}
	for _, text := range []string{"ftp://a", "http://", "a:b", "a:0", "http://a/path", "user:secret@a", "unix:"} {
		_, err := parseAddress(text, false)
		if err == nil || !strings.Contains(err.Error(), "try ") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := parseAddress("http://a", true); err == nil {
		t.Error("plain text was taken with options of TLS")
	}
}

func TestATokenLeavesTheMachineOnlyByTLSAndIsNeverInAnError(t *testing.T) {
	t.Setenv("PERENNIAL_TOKEN", "")
	const secret = "s3cret\n"
	for address, isFine := range map[string]bool{
		"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, "unix:/tmp/a": true, "https://a.example": true,
		"http://10.0.0.1:1": false, "a.example": false,
	} {
		client, err := New(address, WithToken(secret))
		if (err == nil) != isFine || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", address, err)
		}
		if err == nil {
			_ = client.Close()
		}
	}
	t.Setenv("PERENNIAL_TOKEN", "abc")
	if _, err := New("http://10.0.0.1:1"); err == nil {
		t.Error("the token of the environment would leave the machine in plain text")
	}
	_, err := bearer{func(context.Context) (string, error) { return secret, nil }}.GetRequestMetadata(t.Context())
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a token with a line end: %v", err)
	}
}

func TestAStateHasTheSameTextInAllLanguages(t *testing.T) {
	for text, kind := range map[string]string{
		`{"version":1,"kind":"lines","cursor":"abc","after":{"switches":0,"offset":"4711"}}`:                            kindLines,
		`{"version":1,"kind":"lines","cursor":"abc","after":{"switches":2,"offset":"9","bytes":"3"}}`:                   kindLines,
		`{"version":1,"kind":"messages","cursor":"abc","after":{"sequence":"42","publish_time":"1764622800123456789"}}`: kindMessages,
		`{"version":1,"kind":"countdown","cursor":"abc","after":{"remaining":-7,"version":"3"}}`:                        kindCountdown,
		`{"version":1,"kind":"countdown","cursor":"abc"}`:                                                               kindCountdown,
	} {
		read, err := parseState(text, kind, "the state")
		if err != nil || read.text() != text {
			t.Errorf("%s became %s, %v", text, read.text(), err)
		}
	}
	if read, err := parseState("abc\n", kindLines, ""); err != nil || read.Cursor != "abc" || read.After != nil {
		t.Errorf("a bare cursor is %v, %v", read, err)
	}
	for _, text := range []string{
		"", " ", "{}", "{", "a b", `{"version":2,"kind":"lines","cursor":"a"}`, `{"version":1,"kind":"lines"}`,
		`{"version":1,"kind":"messages","cursor":"a"}`, `{"version":1,"kind":"lines","cursor":"a","after":{"offset":"1"}}`,
		`{"version":1,"kind":"lines","cursor":"a","after":{"switches":0,"offset":"x"}}`, strings.Repeat("a", 1025),
	} {
		_, err := parseState(text, kindLines, "the file")
		if fault, ok := errors.AsType[*StateError](err); !ok || !strings.Contains(fault.Error(), "the file") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func TestAMessageIsNotSentAgainWhenTheServerMayHaveForgottenIt(t *testing.T) {
	now := time.Now()
	var queue frames
	for _, age := range []time.Duration{90 * time.Second, 10 * time.Second, 0} {
		one := &entry{message: &perennialv1.PublishRequest{MessageId: pointer(age.String())}, bytes: 1, receipt: &Receipt{}}
		if age > 0 {
			one.sent = now.Add(-age)
		}
		queue.push(one)
	}
	messages, old := queue.next(now, now.Add(dedupeMargin-dedupeWindow))
	if len(old) != 1 || old[0].message.GetMessageId() != "1m30s" {
		t.Errorf("too old are %v", old)
	}
	if len(messages) != 2 || queue.sent != 2 || queue.bytes != 2 {
		t.Errorf("%d messages are sent, and %d bytes are kept", queue.sent, queue.bytes)
	}
	// What the transport holds when the age is checked may leave it until the call is cancelled.
	if dedupeMargin <= answerTimeout {
		t.Errorf("a message may arrive %v after the server has forgotten it", answerTimeout-dedupeMargin)
	}
}

func TestASilenceIsThreeHeartbeatsAtLeastFiveSecondsAndNeverNegative(t *testing.T) {
	for _, one := range []struct {
		heartbeat *durationpb.Duration
		want      time.Duration
	}{
		{nil, 45 * time.Second},
		{durationpb.New(time.Millisecond), 5 * time.Second},
		{durationpb.New(20 * time.Second), time.Minute},
		{durationpb.New(math.MaxInt64 / 2), maxSilence},
		{&durationpb.Duration{Seconds: math.MaxInt64}, maxSilence},
	} {
		got := longestSilence(one.heartbeat)
		// A third of the longest silence is rounded down.
		if got > one.want || got < one.want-missedHeartbeats {
			t.Errorf("%v: %v instead of %v", one.heartbeat, got, one.want)
		}
	}
}
