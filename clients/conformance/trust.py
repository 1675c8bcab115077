"""The scenarios of tokens that are revoked, and of clients and servers that do not trust each other."""

from __future__ import annotations

import re

from authority import Authority
from bed import NAMES, Client, Failed, Late, Watch
from cases import CASES

# The server notices a change of its files, and ends the streams; the client reports it.
END_SECONDS = 10
# A library may try again by itself before it reports that a handshake failed.
MOST_CONNECTIONS = 3
# An error that a user can act on has one of these words.
CLEAR = re.compile(r"certificate|cert\b|verif|tls|ssl|handshake|trust|issuer|peer name", re.IGNORECASE)


async def revoked(run):
    """The token of a stream is revoked. The stream ends for good, and another client continues with another token."""
    run.is_live = True
    await run.prepare()
    half, state, since = run.items // 2, None, None
    if run.kind == "countdown":
        # Its numbers do not wait for the server.
        half, run.scenario["request"] = 5, {"interval": f"{0.2 * run.scale:g}s"}
    async with Client(run.command) as client:
        run.stream(client, run.server.address, states=True)
        async for line in client.lines():
            run.take(line)
            state = line.get("state") or state
            if "item" in line and since is None and len(run.seen) == half:
                await run.server.tokens("revoke", "kit")
                run.server.reload()
                since = Watch()
        if run.seen[-1:] == ["0"]:
            raise Late("the countdown ended before the server knew that the token was revoked")
        run.check_end("error")
        run.check_error({"code": "UNAUTHENTICATED", "reason": "CREDENTIALS_REVOKED", "retryable": False})
        since.check(END_SECONDS * run.scale, "the end of a stream whose token was revoked")
    # The end of the stream counts as well.
    refusals = await run.server.metric('perennial_access_credentials_refused_total{reason="REVOKED"}')
    if refusals != 1:
        raise Failed(f"the server refused the revoked token {refusals} times: expected once, at the end of the stream")
    run.error = run.end = None
    run.server.credentials["token"] = await run.server.new_token()
    await run.server.restart()
    await run.write(half, run.items)
    async with Client(run.command) as client:
        run.stream(client, run.server.address, state=state)
        async for line in client.lines():
            run.take(line)
            if len(run.seen) == run.items or run.seen[-1:] == ["0"]:
                break
    run.check_items()


async def unknown_token(run):
    await run.prepare()
    run.server.credentials["token"] = "perennial_" + 64 * "0"
    async with Client(run.command) as client:
        run.stream(client, run.server.address)
        await run.read_all(client)
    run.check_end("error")
    run.check_error({"code": "UNAUTHENTICATED", "reason": "CREDENTIALS_INVALID", "retryable": False})


async def distrust(run):
    """The client or the server does not trust the other one: an error at once, which says so, and no second attempt."""
    await run.prepare()
    theirs = Authority(run.server.directory / "theirs")
    for name in ("server", "client"):
        theirs.sign(name, NAMES)
    credentials = run.server.credentials
    match run.get("distrust"):
        case "authority":
            credentials["ca"] = str(theirs / "ca.pem")
        case "certificate":
            credentials |= {"cert": str(theirs / "client.pem"), "key": str(theirs / "client.key")}
        case "no certificate":
            del credentials["cert"], credentials["key"]
        case "name":
            run.server.authority.sign("server", "DNS:elsewhere.example")
            await run.server.restart()
    async with run.proxy() as proxy, Client(run.command) as client:
        since = Watch()
        run.stream(client, proxy.address)
        await run.read_all(client)
        since.check(END_SECONDS * run.scale, "the end of a client that is not trusted")
        check_distrust(run, proxy)
    if run.seen:
        raise Failed(f"it handed out {run.seen[:3]}")


async def distrust_later(run):
    """The server comes back with a certificate of an authority that the client does not trust."""
    run.is_live = True
    await run.prepare()
    theirs = Authority(run.server.directory / "theirs")
    theirs.sign("server", NAMES)
    async with run.proxy() as proxy, Client(run.command) as client:
        run.stream(client, proxy.address)
        since = None
        async for line in client.lines():
            run.take(line)
            if since is None and len(run.seen) == run.items // 2:
                await run.server.end()
                for kind in ("pem", "key"):
                    (theirs / f"server.{kind}").replace(run.server.directory / f"ours/server.{kind}")
                await run.server.start()
                connections, since = proxy.connections, Watch()
        since.check(END_SECONDS * run.scale, "the end of a stream whose server is not trusted any more")
        check_distrust(run, proxy, connections)


def check_distrust(run, proxy, before=0):
    run.check_end("error")
    run.check_error({"retryable": False})
    if not CLEAR.search(run.error["message"]):
        raise Failed(f"the error does not say that one side does not trust the other: {run.error}")
    if proxy.connections - before > MOST_CONNECTIONS:
        raise Failed(f"{proxy.connections - before} connections of a client that is not trusted")


CASES |= {function.__name__: function for function in (revoked, unknown_token, distrust, distrust_later)}
