package fanfare

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc/codes"

	"github.com/fanfare-dev/fanfare/clients/go/fanfarev1"
)

// Subscription reads the events of some rooms, each once and in log order, and resumes by itself with the cursor it has reached.
// For one goroutine.
type Subscription struct {
	client  *Client
	context context.Context
	cancel  context.CancelFunc
	request *fanfarev1.SubscribeRequest
	call    fanfarev1.Realtime_SubscribeClient
	hangUp  context.CancelFunc
	pauses  backoff
	renewed bool
}

// SubscribeOption says where a subscription begins.
type SubscribeOption func(*fanfarev1.SubscribeRequest)

// After resumes after a cursor: an event's id, or what [Subscription.Cursor] gave.
func After(cursor string) SubscribeOption {
	return func(r *fanfarev1.SubscribeRequest) { r.After = cursor }
}

// OfTenant is for tokens of all tenants; otherwise the tenant is the token's.
func OfTenant(tenant string) SubscribeOption {
	return func(r *fanfarev1.SubscribeRequest) { r.Tenant = tenant }
}

// Subscribe reads some rooms, from now on unless [After] says otherwise, until the context ends or [Subscription.Close]. Needs the
// scope "subscribe".
func (c *Client) Subscribe(ctx context.Context, rooms []string, options ...SubscribeOption) *Subscription {
	request := &fanfarev1.SubscribeRequest{Rooms: rooms}
	for _, option := range options {
		option(request)
	}
	ctx, cancel := context.WithCancel(ctx)
	return &Subscription{client: c, context: ctx, cancel: cancel, request: request, hangUp: func() {}}
}

// Cursor is the place reached; resumes there when given to [After]. Empty before the first answer.
func (s *Subscription) Cursor() string { return s.request.GetAfter() }

// Start waits until the subscription stands, so that it gets whatever is published from now on; gives the cursor.
func (s *Subscription) Start() (string, error) {
	for s.Cursor() == "" {
		// Without a cursor the first answer is a position, never an event.
		if _, err := s.step(); err != nil {
			return "", err
		}
	}
	return s.Cursor(), nil
}

// Next is the next event. It connects and resumes as often as needed. It ends with an [*Error] that trying again does not mend, such
// as REASON_RESET: the log does not reach back to the cursor. Then read current state elsewhere and subscribe again after
// [Error.Cursor].
func (s *Subscription) Next() (*fanfarev1.Event, error) {
	for {
		event, err := s.step()
		if event != nil || err != nil {
			return event, err
		}
	}
}

// All are the events one after the other; the last has an error.
func (s *Subscription) All() iter.Seq2[*fanfarev1.Event, error] {
	return func(yield func(*fanfarev1.Event, error) bool) {
		for {
			event, err := s.Next()
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Close ends it.
func (s *Subscription) Close() { s.cancel() }

func (s *Subscription) step() (*fanfarev1.Event, error) {
	response, err := s.receive()
	if err != nil {
		failure := wrap(s.context, err)
		s.hangUp()
		s.call = nil
		if s.client.isRenewable() && failure.isTokenRefused() && !s.renewed {
			s.renewed = true
			return nil, nil
		}
		if !failure.Retryable || sleep(s.context, max(s.pauses.pause(), failure.retryAfter())) != nil {
			return nil, failure
		}
		return nil, nil
	}
	s.pauses.reset()
	s.renewed = false
	if position := response.GetPosition(); position != nil {
		s.request.After = position.GetCursor()
	}
	event := response.GetEvent()
	// Ephemeral events are no places in the log.
	if event.GetSeq() > 0 {
		s.request.After = event.GetId()
	}
	return event, nil
}

func (s *Subscription) receive() (*fanfarev1.SubscribeResponse, error) {
	if s.call == nil {
		ctx, hangUp := context.WithCancel(s.context)
		call, err := s.client.realtime.Subscribe(ctx, s.request)
		if err != nil {
			hangUp()
			return nil, err
		}
		s.call, s.hangUp = call, hangUp
	}
	response, err := s.call.Recv()
	if errors.Is(err, io.EOF) {
		return nil, &Error{Code: codes.Unavailable, Message: "the server ended the stream", Retryable: true}
	}
	return response, err
}
