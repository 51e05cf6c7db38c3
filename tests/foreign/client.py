"""Drives a stock python-socketio client, old or new. The lines are described in ../lib/foreign.js.

Arguments: URL, token, transports.
"""

import asyncio
import inspect
import json
import sys

import socketio

url, token, transports = sys.argv[1:]
client = socketio.AsyncClient(reconnection_delay=0.05, reconnection_delay_max=0.2)


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


# Old clients cannot handle all events with one handler.
for name in ("typing:start", "user:notification", "error"):
    client.on(name, lambda *arguments, name=name: say(event=[name, *arguments]))


@client.event
async def connect():
    say(connected=client.sid, recovered=False)


@client.event
async def disconnect(*reason):
    say(disconnected=str(reason[0]) if reason else "unknown")


@client.event
async def connect_error(data):
    say(refused=data.get("message", "") if isinstance(data, dict) else str(data))


async def call(line):
    answered = asyncio.get_running_loop().create_future()
    await client.emit(line["event"], line["payload"], callback=answered.set_result)
    say(ref=line["ref"], answer=await answered)


async def main():
    # Old clients cannot send a payload with CONNECT, so the token is in a header.
    knows_auth = "auth" in inspect.signature(client.connect).parameters
    identity = {"auth": {"token": token}} if knows_auth else {"headers": {"Authorization": f"Bearer {token}"}}
    await client.connect(url, transports=transports.split(","), **identity)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    async for text in reader:
        line = json.loads(text)
        task = asyncio.ensure_future(call(line) if line["do"] == "call" else client.disconnect())
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
