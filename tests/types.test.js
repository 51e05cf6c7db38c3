// `fanfare types`: what it writes compiles with the stock client's own types, refuses what is wrong, and says what is sent.

import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import Ajv from "ajv";
import Ajv2020 from "ajv/dist/2020.js";
import { call, connect } from "./lib/clients.js";
import { EVENTS } from "./lib/events.js";
import { QUIET, ROOT, run, start, within } from "./lib/fanfare.js";
import { generateStubs, Producer } from "./lib/producer.js";
import { producer, soon, token, user } from "./lib/tokens.js";

const PAGES = path.join(ROOT, "clients/pages");
const FOLDER = path.join(ROOT, "target/tests/types");
const SHAPES = ["--catalog", path.join(ROOT, "tests/catalogs-types")];

/** Runs `fanfare types` and gives what it prints. */
async function types(...args) {
  const { code, stdout, stderr } = await run(["types", ...args]);
  assert.equal(code, 0, stderr);
  return stdout;
}

/** Compiles files in a folder of their own; the compiler's messages, by file. */
async function compile(name, files) {
  const folder = path.join(FOLDER, name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(path.join(folder, file), text);
  const compilerOptions = {
    strict: true, noEmit: true, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, verbatimModuleSyntax: true,
    isolatedModules: true, erasableSyntaxOnly: true, target: "ES2022", module: "ESNext", moduleResolution: "Bundler", types: [],
    lib: ["ES2022", "DOM"], paths: { "socket.io-client": [path.join(PAGES, "node_modules/socket.io-client")] },
  };
  writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  const tsc = path.join(PAGES, "node_modules/.bin/tsc");
  const output = await within(
    new Promise((resolve) => execFile(tsc, ["--pretty", "false", "-p", folder], { cwd: folder }, (_, out, err) => resolve(out + err))),
    "the compiler",
    120_000,
  );
  const messages = {};
  let last;
  for (const line of output.split("\n")) {
    const found = /^([^ (]+)\(\d+,\d+\): error (.*)$/.exec(line);
    if (found) messages[(last = found[1])] = [...(messages[last] ?? []), found[2]];
    else if (line && last) messages[last].push(line.trim());
    else if (line) assert.fail(output);
  }
  return messages;
}

const HEAD = (module) => `
import { io, type Socket } from "socket.io-client";
import type { Acknowledged, Answer, ClientToServerEvents, ServerToClientEvents, WebSocketCalls, WebSocketEvents } from "./${module}";
const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io("http://127.0.0.1:1", { autoConnect: false });
const asking: Socket<ServerToClientEvents, Acknowledged<ClientToServerEvents>> = socket;
export { socket, asking };
export type { Answer, WebSocketCalls, WebSocketEvents };
const take = <T>(value: T): T => value;
export { take };
`;

const RIGHT = {
  "messenger.ts": `
import { socket, asking, take, type Answer, type WebSocketEvents } from "./head-messenger";
import type { Channel, ChatRef, NewMessage } from "./messenger-events";
socket.on("message:new", (message, cursor) => {
  take<NewMessage>(message); take<number>(message.chatId); take<string | undefined>(message.timestamp); take<Channel>(message.channel);
  take<string>(cursor.toUpperCase());
  const names: Record<Channel, string> = { whatsapp: "", waba: "", telegram: "" };
  take(names[message.channel]);
});
socket.on("typing:start", ({ chatId, userId }) => { take<number>(chatId); take<string>(userId); });
socket.on("user:notification", ({ data }) => { if (data) for (const value of Object.values(data)) take<unknown>(value); });
socket.on("error", ({ code, retryAfterMs }) => { if (code === "limit") take<number | undefined>(retryAfterMs); });
socket.on("connect", () => {});
socket.emit("subscribe:chat", { chatId: 7 });
socket.emit("subscribe:chat", { chatId: 7 }, (answer) => {
  if ("error" in answer) take<string>(answer.error.message);
  else take<number>(answer.chatId);
});
asking.timeout(1000).emit("subscribe:chat", { chatId: 7 }, (late, answer) => {
  take<Error>(late);
  if (!("error" in answer)) take<number>(answer.chatId);
});
const answer: Answer<ChatRef> = await asking.emitWithAck("subscribe:chat", { chatId: 7 });
take(answer);
export const hear = (message: WebSocketEvents) => {
  if (message.type === "message:new") take<string>(message.content);
  if (message.type === "user:notification") take<string>(message.payload.type);
  if (message.type === "ack") take<number>(message.ref);
};
`,
  "chat.ts": `
import { socket, take } from "./head-chat";
socket.emit("ping");
socket.emit("get_active_users", {}, (answer) => { if (!("error" in answer)) answer.users.map((user) => take<string | undefined>(user.name)); });
socket.emit("send_message", { chatId: "7", content: "Hello" }, (answer) => { if (!("error" in answer)) take<string>(answer.id); });
socket.on("message_sent", (sent, cursor) => take<string | undefined>(cursor ?? sent.clientMessageId));
`,
  "dialogs.ts": `
import { take, type WebSocketCalls, type WebSocketEvents } from "./head-dialogs";
export const hear = (message: WebSocketEvents) => {
  switch (message.type) {
    case "dialog_update": return take<number | undefined>(message.dialog?.unreadCount);
    case "new_message": return take<string | undefined>(message.message?.text);
    case "reset": return take<string>(message.cursor);
    case "error": return take<string>(message.code);
    case "connected": case "subscribed": case "pong": case "ack": return undefined;
  }
};
export const calls: WebSocketCalls[] = [{ type: "ping" }, { type: "subscribe", ref: 1 }, { type: "subscribe", dialogId: "d1" }, { type: "auth", token: "" }];
`,
  "shapes.ts": `
import { socket, take } from "./head-shapes";
import type { Everything, JsonValue } from "./shapes-events";
const base = {
  ratio: 1, small: 1, large: "18446744073709551615", safe: 1, raw: "AA==", color: "red", levels: ["LEVEL_LOW"], nodes: { 1: { more: [{ more: [] }] } },
  "odd-name": "",
} satisfies Partial<Everything>;
export const all: Everything[] = [
  base, { ...base, card: "1234" }, { ...base, cash: { more: [] } }, { ...base, ratio: "NaN", shade: "blue", time: "", wrapped: "1" },
  { ...base, data: { a: [1, null, { b: true }] }, anyJson: null },
];
socket.on("everything", (event) => {
  if (event.card !== undefined) take<undefined>(event.cash); else take<undefined>(event.card);
  take<JsonValue | undefined>(event.anyJson);
});
socket.on("said", ({ author }) => take<string | undefined>(author?.id));
socket.emit("say", { author: { mood: "good" }, text: "Hello" }, (answer) => { if (!("error" in answer)) take<string>(answer.id); });
`,
};

// What is wrong, the text, and what the compiler says of it.
const WRONG = {
  "event-name": ["messenger", `socket.on("message:nwe", () => {});`, /"message:nwe"/],
  "emitted-name": ["messenger", `socket.emit("subscribe:chats", { chatId: 7 });`, /"subscribe:chats"/],
  "event-field": ["messenger", `socket.on("message:new", (message) => take(message.chatID));`, /'chatID' does not exist on type 'NewMessage'/],
  "request-field": ["messenger", `socket.emit("subscribe:chat", { chatID: 7 });`, /'chatID' does not exist in type 'ChatRef'/],
  "request-type": ["messenger", `socket.emit("subscribe:chat", { chatId: "7" });`, /'string' is not assignable to type 'number'/],
  "request-missing": ["messenger", `socket.emit("subscribe:chat", {});`, /'chatId' is missing/],
  "payload-type": ["messenger", `socket.on("message:new", (message: { id: string }) => take(message));`, /Types of property 'id' are incompatible/],
  "enum-text": ["messenger", `socket.on("message:new", (message) => take(message.channel === "sms"));`, /no overlap/],
  "optional": ["messenger", `socket.on("chat:updated", (chat) => take<string>(chat.priority));`, /'undefined' is not assignable/],
  "internal": ["messenger", `socket.on("user:notification", (notice) => take(notice.userId));`, /'userId' does not exist on type 'UserNotification'/],
  "ephemeral-cursor": ["messenger", `socket.on("typing:start", (_typing, cursor: string) => take(cursor));`, /Target signature provides too few arguments/],
  "answer-unchecked": ["messenger", `socket.emit("subscribe:chat", { chatId: 7 }, (answer) => take(answer.chatId));`, /'chatId' does not exist on type 'Refused'/],
  "answer-field": ["messenger", `socket.emit("subscribe:chat", { chatId: 7 }, (answer) => { if (!("error" in answer)) take(answer.chat); });`, /'chat' does not exist on type 'ChatRef'/],
  "asked-field": ["messenger", `await asking.emitWithAck("subscribe:chat", { chat: 7 });`, /'chat' does not exist in type 'ChatRef'/],
  "asked-late": ["messenger", `asking.timeout(1).emit("subscribe:chat", { chatId: 7 }, (_late, answer) => take(answer.chatId));`, /'chatId' does not exist on type 'Refused'/],
  "code": ["messenger", `socket.on("error", ({ code }) => take(code === "limits"));`, /no overlap/],
  "stamped": ["chat", `socket.emit("send_message", { chatId: "7", content: "x", senderId: "me" });`, /'senderId' does not exist in type 'SendMessageRequest'/],
  "stamped-inside": ["shapes", `socket.emit("say", { text: "x", author: { id: "root", mood: "" } });`, /'id' does not exist in type 'AuthorInput'/],
  "empty-request": ["chat", `socket.emit("ping", { chatId: "7" });`, /'string' is not assignable to type '(never|undefined)'/],
  "oneof": ["shapes", `socket.on("everything", (event) => take<typeof event>({ ...event, card: "1234", cash: { more: [] } }));`, /Types of property 'ca(rd|sh)' are incompatible|not assignable to type 'undefined'/],
  "other-transport": ["dialogs", `socket.emit("subscribe", {});`, /'"subscribe"' is not assignable to parameter of type 'never'/],
  "websocket-call": ["dialogs", `take<WebSocketCalls>({ type: "subscribe", dialog: "d1" });`, /'dialog' does not exist in type/],
  "websocket-name": ["dialogs", `take<WebSocketEvents["type"]>("new_massage");`, /"new_massage"/],
};

async function modules() {
  const files = {};
  for (const name of ["messenger", "todo", "dialogs", "chat", "shapes"]) {
    files[`${name}-events.ts`] = await types(...SHAPES, "--package", `${name}.v1`);
    files[`head-${name}.ts`] = HEAD(`${name}-events`);
  }
  return files;
}

test("TypeScript compiles, with the stock client's own types", async () => {
  const all = await types(...SHAPES);
  assert.deepStrictEqual(await compile("right", { ...(await modules()), ...RIGHT, "all-events.ts": all, "head-all.ts": HEAD("all-events") }), {});
});

test("a wrong name, a wrong field and a wrong payload do not compile, and the message names them", async () => {
  const files = await modules();
  for (const [name, [module, text]] of Object.entries(WRONG)) {
    const imports = ["socket", "asking", "take", "WebSocketCalls", "WebSocketEvents"].filter((word) => new RegExp(`\\b${word}\\b`).test(text));
    const named = imports.map((word) => (/^[A-Z]/.test(word) ? `type ${word}` : word));
    files[`wrong-${name}.ts`] = `import { ${named.join(", ")} } from "./head-${module}";\n${text}\nexport {};\n`;
  }
  const messages = await compile("wrong", files);
  assert.deepStrictEqual(Object.keys(messages).sort(), Object.keys(WRONG).map((name) => `wrong-${name}.ts`).sort());
  for (const [name, [, , message]] of Object.entries(WRONG)) assert.match(messages[`wrong-${name}.ts`].join("\n"), message, name);
});

test("the front ends have the types of the catalogs", async () => {
  for (const page of ["messenger", "todo", "dialogs", "chat"]) {
    const file = path.join(PAGES, page, "events.ts");
    const { code, stderr } = await run(["types", "--package", `${page}.v1`, "--out", file, "--check"]);
    assert.equal(code, 0, stderr);
  }
});

test("--check finds a file that is old or not there, and says what mends it", async () => {
  mkdirSync(FOLDER, { recursive: true });
  const file = path.join(FOLDER, "my events.ts");
  rmSync(file, { force: true });
  const args = ["types", "--package", "chat.v1", "--out", file];
  const remedy = `run: fanfare types --builtin all --package chat.v1 --out '${file}'`;
  const missing = await run([...args, "--check"]);
  assert.equal(missing.code, 1);
  assert.ok(missing.stderr.includes(`cannot read ${file}`) && missing.stderr.includes(remedy), missing.stderr);

  assert.deepStrictEqual(await run(args), { code: 0, stdout: "", stderr: "" });
  const right = readFileSync(file, "utf8");
  assert.equal(right, await types("--package", "chat.v1"));
  assert.equal((await run([...args, "--check"])).code, 0);

  for (const [change, found, want] of [
    [(text) => text.replace("  chatId: string;", "  chatId: number;"), '"  chatId: number;"', '"  chatId: string;"'],
    [(text) => `${text}// mine\n`, '"// mine"', "the end of the file"],
    [(text) => text.split("\n").slice(0, 9).join("\n") + "\n", "the end of the file", /want "/],
    [(text) => text.trimEnd(), "the end of the file", "the end of the file"],
  ]) {
    writeFileSync(file, change(right));
    const stale = await run([...args, "--check"]);
    assert.equal(stale.code, 1);
    assert.ok(stale.stderr.includes(`found ${found}, want `) && stale.stderr.includes(remedy), stale.stderr);
    if (typeof want === "string") assert.ok(stale.stderr.includes(`want ${want};`), stale.stderr);
    assert.equal(readFileSync(file, "utf8"), change(right), "nothing is written");
  }
  writeFileSync(file, right.replaceAll("\n", "\r\n"));
  assert.equal((await run([...args, "--check"])).code, 0, "the ends of lines are Git's affair");
});

test("mistakes on the command line are refused with a remedy", async () => {
  const unknown = await run(["types", "--package", "messenger.v2"]);
  assert.equal(unknown.code, 1);
  assert.match(unknown.stderr, /--package: package "messenger.v2" is no catalog \(did you mean "messenger.v1"\?\)/);
  const nowhere = await run(["types", "--check"]);
  assert.equal(nowhere.code, 2);
  assert.match(nowhere.stderr, /--out <FILE>/);
  const unwritable = await run(["types", "--out", path.join(FOLDER, "no/such/folder/events.ts")]);
  assert.equal(unwritable.code, 1);
  assert.match(unwritable.stderr, /cannot write .*events\.ts/);
});

test("the AsyncAPI document is one", async () => {
  const schema = createRequire(import.meta.url)("@asyncapi/specs/schemas/3.0.0.json");
  const validate = new Ajv({ strict: false, validateFormats: false, validateSchema: false, meta: false }).compile(schema);
  for (const args of [[], [...SHAPES], ["--package", "chat.v1"]]) {
    const document = JSON.parse(await types("--format", "asyncapi", ...args));
    assert.ok(validate(document), JSON.stringify(validate.errors?.slice(0, 5), null, 1));
    // Every reference leads somewhere.
    const look = (value) => {
      if (typeof value?.$ref === "string") {
        assert.match(value.$ref, /^#\//);
        const found = value.$ref.slice(2).split("/").reduce((inner, key) => inner?.[key], document);
        assert.ok(found, value.$ref);
      }
      if (value && typeof value === "object") Object.values(value).forEach(look);
    };
    look(document);
  }
  const document = JSON.parse(await types("--format", "asyncapi", "--package", "messenger.v1"));
  assert.deepStrictEqual(document.channels["typing_start"].address, "typing:start");
  assert.equal(document.operations["send.messenger.v1.NewMessage"].action, "send");
  const subscribe = document.operations["receive.messenger.v1.MessengerClient.SubscribeChat"];
  assert.equal(subscribe.action, "receive");
  assert.deepStrictEqual(subscribe.reply.messages.map(({ $ref }) => $ref.split("/").at(-1)), ["messenger.v1.ChatRef-response", "refused"]);
});

/** Asserts that JSON is as the schemas say. */
async function schemas(...args) {
  const document = JSON.parse(await types("--format", "json-schema", ...args));
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  ajv.addSchema({ ...document, $id: "fanfare:types" });
  return (type, value) => {
    const validate = ajv.getSchema(`fanfare:types#/$defs/${type}`);
    assert.ok(validate, `no schema of ${type}`);
    return validate(value) ? undefined : ajv.errorsText(validate.errors);
  };
}

test("JSON that is not an event's is refused by its schema", async () => {
  const problem = await schemas(...SHAPES);
  const message = { id: 1, chatId: 7, content: "", fromMe: true, channel: "waba" };
  assert.equal(problem("messenger.v1.NewMessage", message), undefined);
  for (const [change, expected] of [
    [{ chatID: 7 }, /additional properties/],
    [{ chatId: "7" }, /chatId must be integer/],
    [{ chatId: 2 ** 53 }, /chatId must be <= 9007199254740991/],
    [{ content: undefined }, /required property 'content'/],
    [{ channel: "sms" }, /channel must be equal to one of the allowed values/],
    [{ channel: "CHANNEL_UNSPECIFIED" }, /channel must be equal to one of/],
    [{ timestamp: "yesterday" }, /timestamp must match pattern/],
    [{ senderName: null }, /senderName must be string/],
  ]) {
    assert.match(problem("messenger.v1.NewMessage", JSON.parse(JSON.stringify({ ...message, ...change }))) ?? "", expected);
  }
  assert.match(problem("shapes.v1.Author-input", { id: "root", mood: "" }), /additional properties/);
  assert.equal(problem("shapes.v1.Author-input", { mood: "" }), undefined);
});

let fanfare, python;

before(async () => {
  generateStubs();
  fanfare = await start({ serverArgs: [...QUIET, ...SHAPES] });
  python = new Producer(fanfare.server.address);
});

after(async () => {
  python?.close();
  await fanfare?.stop();
});

test("every event of the four catalogs is as its schema says, as a stock client gets it", async () => {
  const problem = await schemas();
  const events = JSON.parse(await types("--format", "asyncapi"));
  const names = new Map(Object.entries(events.components.messages).map(([type, { name }]) => [`${type.split(".")[0]} ${name}`, type]));
  const session = await connect(fanfare.bridge.url, user(42, 1));
  assert.deepStrictEqual(await call(session, "subscribe:chat", { chatId: 7 }), { chatId: 7 });
  for (const [service, method, name, event, , , rooms] of EVENTS) {
    session.events.length = 0;
    await python.call(producer("1"), `${service}/${method}`, { target: { rooms }, event });
    const [, payload] = await session.event(name);
    const type = names.get(`${service.split(".")[0]} ${name}`);
    assert.equal(problem(type, payload), undefined, `${type}: ${JSON.stringify(payload)}`);
  }
  session.close();
});

test("every kind of field is as its schema says", async () => {
  const problem = await schemas(...SHAPES);
  const session = await connect(fanfare.bridge.url, user(42, 1));
  const base = { color: "red" };
  for (const event of [
    {},
    { ratio: "Infinity", small: -1, large: "18446744073709551615", safe: 9007199254740991, raw: "AP8=", shade: "COLOR_UNSPECIFIED" },
    { levels: ["LEVEL_LOW", "LEVEL_HIGH"], nodes: { "-1": { next: { more: [{}] } } }, "odd-name": "x" },
    { time: "2026-01-31T12:00:00.123456Z", duration: "-1.5s", data: { a: [null, 1.5, "x", { b: true }] }, anyJson: [null], wrapped: "-7" },
    { card: "1234" },
    { cash: { more: [] }, anyJson: null },
  ]) {
    session.events.length = 0;
    const { code, stderr } = await run(
      ["notify", ...SHAPES, "--server", `http://${fanfare.server.address}`, "shapes.v1.Everything", JSON.stringify({ ...base, ...event })],
      { env: { FANFARE_TOKEN: producer("1") } },
    );
    assert.equal(code, 0, stderr);
    const [, payload] = await session.event("everything");
    assert.equal(problem("shapes.v1.Everything", payload), undefined, JSON.stringify(payload));
  }
  session.close();
});

test("acknowledgements and refusals are as the schemas say", async () => {
  const problem = await schemas(...SHAPES);
  const ada = await connect(fanfare.bridge.url, token({ sub: "42", username: "ada", email: "ada@example.com", exp: soon() }));
  for (const [name, request, type] of [
    ["subscribe:chat", { chatId: 7 }, "messenger.v1.ChatRef"],
    ["typing:start", { chatId: 7 }, "messenger.v1.ChatRef"],
    ["join", {}, "todo.v1.Joined"],
    ["join_chat", { chatId: "7" }, "chat.v1.ChatRef"],
    ["send_message", { chatId: "7", content: "Hello", clientMessageId: "m" }, "chat.v1.MessageSent"],
    ["mark_messages_read", { chatId: "7", messageIds: [] }, "chat.v1.MessagesRead"],
    ["get_active_users", {}, "chat.v1.ActiveUsers"],
    ["get_chat_info", { chatId: "7" }, "chat.v1.ChatInfo"],
    ["ping", {}, "chat.v1.Pong"],
    ["say", { author: { mood: "good" }, text: "Hello" }, "shapes.v1.Author"],
  ]) {
    const answer = await call(ada, name, request);
    assert.equal(problem(type, answer), undefined, `${name}: ${JSON.stringify(answer)}`);
  }
  const document = JSON.parse(await types("--format", "asyncapi"));
  const refused = new Ajv2020({ strict: false }).compile(document.components.schemas.refused);
  for (const [name, request] of [["subscribe:chat", { chatId: "x" }], ["no such", {}], ["join_chat", {}]]) {
    const answer = await call(ada, name, request);
    assert.ok(answer.error && refused(answer), `${name}: ${JSON.stringify(answer)}`);
  }
  ada.close();
});
