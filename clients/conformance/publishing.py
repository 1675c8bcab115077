"""The scenarios of publishers."""

from __future__ import annotations

import asyncio

from bed import Client, Failed, Late, Watch
from cases import CASES, CONNECT_SECONDS, disturb


def check_receipts(run, receipts):
    if [r["n"] for r in receipts] != list(range(run.items)):
        raise Failed(f"{len(receipts)} receipts, not in order: {[r['n'] for r in receipts][:20]}")
    sequences = [int(r["sequence"]) for r in receipts if "sequence" in r]
    if sequences != sorted(set(sequences)):
        raise Failed("the sequences of the receipts do not rise")


async def publish(run):
    run.expected = [f"message {n}" for n in range(run.items)]
    receipts = []
    async with run.proxy() as proxy, Client(run.command) as client:
        run.send(
            client, proxy.address, do="publish", topic="t", count=run.items, first=0, prefix="message ",
            connect_timeout=run.get("connect_timeout", CONNECT_SECONDS),
        )  # fmt: skip
        beside = asyncio.create_task(disturb(run))
        async for line in client.lines():
            run.take(line)
            if "receipt" in line:
                receipts.append(line["receipt"])
                run.seen.append(None)
        run.is_over = True
        if run.get("connect_timeout") and run.end == "error" and not any("sequence" in r for r in receipts):
            raise Late(f"no server accepted the client in time: {run.error}")
        await beside
    run.check_end()
    check_receipts(run, receipts)
    if errors := [r for r in receipts if "error" in r]:
        raise Failed(f"{len(errors)} messages were refused: {errors[0]}")
    run.seen = await run.server.published("t")
    run.check_items()
    if proxy.faults < run.get("least_faults", 0):
        raise Failed(f"only {proxy.faults} faults happened: the scenario shows nothing")


async def publish_refused(run):
    receipts = []
    async with Client(run.command) as client:
        run.send(
            client, run.server.address, do="publish", topic="a b", count=run.items, first=0, prefix="m ",
            connect_timeout=CONNECT_SECONDS,
        )  # fmt: skip
        async for line in client.lines():
            run.take(line)
            receipts += [line["receipt"]] if "receipt" in line else []
    check_receipts(run, receipts)
    for receipt in receipts:
        run.error = receipt.get("error")
        run.check_error({"code": "INVALID_ARGUMENT", "reason": "INVALID_FIELD", "field": "topic"})


async def publish_too_late(run):
    """Messages that were sent wait for longer than the server knows ids, which would store them again."""
    receipts, pad = [], 40
    async with run.proxy() as proxy, Client(run.command) as client:
        # The client gives up 40 s before the end of the window, for what may still be on its way.
        run.send(
            client, proxy.address, do="publish", topic="t", count=run.items, first=0, prefix="m ",
            dedupe_window=pad + run.get("sends_again_for", 1.0), connect_timeout=CONNECT_SECONDS,
        )  # fmt: skip
        async for line in client.lines():
            run.take(line)
            receipts += [line["receipt"]] if "receipt" in line else []
    if [r["n"] for r in receipts] != list(range(run.items)):
        raise Failed(f"the receipts: {receipts[:3]}")
    unknown = {r["n"] for r in receipts if r.get("error", {}).get("kind") == "outcome_unknown"}
    if failed := [r for r in receipts if "error" in r and r["n"] not in unknown]:
        raise Failed(f"another error: {failed[0]}")
    texts = await run.server.published("t")
    if len(texts) != len(set(texts)):
        raise Failed("a message was published twice")
    if not unknown:
        # A client that is slow sends nothing of what waits before it loses its first connection.
        raise Late(f"no receipt says that the outcome is unknown: {receipts[:3]}")
    wanted = {f"m {n}" for n in range(run.items) if n not in unknown}
    if not wanted:
        raise Failed("no message came after those whose outcome is unknown")
    if missing := wanted - set(texts):
        raise Failed(f"{len(missing)} messages have a receipt and are not there")
    if proxy.faults < run.get("least_faults", 0):
        raise Late(f"only {proxy.faults} faults happened: nothing was sent again early enough")


async def publish_unreached(run):
    """A publisher that never reaches its server ends as a stream does; one that has reached it waits."""
    await run.server.end()
    async with Client(run.command) as client:
        since = Watch()
        run.send(
            client, run.server.address, do="publish", topic="t", count=run.items, first=0, prefix="m ",
            connect_timeout=1.0,
        )  # fmt: skip
        receipts = []
        async for line in client.lines():
            run.take(line)
            receipts += [line["receipt"]] if "receipt" in line else []
        since.check(6 * run.scale, "the end")
    run.check_end("error")
    run.check_error({"code": "UNAVAILABLE"})
    for receipt in receipts:
        run.error = receipt.get("error")
        run.check_error({"code": "UNAVAILABLE"})


CASES |= {function.__name__: function for function in (publish, publish_refused, publish_too_late, publish_unreached)}
