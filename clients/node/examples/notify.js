// Publishes new messages in three ways: by the typed client, by `notify`, and pipelined. See ../README.md.

import { timestampNow } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { connect, FanfareError } from "@fanfare-dev/client";
import { Channel, Messenger, NewMessageSchema } from "./gen/messenger/v1/messenger_pb.js";

const client = connect(process.env.FANFARE_URL ?? "http://127.0.0.1:50051", process.env.TOKEN);
const message = (id, content) => ({ id: BigInt(id), chatId: 7n, content, channel: Channel.TELEGRAM, timestamp: timestampNow() });

const messenger = createClient(Messenger, client.transport);
const { id } = await messenger.notifyNewMessage({ event: message(1, "by the typed client") });
console.log("published as", id);

// The key is the message's own number, so that this program can be run again: `duplicate` is true then.
const answer = await client.notify(NewMessageSchema, message(2, "by notify"), { rooms: ["chat:7"], idempotencyKey: "message-2" });
console.log("published as", answer.id, answer.duplicate ? "again" : "");

try {
  await client.notify(NewMessageSchema, message(3, "to nobody"), { rooms: ["not a room"] });
} catch (error) {
  if (!(error instanceof FanfareError)) throw error;
  console.log("refused:", error.message, error.retryable ? "(worth trying again)" : "(final)");
}

const stream = client.stream();
const sent = [];
for (let number = 10; number < 20; number++) sent.push(await stream.send(NewMessageSchema, message(number, `message ${number}`)));
for (const { answer } of sent) console.log("published as", (await answer).id);
await stream.close();
client.close();
