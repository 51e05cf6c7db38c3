// The interface of @whiskeysockets/baileys without WhatsApp: a test plays the phone and the network over a TCP connection,
// whose address FAKE_WHATSAPP is. Loaded by the service of the channels.

import { EventEmitter } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";

const [host, port] = process.env.FAKE_WHATSAPP.split(":");
const line = connect(Number(port), host);
line.unref();
const tell = (what) => line.write(`${JSON.stringify(what)}\n`);
const answers = new Map();
let socket;
createInterface({ input: line }).on("line", (text) => {
  const { event, payload, answer, error } = JSON.parse(text);
  if (event) socket?.ev.emit(event, payload);
  else if (error) answers.get(answer)?.reject(new Error(error));
  else answers.get(answer)?.resolve({ key: { id: answer } });
});

export async function useMultiFileAuthState(folder) {
  const file = path.join(folder, "creds.json");
  return {
    state: { paired: existsSync(file) },
    saveCreds: async () => {
      mkdirSync(folder, { recursive: true });
      writeFileSync(file, "{}");
      tell({ saved: true });
    },
  };
}

export function makeWASocket({ auth }) {
  socket = {
    ev: new EventEmitter(),
    sendMessage: (jid, content, { messageId }) => {
      tell({ sent: { jid, content, id: messageId } });
      return new Promise((resolve, reject) => answers.set(messageId, { resolve, reject }));
    },
    end: () => {},
  };
  tell({ opened: true, paired: auth.paired });
  return socket;
}
