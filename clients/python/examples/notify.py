"""Publishes new messages in three ways: by the typed stub, by `notify`, and pipelined. See ../README.md."""

import asyncio
import os

from messenger.v1 import messenger_pb2 as pb
from messenger.v1 import messenger_pb2_grpc

import fanfare
import fanfare.aio

URL = os.environ.get("FANFARE_URL", "http://127.0.0.1:50051")
TOKEN = os.environ["TOKEN"]


def message(number: int, text: str) -> pb.NewMessage:
    event = pb.NewMessage(id=number, chat_id=7, content=text, channel=pb.CHANNEL_TELEGRAM)
    event.timestamp.GetCurrentTime()
    return event


def one_by_one() -> None:
    with fanfare.connect(URL, TOKEN) as client:
        stub = messenger_pb2_grpc.MessengerStub(client.channel)
        answer = stub.NotifyNewMessage(pb.NotifyNewMessageRequest(event=message(1, "by the typed stub")))
        print("published as", answer.id)
        # The key is the message's own number, so that this program can be run again: `duplicate` is true then.
        answer = client.notify(message(2, "by notify"), rooms=["chat:7"], idempotency_key="message-2")
        print("published as", answer.id, "again" if answer.duplicate else "")
        try:
            client.notify(message(3, "to nobody"), rooms=["not a room"])
        except fanfare.Error as error:
            print("refused:", error, "(worth trying again)" if error.retryable else "(final)")


async def pipelined() -> None:
    async with fanfare.aio.connect(URL, TOKEN) as client, client.stream() as stream:
        answers = [await stream.send(message(number, f"message {number}")) for number in range(10, 20)]
        print("published as", [(await answer).seq for answer in answers])


one_by_one()
asyncio.run(pipelined())
