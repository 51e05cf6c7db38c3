/** Serves `message:send`: the upstream `channels` of the messenger catalog. Fanfare's server is the only client. */

import { readFileSync } from "node:fs";
import * as http2 from "node:http2";
import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { type Account, Starting } from "./account.js";
import { type Caller, CallerSchema } from "./gen/fanfare/v1/realtime_pb.js";
import { MessengerClient, type SendMessageRequest } from "./gen/messenger/v1/messenger_pb.js";
import { LanesFull } from "./lanes.js";
import { describe, log } from "./log.js";
import { type Draft, OutboxFull } from "./outbox.js";
import { EventRefused, Stopped } from "./publisher.js";

/** Largest request in bytes. */
const REQUEST_BYTES_MAX = 64 * 1024;
const CLIENT_ID_BYTES_MAX = 128;
const URL_CHARS_MAX = 2_048;
const NAME_CHARS_MAX = 256;
const PARAMETERS_MAX = 32;
/** Below the time that Fanfare's server waits, so that its client gets our reason. */
const ANSWER_MS = 4_000;

export interface GrpcTls {
  cert: string;
  key: string;
  /** Authorities of the clients. */
  clientCa?: string | undefined;
}

export function upstreamServer(accounts: readonly Account[], tls: GrpcTls | undefined): http2.Http2Server {
  const handler = connectNodeAdapter({
    routes: (router) => router.service(MessengerClient, { sendMessage: (request, context) => sendMessage(accounts, request, context) }),
    readMaxBytes: REQUEST_BYTES_MAX,
  });
  const server = tls
    ? http2.createSecureServer(
        {
          cert: readFileSync(tls.cert), key: readFileSync(tls.key),
          ...(tls.clientCa ? { ca: readFileSync(tls.clientCa), requestCert: true, rejectUnauthorized: true } : {}),
        },
        handler,
      )
    : http2.createServer(handler);
  server.on("sessionError", (error) => log.debug("a gRPC connection broke", { error: describe(error) }));
  return server;
}

async function sendMessage(accounts: readonly Account[], request: SendMessageRequest, context: HandlerContext) {
  const caller = callerOf(context);
  const [account, chatId] = accountOf(accounts, caller, request.chatId);
  const draft: Draft = {
    chat: { id: chatId, number: request.chatId }, user: caller.userId, userName: caller.userName, clientMessageId: request.clientMessageId,
    content: contentOf(account, request),
  };
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new ConnectError("Fanfare did not take the message in time; call again with the same clientMessageId", Code.Unavailable);
    timer = setTimeout(() => reject(error), ANSWER_MS);
  });
  const accepted = account.send(draft);
  accepted.catch(() => {});
  try {
    const { number, duplicate } = await Promise.race([accepted, late]);
    return { chatId: request.chatId, messageId: number, clientMessageId: request.clientMessageId, duplicate };
  } catch (error) {
    if (error instanceof ConnectError) throw error;
    if (error instanceof OutboxFull || error instanceof LanesFull) throw new ConnectError(error.message, Code.ResourceExhausted);
    if (error instanceof EventRefused) throw new ConnectError(error.message, Code.InvalidArgument);
    if (error instanceof Stopped || error instanceof Starting) throw new ConnectError(error.message, Code.Unavailable);
    log.error("a message to a customer could not be stored", { account: account.options.name, error: describe(error) });
    throw new ConnectError("the message could not be stored", Code.Internal);
  } finally {
    clearTimeout(timer);
  }
}

/** The operator. Fanfare's server verified the token. */
function callerOf(context: HandlerContext): Caller {
  const encoded = context.requestHeader.get("fanfare-caller-bin");
  if (!encoded) throw new ConnectError("only Fanfare's server may call this: the metadata has no fanfare-caller-bin", Code.Unauthenticated);
  try {
    return fromBinary(CallerSchema, Buffer.from(encoded, "base64"));
  } catch {
    throw new ConnectError("fanfare-caller-bin is no fanfare.v1.Caller", Code.InvalidArgument);
  }
}

function accountOf(accounts: readonly Account[], caller: Caller, chat: bigint): [Account, string] {
  // The bridge's rule for joins: a token may be restricted to some rooms.
  if (caller.roomsRestricted && !caller.rooms.includes(`chat:${chat}`)) {
    throw new ConnectError(`the token does not allow the room chat:${chat}`, Code.PermissionDenied);
  }
  for (const account of accounts) {
    const id = account.options.tenant === caller.tenant ? account.chatId(chat) : undefined;
    if (id !== undefined) return [account, id];
  }
  throw new ConnectError(`chatId: no channel has the chat ${chat}`, Code.NotFound);
}

function contentOf({ channel }: Account, { text, clientMessageId, media, template }: SendMessageRequest): Draft["content"] {
  const refuse = (path: string, why: string) => new ConnectError(`${path}: ${why}`, Code.InvalidArgument);
  const idBytes = Buffer.byteLength(clientMessageId);
  if (idBytes === 0 || idBytes > CLIENT_ID_BYTES_MAX) throw refuse("clientMessageId", `want 1 to ${CLIENT_ID_BYTES_MAX} bytes, e.g. a UUID`);
  const max = media ? channel.captionMax : channel.textMax;
  // Channels count UTF-16 units.
  if (text.length > max) throw refuse("text", `has ${text.length} characters; the channel takes at most ${max}`);
  if (!text.trim() && !media && !template) throw refuse("text", "is empty; want a text, media or a template");
  if (media && !isReference(media.url, channel.mediaScheme)) {
    throw refuse("media.url", `want an https URL or a reference of this channel that begins with ${JSON.stringify(channel.mediaScheme)}, at most ${URL_CHARS_MAX} characters`);
  }
  if (media && !/^[\w.+-]{1,64}\/[\w.+*-]{1,64}$/.test(media.type)) throw refuse("media.type", 'want a type such as "image/png"');
  if (media?.fileName !== undefined && media.fileName.length > NAME_CHARS_MAX) throw refuse("media.fileName", `want at most ${NAME_CHARS_MAX} characters`);
  if (template && !channel.templates) throw refuse("template", "only chats of the WhatsApp Business API have templates");
  if (template && (media || text)) throw refuse("template", "stands alone: leave out text and media");
  if (template && !/^[a-z0-9_]{1,512}$/.test(template.name)) throw refuse("template.name", "want 1 to 512 of a-z, 0-9 and '_'");
  if (template && !/^[A-Za-z]{2,3}(_[A-Za-z]{2,4})?$/.test(template.language)) throw refuse("template.language", 'want e.g. "en_US"');
  if (template && (template.parameters.length > PARAMETERS_MAX || template.parameters.some((one) => !one || one.length > 1_024))) {
    throw refuse("template.parameters", `want at most ${PARAMETERS_MAX} texts of 1 to 1024 characters`);
  }
  const content = {
    text,
    ...(media ? { media: { url: media.url, type: media.type, ...(media.fileName ? { fileName: media.fileName } : {}) } } : {}),
    ...(template ? { template: { name: template.name, language: template.language, parameters: [...template.parameters] } } : {}),
  };
  const refused = channel.refuse?.(content);
  if (refused) throw refuse(refused.path, refused.why);
  return content;
}

function isReference(url: string, scheme: string): boolean {
  if (url.length > URL_CHARS_MAX) return false;
  return (url.startsWith(scheme) && url.length > scheme.length) || (url.startsWith("https://") && URL.canParse(url));
}
