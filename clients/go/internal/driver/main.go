// Command driver runs one task of tests/producers.test.js with this client: the task as JSON in argv, one JSON line a result out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	fanfare "github.com/fanfare-dev/fanfare/clients/go"
	"github.com/fanfare-dev/fanfare/clients/go/examples/messengerv1"
	"github.com/fanfare-dev/fanfare/clients/go/fanfarev1"
)

type task struct {
	Do       string   `json:"do"`
	URL      string   `json:"url"`
	Tokens   []string `json:"tokens"`
	Deadline float64  `json:"deadline"`
	Count    int64    `json:"count"`
	Invalid  *int64   `json:"invalid"`
	Rooms    []string `json:"rooms"`
	After    string   `json:"after"`

	asked atomic.Int64
	began time.Time
}

// Token gives the task's tokens one after the other, the last one for ever, and counts how often it was asked.
func (t *task) Token(context.Context) (string, error) {
	return t.Tokens[min(t.asked.Add(1), int64(len(t.Tokens)))-1], nil
}

func (t *task) event(number int64) (*messengerv1.NewMessage, []fanfare.NotifyOption) {
	event := &messengerv1.NewMessage{Id: number, ChatId: 7, Content: fmt.Sprintf("event %d", number), Channel: messengerv1.Channel_CHANNEL_WABA}
	if t.Invalid != nil && *t.Invalid == number {
		return event, []fanfare.NotifyOption{fanfare.ToRooms("not a room")}
	}
	return event, nil
}

func emit(line map[string]any) {
	encoded, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(encoded))
}

func told(number int64, answer *fanfarev1.NotifyResponse) {
	emit(map[string]any{"number": number, "seq": answer.GetSeq(), "id": answer.GetId(), "duplicate": answer.GetDuplicate()})
}

// The names of status codes in JSON are those of the specification.
var codeNames = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// toldError fails when the error is not the client's own.
func (t *task) toldError(err error, number any) error {
	var failure *fanfare.Error
	if !errors.As(err, &failure) {
		return err
	}
	emit(map[string]any{
		"error": map[string]any{
			"code": codeNames[failure.Code], "reason": orNull(failure.Reason), "message": failure.Message,
			"retryable": failure.Retryable, "cursor": orNull(failure.Cursor()),
		},
		"number": number, "attempts": t.asked.Load(), "ms": time.Since(t.began).Milliseconds(),
	})
	return nil
}

func (t *task) notify(ctx context.Context, client *fanfare.Client) error {
	stub := messengerv1.NewMessengerClient(client.Conn())
	for number := range t.Count {
		event, options := t.event(number)
		var answer *fanfarev1.NotifyResponse
		var err error
		if number%2 == 1 {
			answer, err = stub.NotifyNewMessage(ctx, &messengerv1.NotifyNewMessageRequest{Event: event})
		} else {
			answer, err = client.Notify(ctx, event, options...)
		}
		if err != nil {
			return err
		}
		told(number, answer)
	}
	return nil
}

func (t *task) stream(ctx context.Context, client *fanfare.Client) error {
	stream := client.Stream(ctx)
	answers := make(chan *fanfare.Answer, fanfare.UnansweredMax)
	go func() {
		defer close(answers)
		for number := range t.Count {
			event, options := t.event(number)
			answer, err := stream.Send(ctx, event, options...)
			if err != nil {
				return // the answers and Close tell why
			}
			answers <- answer
		}
	}()
	number := int64(0)
	for answer := range answers {
		response, err := answer.Wait(ctx)
		if err == nil {
			told(number, response)
		} else if err := t.toldError(err, number); err != nil {
			return err
		}
		number++
	}
	if err := stream.Close(); err != nil && t.Count > 1 {
		return err
	}
	return nil
}

func (t *task) subscribe(ctx context.Context, client *fanfare.Client) error {
	subscription := client.Subscribe(ctx, t.Rooms, fanfare.After(t.After))
	defer subscription.Close()
	cursor, err := subscription.Start()
	if err != nil {
		return err
	}
	emit(map[string]any{"cursor": cursor})
	left := t.Count
	for event, err := range subscription.All() {
		if err != nil {
			return err
		}
		message := &messengerv1.NewMessage{}
		if err := event.GetPayload().UnmarshalTo(message); err != nil {
			return err
		}
		emit(map[string]any{"number": message.GetId(), "seq": event.GetSeq(), "id": event.GetId()})
		if left--; left == 0 {
			break
		}
	}
	return nil
}

func run() error {
	t := &task{Deadline: 15, began: time.Now()}
	if err := json.Unmarshal([]byte(os.Args[1]), t); err != nil {
		return err
	}
	deadline := time.Duration(t.Deadline * float64(time.Second))
	client, err := fanfare.Connect(t.URL, t, fanfare.WithDeadline(deadline))
	if err != nil {
		return err
	}
	defer client.Close()
	do := map[string]func(context.Context, *fanfare.Client) error{"notify": t.notify, "stream": t.stream, "subscribe": t.subscribe}[t.Do]
	if err := do(context.Background(), client); err != nil {
		return t.toldError(err, nil)
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
