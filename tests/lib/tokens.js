// Tokens, right and wrong, signed without any of Fanfare's own code.

import { createHmac, generateKeyPairSync, sign as signWith } from "node:crypto";
import { SECRET } from "./fanfare.js";

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
export const soon = (seconds = 3600) => Math.floor(Date.now() / 1000) + seconds;

/** A token with exactly these claims. */
export function token(claims, { secret = SECRET, alg = "HS256", header = {} } = {}) {
  const body = `${encode({ alg, typ: "JWT", ...header })}.${encode(claims)}`;
  if (alg === "none") return `${body}.`;
  const hash = { HS256: "sha256", HS384: "sha384", HS512: "sha512" }[alg];
  return `${body}.${createHmac(hash, secret).update(body).digest("base64url")}`;
}

/** A user of an organization, with the messenger's claims. */
export const user = (userId, organizationId, more = {}) => token({ userId, organizationId, exp: soon(), ...more });
/** A producer for one tenant, or `*`. */
export const producer = (tenant = "*", more = {}) =>
  token({ sub: "producer", tenant, scopes: ["notify", "subscribe"], exp: soon(), ...more });

const KINDS = {
  RS256: ["rsa", { modulusLength: 2048 }, (body, key) => signWith("sha256", body, key)],
  ES256: ["ec", { namedCurve: "P-256" }, (body, key) => signWith("sha256", body, { key, dsaEncoding: "ieee-p1363" })],
  EdDSA: ["ed25519", {}, (body, key) => signWith(null, body, key)],
};

/** A key pair of an asymmetric algorithm: its PEM, its JWK, and how it signs claims. */
export function keyPair(alg, kid) {
  const [kind, options, sign] = KINDS[alg];
  const { publicKey, privateKey } = generateKeyPairSync(kind, options);
  return {
    pem: publicKey.export({ type: "spki", format: "pem" }),
    jwk: { ...publicKey.export({ format: "jwk" }), kid, alg },
    sign(claims) {
      const body = `${encode({ alg, typ: "JWT", kid })}.${encode(claims)}`;
      return `${body}.${sign(Buffer.from(body), privateKey).toString("base64url")}`;
    },
  };
}
