"""Drives stock python-socketio clients for the tests, one JSON line in, many out.

{"id", "do": "connect", "client", "url", "token"}, {"do": "call", "client", "name", "payload"?}, {"do": "emit", "client", "name", "payload"?}
(without a callback), {"do": "close", "client"} and {"do": "lose", "client"} (the connection is cut) are answered by {"id", "ok"} or
{"id", "error"}; every event of a client is told as {"client", "event": [name, ...arguments]}.
"""

import asyncio
import json
import sys

import socketio

clients = {}


def emit(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def connect(line):
    client = socketio.AsyncClient(reconnection=False)
    clients[line["client"]] = client
    refused = {}

    @client.on("*")
    async def any_event(name, *arguments):
        emit({"client": line["client"], "event": [name, *arguments]})

    @client.on("connect_error")
    async def connect_error(data):
        refused.update(data if isinstance(data, dict) else {"message": str(data)})

    try:
        await client.connect(line["url"], auth={"token": line["token"]}, transports=["websocket"], wait_timeout=10)
    except socketio.exceptions.ConnectionError as error:
        raise RuntimeError(refused.get("message", str(error))) from error
    return {"id": client.get_sid()}


async def emit_event(line, callback=None):
    arguments = (line["payload"],) if "payload" in line else None
    await clients[line["client"]].emit(line["name"], arguments, callback=callback)


async def call(line):
    answered = asyncio.get_running_loop().create_future()
    await emit_event(line, lambda *answer: answered.set_result(answer))
    answer = await asyncio.wait_for(answered, 15)
    return answer[0] if answer else None


async def close(line):
    await clients.pop(line["client"]).disconnect()


async def lose(line):
    await clients.pop(line["client"]).eio.disconnect(abort=True)


DOES = {"connect": connect, "call": call, "emit": emit_event, "close": close, "lose": lose}


async def serve(line):
    try:
        emit({"id": line["id"], "ok": await DOES[line["do"]](line)})
    except Exception as error:  # the test shows it
        emit({"id": line["id"], "error": str(error)})


async def main():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    async for text in reader:
        task = asyncio.create_task(serve(json.loads(text)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
