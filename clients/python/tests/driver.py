"""Runs one task of tests/producers.test.js with this client: the task as JSON in argv, one JSON line a result out."""

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc

import fanfare
import fanfare.aio

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from messenger.v1 import messenger_pb2 as pb
from messenger.v1 import messenger_pb2_grpc


def emit(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def event(task, number):
    return pb.NewMessage(id=number, chat_id=task.get("chat", 7), content=f"event {number}", channel=pb.CHANNEL_WABA)


def told(number, answer):
    emit({"number": number, "seq": answer.seq, "id": answer.id, "duplicate": answer.duplicate})


class Tokens:
    """Gives the task's tokens one after the other, the last one for ever, and counts how often it was asked."""

    def __init__(self, task):
        self.asked = 0
        self.tokens = task["tokens"]

    def __call__(self):
        self.asked += 1
        return self.tokens[min(self.asked, len(self.tokens)) - 1]


def told_error(error, began, tokens, number=None):
    emit(
        {
            "error": {
                "code": error.code().name,
                "reason": error.reason,
                "message": error.message,
                "retryable": error.retryable,
                "cursor": error.cursor,
            },
            "number": number,
            "attempts": tokens.asked,
            "ms": round((time.monotonic() - began) * 1000),
        }
    )


def notify(task, tokens):
    """Publishes with the blocking client, one after the other; half of them through the typed stub."""
    with fanfare.connect(task["url"], tokens, deadline=task["deadline"]) as client:
        stub = messenger_pb2_grpc.MessengerStub(client.channel)
        for number in range(task["count"]):
            message = event(task, number)
            if number == task.get("invalid"):
                told(number, client.notify(message, rooms=["not a room"]))
            elif number % 2:
                told(number, stub.NotifyNewMessage(pb.NotifyNewMessageRequest(event=message)))
            else:
                told(number, client.notify(message))


async def notify_aio(task, tokens):
    """As `notify`, with asyncio."""
    async with fanfare.aio.connect(task["url"], tokens, deadline=task["deadline"]) as client:
        stub = messenger_pb2_grpc.MessengerStub(client.channel)
        for number in range(task["count"]):
            message = event(task, number)
            if number == task.get("invalid"):
                told(number, await client.notify(message, rooms=["not a room"]))
            elif number % 2:
                told(number, await stub.NotifyNewMessage(pb.NotifyNewMessageRequest(event=message)))
            else:
                told(number, await client.notify(message))


async def stream(task, tokens):
    """Publishes pipelined; `invalid` is the number of an event that is refused."""
    began = time.monotonic()
    async with fanfare.aio.connect(task["url"], tokens, deadline=task["deadline"]) as client:
        publisher = client.stream()
        answers = asyncio.Queue()

        async def tell():
            while True:
                number, answer = await answers.get()
                if answer is None:
                    return
                try:
                    told(number, await answer)
                except fanfare.Error as error:
                    told_error(error, began, tokens, number)

        telling = asyncio.create_task(tell())
        for number in range(task["count"]):
            rooms = ["not a room"] if number == task.get("invalid") else []
            try:
                await answers.put((number, await publisher.send(event(task, number), rooms=rooms)))
            except fanfare.Error:
                break  # the answers and `close` tell why
        await answers.put((None, None))
        await telling
        try:
            await publisher.close()
        except fanfare.Error as error:
            if task["count"] > 1:
                told_error(error, began, tokens)


async def subscribe(task, tokens):
    """Reads `count` events after the cursor `after`; the first line says that it stands."""
    async with fanfare.aio.connect(task["url"], tokens) as client:
        subscription = client.subscribe(task["rooms"], after=task.get("after", ""))
        emit({"cursor": await subscription.start()})
        left = task["count"]
        while left:
            got = await anext(subscription)
            message = pb.NewMessage()
            got.payload.Unpack(message)
            emit({"number": message.id, "seq": got.seq, "id": got.id})
            left -= 1
        await subscription.close()


def main():
    task = json.loads(sys.argv[1])
    tokens, began = Tokens(task), time.monotonic()
    try:
        does = {"notify": notify, "notify-async": notify_aio, "stream": stream, "subscribe": subscribe}[task["do"]]
        done = does(task, tokens)
        if asyncio.iscoroutine(done):
            asyncio.run(done)
    except fanfare.Error as error:
        assert isinstance(error, grpc.RpcError)
        told_error(error, began, tokens)


if __name__ == "__main__":
    main()
