import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

import { PerennialError } from "../dist/node.js";
import { append, collect, failure, withServer } from "./harness.js";

const openssl = (...options) => promisify(execFile)("openssl", options);
const NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1";

/** An authority, and a certificate of it for the server and for a client. */
async function certificates(directory, name) {
  const file = (kind) => path.join(directory, `${name}-${kind}`);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await openssl("req", "-x509", ...key, "-subj", "/CN=an authority", "-keyout", file("ca.key"), "-out", file("ca.pem"));
  for (const kind of ["server", "client"]) {
    await writeFile(file("ext"), `${NAMES}\nextendedKeyUsage=${kind}Auth\n`);
    await openssl("req", ...key, "-subj", `/CN=${kind}`, "-keyout", file(`${kind}.key`), "-out", file("csr"));
    await openssl("x509", "-req", "-in", file("csr"), "-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial",
      "-extfile", file("ext"), "-out", file(`${kind}.pem`));
  }
  return file;
}

test("TLS needs trust on both sides", { timeout: 60_000 }, async () => {
  const directory = await mkdtemp(path.join(tmpdir(), "perennial-tls-"));
  try {
    const [ours, theirs] = [await certificates(directory, "ours"), await certificates(directory, "theirs")];
    const options = ["--tls-cert", ours("server.pem"), "--tls-key", ours("server.key"), "--tls-client-ca", ours("ca.pem")];
    await withServer(options, async ({ server, client }) => {
      await append(server.path("a.log"), 0, 3);
      const shown = { certFile: ours("client.pem"), keyFile: ours("client.key") };
      const read = (more) =>
        client(`https://127.0.0.1:${server.port}`, more).readLines({ path: "logs/a.log" }, { connectTimeoutMs: 5_000 });
      assert.equal((await collect(read({ caFile: ours("ca.pem"), ...shown }))).length, 3);
      const untrusted = await failure(read({ caFile: theirs("ca.pem"), ...shown }));
      assert.ok(untrusted instanceof PerennialError && !untrusted.isRetryable, `${untrusted}`);
      assert.ok((await failure(read({ caFile: ours("ca.pem") }))) instanceof PerennialError);
    })();
  } finally {
    await rm(directory, { recursive: true });
  }
});
