// Runs one task of tests/producers.test.js with this client: the task as JSON in argv, one JSON line a result out.

import { Code, createClient } from "@connectrpc/connect";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { connect, FanfareError } from "@fanfare-dev/client";
import { Channel, Messenger, NewMessageSchema } from "../examples/gen/messenger/v1/messenger_pb.js";

const task = { rooms: [], ...JSON.parse(process.argv[2]) };
const began = performance.now();
let attempts = 0;
/** Gives the task's tokens one after the other, the last one for ever, and counts how often it was asked. */
const token = () => task.tokens[Math.min(++attempts, task.tokens.length) - 1];

const emit = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const told = (number, { seq, id, duplicate }) => emit({ number, seq: Number(seq), id, duplicate });
const codeName = (code) => Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase().replace("CANCELED", "CANCELLED");

function toldError(error, number = null) {
  if (!(error instanceof FanfareError)) throw error;
  const { code, reason = null, rawMessage: message, retryable, cursor = null } = error;
  emit({ error: { code: codeName(code), reason, message, retryable, cursor }, number, attempts, ms: Math.round(performance.now() - began) });
}

const event = (number) => ({ id: BigInt(number), chatId: 7n, content: `event ${number}`, channel: Channel.WABA });
const target = (number) => (number === task.invalid ? { rooms: ["not a room"] } : {});

async function notify(client) {
  const stub = createClient(Messenger, client.transport);
  for (let number = 0; number < task.count; number++) {
    if (number % 2) told(number, await stub.notifyNewMessage({ event: event(number) }));
    else told(number, await client.notify(NewMessageSchema, event(number), target(number)));
  }
}

async function stream(client) {
  const stream = client.stream();
  const answers = [];
  for (let number = 0; number < task.count; number++) {
    try {
      const { answer } = await stream.send(NewMessageSchema, event(number), target(number));
      answers.push(answer.then((found) => told(number, found), (error) => toldError(error, number)));
    } catch {
      break; // the answers and `close` tell why
    }
  }
  await Promise.all(answers);
  await stream.close().catch((error) => task.count > 1 && toldError(error));
}

async function subscribe(client) {
  const subscription = client.subscribe(task.rooms, { after: task.after ?? "" });
  emit({ cursor: await subscription.start() });
  let left = task.count;
  for await (const { payload, seq, id } of subscription) {
    emit({ number: Number(anyUnpack(payload, NewMessageSchema).id), seq: Number(seq), id });
    if (--left === 0) break;
  }
}

const client = connect(task.url, token, { deadlineMs: task.deadline * 1000 });
await { notify, stream, subscribe }[task.do](client).catch((error) => toldError(error));
client.close();
