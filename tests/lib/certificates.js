// Certificates for tests, made by openssl.

import { execFileSync } from "node:child_process";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const openssl = (...args) => execFileSync("openssl", args, { stdio: ["ignore", "pipe", "pipe"] });
const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/** An authority with a folder of its own, which ends with the test process. */
export class Authority {
  constructor() {
    this.folder = mkdtempSync(path.join(tmpdir(), "fanfare-tls-"));
    process.on("exit", () => rmSync(this.folder, { recursive: true, force: true }));
    this.ca = this.path("ca.pem");
    this.key = this.path("ca.key");
    openssl("req", "-x509", ...KEY, "-days", "2", "-subj", "/CN=authority", "-addext", "basicConstraints=critical,CA:true", "-keyout", this.key, "-out", this.ca);
  }

  path(name) {
    return path.join(this.folder, name);
  }

  /** A certificate with these names, e.g. "IP:127.0.0.1"; returns the paths of it and its key. */
  issue(name, names) {
    const [cert, key, request, extensions] = ["pem", "key", "csr", "ext"].map((end) => this.path(`${name}.${end}`));
    openssl("req", ...KEY, "-subj", `/CN=${name}`, "-keyout", key, "-out", request);
    writeFileSync(extensions, `subjectAltName=${names.join(",")}\nbasicConstraints=critical,CA:false\n`);
    openssl("x509", "-req", "-in", request, "-CA", this.ca, "-CAkey", this.key, "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", cert);
    return { cert, key };
  }

  /** Of a listener on loopback. */
  listener(name) {
    return this.issue(name, ["IP:127.0.0.1", "DNS:localhost"]);
  }

  /** Puts another pair in the place of one, as a renewal does. */
  replace(old, next) {
    renameSync(next.key, old.key);
    renameSync(next.cert, old.cert);
  }
}
