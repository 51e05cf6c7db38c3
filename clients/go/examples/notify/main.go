// Command notify publishes new messages in three ways: by the typed stub, by Notify, and pipelined. See ../../README.md.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"google.golang.org/protobuf/types/known/timestamppb"

	fanfare "github.com/fanfare-dev/fanfare/clients/go"
	"github.com/fanfare-dev/fanfare/clients/go/examples/messengerv1"
)

func message(number int64, text string) *messengerv1.NewMessage {
	return &messengerv1.NewMessage{
		Id: number, ChatId: 7, Content: text, Channel: messengerv1.Channel_CHANNEL_TELEGRAM, Timestamp: timestamppb.Now(),
	}
}

func oneByOne(ctx context.Context, client *fanfare.Client) error {
	stub := messengerv1.NewMessengerClient(client.Conn())
	answer, err := stub.NotifyNewMessage(ctx, &messengerv1.NotifyNewMessageRequest{Event: message(1, "by the typed stub")})
	if err != nil {
		return err
	}
	fmt.Println("published as", answer.GetId())
	// The key is the message's own number, so that this program can be run again: duplicate is true then.
	answer, err = client.Notify(ctx, message(2, "by Notify"), fanfare.ToRooms("chat:7"), fanfare.WithKey("message-2"))
	if err != nil {
		return err
	}
	fmt.Println("published as", answer.GetId(), "again:", answer.GetDuplicate())
	_, err = client.Notify(ctx, message(3, "to nobody"), fanfare.ToRooms("not a room"))
	var refused *fanfare.Error
	if errors.As(err, &refused) {
		fmt.Println("refused:", refused, "worth trying again:", refused.Retryable)
	}
	return nil
}

func pipelined(ctx context.Context, client *fanfare.Client) error {
	stream := client.Stream(ctx)
	var answers []*fanfare.Answer
	for number := range int64(10) {
		answer, err := stream.Send(ctx, message(10+number, "pipelined"))
		if err != nil {
			return err
		}
		answers = append(answers, answer)
	}
	for _, answer := range answers {
		response, err := answer.Wait(ctx)
		if err != nil {
			return err
		}
		fmt.Println("published as", response.GetId())
	}
	return stream.Close()
}

func main() {
	ctx := context.Background()
	client, err := fanfare.Connect(cmp.Or(os.Getenv("FANFARE_URL"), "http://127.0.0.1:50051"), fanfare.StaticToken(os.Getenv("TOKEN")))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := errors.Join(oneByOne(ctx, client), pipelined(ctx, client)); err != nil {
		log.Fatal(err)
	}
}
