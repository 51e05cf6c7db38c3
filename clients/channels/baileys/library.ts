/** The part of `@whiskeysockets/baileys` that is used. The library is installed by the operator and loaded when it is configured. */

export interface Key {
  remoteJid?: string | null;
  fromMe?: boolean | null;
  id?: string | null;
  participant?: string | null;
}

export interface Media {
  mimetype?: string | null;
  caption?: string | null;
}

export interface Content {
  conversation?: string | null;
  extendedTextMessage?: { text?: string | null } | null;
  imageMessage?: Media | null;
  videoMessage?: Media | null;
  audioMessage?: Media | null;
  documentMessage?: Media | null;
  stickerMessage?: Media | null;
  documentWithCaptionMessage?: { message?: Content | null } | null;
  ephemeralMessage?: { message?: Content | null } | null;
  locationMessage?: { degreesLatitude?: number | null; degreesLongitude?: number | null } | null;
  contactMessage?: { displayName?: string | null } | null;
  reactionMessage?: { text?: string | null } | null;
  protocolMessage?: { key?: Key | null; editedMessage?: Content | null; timestampMs?: number | { toString(): string } | null } | null;
}

export interface WebMessage {
  key: Key;
  message?: Content | null;
  messageTimestamp?: number | { toString(): string } | null;
  pushName?: string | null;
}

export interface ConnectionUpdate {
  connection?: "connecting" | "open" | "close";
  qr?: string;
  lastDisconnect?: { error?: { message?: string; output?: { statusCode?: number } } };
}

export interface Events {
  "creds.update": unknown;
  "connection.update": ConnectionUpdate;
  "messages.upsert": { messages: WebMessage[]; type: string };
  "messages.update": { key: Key; update: { status?: number | null } }[];
}

export interface WhatsAppSocket {
  ev: {
    on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): void;
    removeAllListeners(name: keyof Events): void;
  };
  sendMessage(jid: string, content: Record<string, unknown>, options: { messageId: string }): Promise<{ key: Key } | undefined>;
  end(error: Error | undefined): void;
}

export interface Library {
  makeWASocket(config: Record<string, unknown>): WhatsAppSocket;
  useMultiFileAuthState(folder: string): Promise<{ state: unknown; saveCreds(): Promise<void> }>;
}

/** Loads the library by the name of its package or by a path. */
export async function load(name: string): Promise<Library> {
  let module: Record<string, unknown>;
  try {
    module = (await import(name)) as Record<string, unknown>;
  } catch (cause) {
    throw new Error(`baileys-module: ${name} cannot be loaded; install it with: npm install @whiskeysockets/baileys`, { cause });
  }
  const { makeWASocket = module.default, useMultiFileAuthState } = module;
  if (typeof makeWASocket !== "function" || typeof useMultiFileAuthState !== "function") {
    throw new Error(`baileys-module: ${name} has no makeWASocket and useMultiFileAuthState`);
  }
  return { makeWASocket, useMultiFileAuthState } as Library;
}
