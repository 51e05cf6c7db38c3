// Keys of tokens that are fetched by URL: several issuers, rotation, and issuers that are down.

import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import https from "node:https";
import { tmpdir } from "node:os";
import path from "node:path";
import { Authority } from "./lib/certificates.js";
import { connect, refusal } from "./lib/clients.js";
import { Process, run, SECRET, startServer, until } from "./lib/fanfare.js";
import { keyPair, soon, token, user } from "./lib/tokens.js";

/** An issuer that publishes its keys. */
class Issuer {
  keys = [];
  fetched = 0;
  status = 200;

  async start(tls, port = 0) {
    const answer = (_, response) => {
      this.fetched++;
      response.writeHead(this.status, { "content-type": "application/json" });
      response.end(JSON.stringify({ keys: this.keys.map((key) => key.jwk) }));
    };
    this.server = tls ? https.createServer(tls, answer) : createServer(answer);
    this.server.listen(port, "127.0.0.1");
    await once(this.server, "listening");
    this.port = this.server.address().port;
    this.url = `${tls ? "https" : "http"}://127.0.0.1:${this.port}/jwks.json`;
    return this;
  }

  stop() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

const claims = (more) => ({ sub: "1", exp: soon(), ...more });

describe("issuers", () => {
  const authority = new Authority();
  const folder = mkdtempSync(path.join(tmpdir(), "fanfare-issuers-"));
  const [acme, bank] = [new Issuer(), new Issuer()];
  const [first, second, banks] = [keyPair("ES256", "a1"), keyPair("EdDSA", "a2"), keyPair("RS256", "b1")];
  let server, bridge;

  before(async () => {
    acme.keys = [first];
    bank.keys = [banks];
    await acme.start();
    const { cert, key } = authority.listener("bank");
    await bank.start({ cert: readFileSync(cert), key: readFileSync(key) });
    const secret = path.join(folder, "secret");
    writeFileSync(secret, `${SECRET}\n`);
    const trust = [
      "--jwt-trust", `https://acme.example.com;jwks=${acme.url};audience=chat;tenant=acme`,
      "--jwt-trust", `https://bank.example.com;jwks=${bank.url}`, "--jwt-jwks-ca", authority.ca,
    ];
    server = await startServer(trust);
    bridge = new Process(["bridge", "--http-listen", "127.0.0.1:0", "--server", server.url, "--jwt-secret-file", secret, ...trust]);
    bridge.url = `http://${(await bridge.log("bridge listening")).address}`;
    await bridge.log("linked");
    await until(() => bridge.logs.filter((e) => e.message === "token keys fetched").length === 2, "the keys");
  });

  after(async () => {
    await bridge?.stop();
    await server?.stop();
    await acme.stop();
    await bank.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const refused = (bearer) => refusal(bridge.url, { auth: { token: bearer } });
  async function accepted(bearer) {
    const socket = await connect(bridge.url, bearer);
    socket.close();
  }
  const ofAcme = (more) => claims({ iss: "https://acme.example.com", aud: "chat", ...more });

  test("each issuer's tokens are verified with its keys, over HTTP of this machine or HTTPS", async () => {
    await accepted(first.sign(ofAcme({ tenant: "acme" })));
    await accepted(first.sign(ofAcme()));
    await accepted(banks.sign(claims({ iss: "https://bank.example.com", tenant: "bank" })));
  });

  test("a secret's file counts as the secret", () => accepted(user(1, "own")));

  test("an issuer signs for its own tenant and audience only, and not for others", async () => {
    for (const wrong of [
      first.sign(ofAcme({ tenant: "bank" })),
      first.sign(ofAcme({ aud: "shop" })),
      first.sign(claims({ iss: "https://bank.example.com", tenant: "bank" })),
      banks.sign(ofAcme()),
      first.sign(claims({ aud: "chat" })),
      token({ ...ofAcme() }, { secret: "another-secret-of-the-tests-0123456789" }),
    ]) {
      assert.match((await refused(wrong)).message, /Invalid token|transport close/);
    }
  });

  test("a new key is fetched when a token names it, and an old one stops", async () => {
    acme.keys = [second];
    await until(async () => {
      try {
        await accepted(second.sign(ofAcme()));
        return true;
      } catch (error) {
        // Until the keys are there, the bridge closes the connection and the client tries again.
        assert.match(error.message, /Invalid token|transport close/);
        return false;
      }
    }, "the new key");
    assert.match((await refused(first.sign(ofAcme()))).message, /Invalid token|transport close/);
  });

  test("keys stay while the issuer fails", async () => {
    acme.status = 503;
    acme.fetched = 0;
    // An unknown key asks for newer ones; the answer is an error.
    await until(async () => {
      await refused(keyPair("ES256", "unknown").sign(ofAcme()));
      return acme.fetched > 0;
    }, "a fetch");
    await accepted(second.sign(ofAcme()));
    acme.status = 200;
  });
});

test("a server starts while an issuer is down, and takes its tokens once it is up", async () => {
  const [issuer, key] = [new Issuer(), keyPair("ES256", "k")];
  await issuer.start();
  await issuer.stop();
  const server = await startServer(["--jwt-jwks", issuer.url]);
  await server.log("token keys cannot be fetched; those that are known stay");
  issuer.keys = [key];
  await issuer.start(undefined, issuer.port);
  const bearer = key.sign(claims({ scopes: ["notify"], tenant: "1" }));
  const args = ["notify", "messenger.v1.NewMessage", JSON.stringify({ id: 1, chatId: 7, content: "x", fromMe: true, channel: "whatsapp" })];
  const { code, stderr } = await run([...args, "--server", server.url, "--token", bearer, "--retry-for", "30s"]);
  assert.equal(code, 0, stderr);
  await server.stop();
  await issuer.stop();
});

test("places and forms that are wrong are refused with what would be right", async () => {
  const check = async (...args) => {
    const { code, stderr } = await run(["check", ...args]);
    assert.equal(code, 1);
    return stderr;
  };
  assert.match(await check("--jwt-jwks", "http://login.example.com/keys"), /https URL/);
  assert.match(await check("--jwt-trust", "https://login.example.com"), /jwks is missing/);
  assert.match(await check("--jwt-trust", "https://login.example.com;jwks=https://a/b;audiense=x"), /audiense/);
  const { code, stderr } = await run(["check", "--jwt-secret-file", "/nowhere"]);
  assert.equal(code, 2);
  assert.match(stderr, /jwt-secret-file: cannot read/);
});
