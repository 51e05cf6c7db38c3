package fanfare

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/fanfare-dev/fanfare/clients/go/examples/messengerv1"
	"github.com/fanfare-dev/fanfare/clients/go/fanfarev1"
)

func TestPausesDoubleUpToTheLongest(t *testing.T) {
	for range 200 {
		var pauses backoff
		step := pauseMin
		for range 10 {
			if pause := pauses.pause(); pause < step/2 || pause > step {
				t.Fatalf("pause %v, want %v to %v", pause, step/2, step)
			}
			step = min(step*2, pauseMax)
		}
		pauses.reset()
		if pause := pauses.pause(); pause > pauseMin {
			t.Fatalf("after a reset the pause is %v", pause)
		}
	}
}

func TestAPauseBeyondTheDeadlineEndsTheTries(t *testing.T) {
	limit := &Error{Code: codes.ResourceExhausted, Retryable: true, Metadata: map[string]string{"retry_after_millis": "2500"}}
	patient := attempts{end: time.Now().Add(10 * time.Second)}
	if pause, again := patient.pauseAfter(limit); !again || pause != 2500*time.Millisecond {
		t.Fatalf("pause %v, again %v", pause, again)
	}
	hasty := attempts{end: time.Now().Add(2 * time.Second)}
	if _, again := hasty.pauseAfter(limit); again {
		t.Fatal("a pause beyond the deadline")
	}
	if _, again := patient.pauseAfter(&Error{Code: codes.PermissionDenied}); again {
		t.Fatal("a refusal is tried again")
	}
}

func TestOnlyWhatMaySucceedLaterIsRetryable(t *testing.T) {
	for _, c := range []struct {
		code   codes.Code
		reason string
		want   bool
	}{
		{codes.Unavailable, "", true},
		{codes.Unknown, "", true},
		{codes.Canceled, "", true},
		{codes.DeadlineExceeded, "", true},
		{codes.Unavailable, "REASON_SHUTDOWN", true},
		{codes.OutOfRange, "", false},
		{codes.OutOfRange, "REASON_RESET", false},
		{codes.PermissionDenied, "REASON_FORBIDDEN", false},
		{codes.Unavailable, "REASON_OF_A_NEWER_SERVER", true},
		{codes.InvalidArgument, "REASON_OF_A_NEWER_SERVER", false},
	} {
		if got := isRetryable(c.code, c.reason); got != c.want {
			t.Errorf("%v %q: retryable %v", c.code, c.reason, got)
		}
	}
}

func TestATypedRequestGetsAKeyAndStaysAsItWas(t *testing.T) {
	request := &messengerv1.NotifyNewMessageRequest{Event: &messengerv1.NewMessage{Id: 1}}
	first, repeatable := keyed(request)
	typed := first.(*messengerv1.NotifyNewMessageRequest)
	if !repeatable || typed.GetTarget().GetIdempotencyKey() == "" || typed.GetEvent().GetId() != 1 {
		t.Fatalf("%v", typed)
	}
	if request.Target != nil {
		t.Fatal("the caller's message was changed")
	}
	if again, _ := keyed(first); again != first {
		t.Fatal("a key was replaced")
	}
	if _, repeatable := keyed(&fanfarev1.DisconnectRequest{}); repeatable {
		t.Fatal("a request without a target is repeated")
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		url, host string
		secure    bool
	}{{"http://127.0.0.1:50051", "127.0.0.1:50051", false}, {"https://fanfare.example.com/", "fanfare.example.com:443", true}, {"http://h", "h:80", false}} {
		if host, secure, err := parse(c.url); host != c.host || secure != c.secure || err != nil {
			t.Errorf("%s: %s %v %v", c.url, host, secure, err)
		}
	}
	for _, wrong := range []string{"127.0.0.1:50051", "ftp://host", "http://", "http://host/path"} {
		if _, _, err := parse(wrong); err == nil {
			t.Errorf("%q is taken for a URL", wrong)
		}
	}
}
