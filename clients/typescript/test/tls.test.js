import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
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

/** A test with a server that requires certificates of the first of two authorities, and what a client needs to read its log. */
function withTls(run) {
  return async () => {
    const directory = await mkdtemp(path.join(tmpdir(), "perennial-tls-"));
    try {
      const [ours, theirs] = [await certificates(directory, "ours"), await certificates(directory, "theirs")];
      const options = ["--tls-cert", ours("server.pem"), "--tls-key", ours("server.key"), "--tls-client-ca", ours("ca.pem")];
      const shown = { certFile: ours("client.pem"), keyFile: ours("client.key") };
      await withServer(options, async ({ server, client }) => {
        await append(server.path("a.log"), 0, 3);
        const read = (more, request = {}) =>
          client(`https://127.0.0.1:${server.port}`, more).readLines({ path: "logs/a.log", ...request }, { connectTimeoutMs: 30_000 });
        await run({ server, read, ours, theirs, shown });
      })();
    } finally {
      await rm(directory, { recursive: true });
    }
  };
}

const LIMIT = { timeout: 60_000 };

test("TLS needs trust on both sides", LIMIT, withTls(async ({ read, ours, theirs, shown }) => {
  assert.equal((await collect(read({ caFile: ours("ca.pem"), ...shown }))).length, 3);
  const untrusted = await failure(read({ caFile: theirs("ca.pem"), ...shown }));
  assert.ok(untrusted instanceof PerennialError && !untrusted.isRetryable, `${untrusted}`);
  assert.ok((await failure(read({ caFile: ours("ca.pem") }))) instanceof PerennialError);
}));

test("files that were renewed are used by the next connection", LIMIT, withTls(async ({ server, read, ours, theirs, shown }) => {
  const stream = read({ caFile: ours("ca.pem"), ...shown }, { follow: true });
  for (let n = 0; n < 3; n += 1) await stream.next();
  await server.kill();
  for (const kind of ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"]) await copyFile(theirs(kind), ours(kind));
  await server.start();
  await append(server.path("a.log"), 3, 4);
  assert.match((await stream.next()).value.content.value, /^line 3 /);
  await stream.return();
}));

for (const [what, spoil] of [
  ["is missing", (file) => rm(file)],
  ["is empty", (file) => writeFile(file, "")],
  ["is of another certificate", (file, other) => copyFile(other, file)],
]) {
  test(`a file of the credentials that ${what} at a reconnect ends the stream`, LIMIT, withTls(async ({ server, read, ours, theirs, shown }) => {
    const stream = read({ caFile: ours("ca.pem"), ...shown }, { follow: true });
    for (let n = 0; n < 3; n += 1) await stream.next();
    await spoil(ours("client.key"), theirs("client.key"));
    await server.restart();
    const error = await failure(stream);
    assert.ok(error instanceof PerennialError && !error.isRetryable, `${error}`);
  }));
}
