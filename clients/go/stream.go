package fanfare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/fanfare-dev/fanfare/clients/go/fanfarev1"
)

// UnansweredMax is how many events of a stream are sent and not answered, at most.
const UnansweredMax = 1024

// ErrClosed is what Send gives after Close.
var ErrClosed = errors.New("fanfare: the stream is closed")

// Stream publishes events in order, many at a time, and outlives its connection.
//
// The first event that is refused ends the stream: its answer has the reason, those behind it were not published. It may be used
// by many goroutines; the order is that in which Send is entered by one of them.
type Stream struct {
	client   *Client
	context  context.Context
	cancel   context.CancelFunc
	patience time.Duration
	// One for each event that is unanswered.
	room chan struct{}
	// There is something to send, or the stream was closed. Has one waiter.
	work  chan struct{}
	ended chan struct{}

	mutex sync.Mutex
	// What was sent and not answered, in order. A new connection begins with all of it, each event under the key it had, so
	// that the log has each event once and in this order.
	unanswered []*Answer
	// How many of them the present connection has taken.
	sent int
	// Since when nothing was answered that could have been.
	since   time.Time
	closed  bool
	failure *Error
}

// Answer is what becomes of an event that was sent.
type Answer struct {
	request  *fanfarev1.NotifyRequest
	done     chan struct{}
	response *fanfarev1.NotifyResponse
	err      error
}

// Done is closed when the answer is there.
func (a *Answer) Done() <-chan struct{} { return a.done }

// Wait gives the answer when it is there. Errors are [*Error], or the context's.
func (a *Answer) Wait(ctx context.Context) (*fanfarev1.NotifyResponse, error) {
	select {
	case <-a.done:
		return a.response, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *Answer) settle(response *fanfarev1.NotifyResponse, err error) {
	a.response, a.err = response, err
	close(a.done)
}

// Stream opens a stream; its connection is made when there is something to send. It ends with the context, with [Stream.Close],
// with the first refusal, or when nothing is answered for as long as [WithDeadline] says.
func (c *Client) Stream(ctx context.Context) *Stream {
	ctx, cancel := context.WithCancel(ctx)
	stream := &Stream{
		client: c, context: ctx, cancel: cancel, patience: c.deadline,
		room: make(chan struct{}, UnansweredMax), work: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	go stream.run()
	return stream
}

// Send sends an event as soon as there is room for it. The answers come in the order of the events.
func (s *Stream) Send(ctx context.Context, event proto.Message, options ...NotifyOption) (*Answer, error) {
	request, err := request(event, options)
	if err != nil {
		return nil, err
	}
	select {
	case s.room <- struct{}{}:
	case <-s.ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.failure != nil {
		return nil, behind(s.failure)
	}
	if s.closed {
		return nil, ErrClosed
	}
	if len(s.unanswered) == 0 {
		s.since = time.Now()
	}
	answer := &Answer{request: request, done: make(chan struct{})}
	s.unanswered = append(s.unanswered, answer)
	s.wake()
	return answer, nil
}

// Close waits until everything is answered; gives the error that ended the stream, if one did.
func (s *Stream) Close() error {
	s.mutex.Lock()
	s.closed = true
	s.wake()
	s.mutex.Unlock()
	<-s.ended
	s.cancel()
	if s.failure != nil {
		return s.failure
	}
	return nil
}

func (s *Stream) wake() {
	select {
	case s.work <- struct{}{}:
	default: // It is known already.
	}
}

func (s *Stream) run() {
	defer close(s.ended)
	defer s.cancel()
	pauses, renewed := backoff{}, false
	for {
		idle, done := s.state()
		if done {
			return
		}
		if idle {
			// Without anything to say there is no need of a connection.
			select {
			case <-s.work:
				continue
			case <-s.context.Done():
			}
		}
		answered, err := s.connection()
		if answered {
			pauses.reset()
			renewed = false
		}
		if idle, _ := s.state(); idle && s.context.Err() == nil {
			continue
		}
		if s.client.isRenewable() && err.isTokenRefused() && !renewed {
			renewed = true
			continue
		}
		pause := max(pauses.pause(), err.retryAfter())
		if !err.Retryable || time.Until(s.until()) <= pause || sleep(s.context, pause) != nil {
			s.fail(err)
			return
		}
	}
}

// state: whether nothing is unanswered, and whether nothing will be.
func (s *Stream) state() (idle, done bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	idle = len(s.unanswered) == 0
	return idle, idle && s.closed
}

// until is when patience ends.
func (s *Stream) until() time.Time {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.since.Add(s.patience)
}

// connection sends and receives over one connection until it ends, and says why it did.
func (s *Stream) connection() (answered bool, _ *Error) {
	ctx, cancel := context.WithCancelCause(s.context)
	watch := s.watch(cancel)
	defer watch.Stop()
	s.mutex.Lock()
	s.sent = 0
	s.mutex.Unlock()
	call, err := s.client.realtime.NotifyStream(ctx)
	if err != nil {
		cancel(nil)
		return false, s.wrap(ctx, err)
	}
	sender := make(chan struct{})
	go func() {
		defer close(sender)
		for {
			request, more := s.next(ctx)
			if !more {
				_ = call.CloseSend()
				return
			}
			// Why it fails shows at the next answer.
			if call.Send(request) != nil {
				return
			}
		}
	}()
	// The next connection counts anew what was sent.
	defer func() { <-sender }()
	defer cancel(nil)
	for {
		response, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return answered, &Error{Code: codes.Unavailable, Message: "the server ended the stream", Retryable: true}
		}
		if err != nil {
			return answered, s.wrap(ctx, err)
		}
		answered = true
		s.answered(response)
	}
}

var errLate = errors.New("nothing was answered in time")

// watch ends a connection over which nothing is answered for too long.
func (s *Stream) watch(cancel context.CancelCauseFunc) *time.Timer {
	var timer *time.Timer
	started := make(chan struct{})
	timer = time.AfterFunc(time.Until(s.until()), func() {
		<-started
		idle, _ := s.state()
		left := time.Until(s.until())
		switch {
		case idle:
			timer.Reset(s.patience)
		case left > 0:
			timer.Reset(left)
		default:
			cancel(errLate)
		}
	})
	close(started)
	return timer
}

func (s *Stream) wrap(ctx context.Context, err error) *Error {
	if errors.Is(context.Cause(ctx), errLate) {
		return &Error{Code: codes.DeadlineExceeded, Message: fmt.Sprintf("nothing was answered within %s", s.patience), Retryable: true, cause: errLate}
	}
	return wrap(s.context, err)
}

// next is what to send next over the present connection; false when there is nothing more.
func (s *Stream) next(ctx context.Context) (*fanfarev1.NotifyRequest, bool) {
	for {
		s.mutex.Lock()
		if s.sent < len(s.unanswered) {
			request := s.unanswered[s.sent].request
			s.sent++
			s.mutex.Unlock()
			return request, true
		}
		closed := s.closed
		s.mutex.Unlock()
		if closed {
			return nil, false
		}
		select {
		case <-s.work:
		case <-ctx.Done():
			return nil, false
		}
	}
}

func (s *Stream) answered(response *fanfarev1.NotifyResponse) {
	s.mutex.Lock()
	answer := s.unanswered[0]
	s.unanswered[0] = nil
	s.unanswered = s.unanswered[1:]
	s.sent--
	s.since = time.Now()
	s.mutex.Unlock()
	answer.settle(response, nil)
	<-s.room
}

func (s *Stream) fail(err *Error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.failure = err
	for at, answer := range s.unanswered {
		if at == 0 || err.Retryable {
			answer.settle(nil, err)
		} else {
			answer.settle(nil, behind(err))
		}
	}
	s.unanswered = nil
}

func behind(err *Error) *Error {
	return &Error{
		Code: codes.Aborted, Message: "not published, because the stream ended before: " + err.Message, Retryable: err.Retryable, cause: err,
	}
}
