"""The scenarios of clients that end, are killed, and continue from what they saved."""

from __future__ import annotations

import asyncio
import json

from bed import Client, Failed, Late
from cases import CASES, text_of

# A store that is written to once for each item may fall one item behind.
IN_HAND = 1


async def kill_with_states(run):
    """Each client is killed after some items; the next continues from the state that the last line had."""
    await run.prepare()
    options = {} if run.get("batches") else {"max_batch": 1}
    run.scenario["request"] = run.get("request", {}) | options
    state, kills = None, run.get("kills", run.items - 1)
    step = max(1, run.items // (kills + 1))
    for n in range(kills + 1):
        async with Client(run.command) as client:
            given = {"state": state} if state else {}
            count = step - (n % 2 if run.get("batches") else 0)
            limit = {} if n == kills else {"credit": count}
            run.stream(client, run.server.address, states=True, **limit, **given)
            got = 0
            async for line in client.lines():
                run.take(line)
                if "item" in line:
                    got += 1
                    state = line.get("state") or state
                    if not line.get("state"):
                        raise Failed(f"no state with {line}")
                if n < kills and got == count or run.kind == "countdown" and run.seen[-1:] == ["0"]:
                    break
        if run.kind == "countdown" and run.seen[-1:] == ["0"]:
            break
    run.check_items()


async def kill_with_store(run):
    """Each client is killed with an item in hand. Only that item may come again."""
    await run.prepare()
    run.scenario["request"] = {"max_batch": 3}
    store = str(run.server.directory / "state")
    done = 0
    for _ in range(3 * run.items):
        async with Client(run.command) as client:
            run.stream(client, run.server.address, store=store, credit=2)
            mine = []
            async for line in client.lines():
                if "item" in line:
                    mine.append(text_of(line["item"]))
                if len(mine) == 2 or line.get("end") == "ok":
                    break
        if not mine:
            break
        start = run.expected.index(mine[0])
        if start > done or start < done - IN_HAND:
            raise Failed(f"it continued with item {start}, and {done} were handed out; the last may come again")
        if mine != run.expected[start : start + len(mine)]:
            raise Failed(f"not in order: {mine}")
        done = start + len(mine)
        if line.get("end") == "ok":
            break
    if done != len(run.expected):
        raise Failed(f"{done} of {len(run.expected)} items")


async def stop_with_store(run):
    """Each client is stopped while it waits for the next item of a live stream: no item comes again."""
    run.is_live = True
    await run.prepare()
    store = str(run.server.directory / "state")
    run.scenario["request"] = {"limit": "1000"}
    count, begun = run.items // 2, 0
    for part in range(3):
        async with Client(run.command) as client:
            run.stream(client, run.server.address, store=store, save_every=run.get("save_every", 0))
            target = min(len(run.expected), count + part * 3)
            async for line in client.lines():
                run.take(line)
                if "item" in line and len(run.seen) == target:
                    # Time to ask for the next one, which makes this one done.
                    await asyncio.sleep(0.2 * run.scale)
                    client.send(do="stop")
        run.check_end("stopped")
        if begun and run.seen[begun : begun + 1] == run.seen[begun - 1 : begun]:
            raise Late(f"the item {run.seen[begun]!r} came again: it was not done when the client was stopped")
        run.check_items(run.expected[:target])
        begun = target
        await run.write(target, min(target + 3, run.items))


async def limit_with_state(run):
    """A limit that begins within a response, on a stream that has no end of its own."""
    run.is_live = True
    await run.prepare()
    await run.write(len(run.expected) // 2, len(run.expected))
    run.scenario["request"] = {"limit": "1000"}
    async with Client(run.command) as client:
        run.stream(client, run.server.address, states=True, credit=4)
        state = None
        async for line in client.lines():
            run.take(line)
            state = line.get("state") or state
            if len(run.seen) == 4:
                break
    store = run.server.directory / "state"
    store.write_text(state)
    for _ in range(2):
        run.scenario["request"] = {"limit": "3", "heartbeat": "0.3s"}
        async with Client(run.command) as client:
            run.stream(client, run.server.address, store=str(store))
            await asyncio.wait_for(run.read_all(client), 100)
        run.check_end()
    run.check_items(run.expected[:10])


async def slow_first_item(run):
    """A caller that takes longer for its first item than an outage may last."""
    await run.prepare()
    run.scenario["request"] = {"max_batch": 1}
    async with Client(run.command) as client:
        run.stream(client, run.server.address, states=True, max_outage=1.0 * run.scale, credit=1)
        async for line in client.lines():
            run.take(line)
            if len(run.seen) == 1 and "item" in line:
                await asyncio.sleep(2 * run.scale)
                client.send(do="more", items=1000)
    if run.end == "error":
        raise Late(f"the wait counted as an outage, or a response took {run.scale} s: {run.error}")
    run.check_end()
    run.check_items()


async def late_lines(run):
    """Lines are written to a file that was rotated away, after a client has read lines of the file after it."""
    current, rotated = run.server.logs / "a.log", run.server.logs / "a.log.1"
    old, new, late = ([f"{name} {n}" for n in range(count)] for name, count in (("old", 10), ("new", 5), ("late", 3)))

    def write(path, texts):
        with path.open("a") as file:
            file.writelines(f"{text}\n" for text in texts)

    async def read(count, state):
        """The state after so many items."""
        async with Client(run.command) as client:
            run.stream(client, run.server.address, states=True, credit=count, **({"state": state} if state else {}))
            target = len(run.seen) + count
            async for line in client.lines():
                run.take(line)
                state = line.get("state") or state
                if len(run.seen) == target:
                    return state
        raise Failed(f"it ended after {run.seen}: {run.error}")

    run.scenario["request"] = {"follow": True}
    write(current, old)
    state = await read(5, None)
    current.rename(rotated)
    write(current, new)
    state = await read(7, state)
    write(rotated, late)
    state = await read(len(late), state)
    await read(3, state)
    run.check_items(old + new[:2] + late + new[2:])


async def bad_states(run):
    """Empty, damaged and foreign states."""
    await run.prepare()
    store = run.server.directory / "state"
    foreign = json.dumps({"version": 1, "kind": "messages", "cursor": "x"})
    newer = json.dumps({"version": 99, "kind": "lines", "cursor": "x"})
    for text in ("", "{", '{"version":1}', foreign, newer):
        store.write_text(text)
        async with Client(run.command) as client:
            run.stream(client, run.server.address, store=str(store))
            await run.read_all(client)
        run.check_end("error")
        run.check_error({"kind": "state"})
        if run.seen:
            raise Failed(f"the state {text!r} was taken for none")


async def consumer(run):
    """A consumer that commits each message is killed."""
    await run.prepare()
    run.scenario["request"] = {"max_batch": 1, "consumer": "c"}
    for _ in range(3):
        async with Client(run.command) as client:
            run.stream(client, run.server.address, consumer_commit=True, credit=4)
            got = 0
            async for line in client.lines():
                run.take(line)
                got += "item" in line
                if "item" in line and got == 4:
                    # The commit comes after the item, and this answer after the commit.
                    client.send(do="commit")
                if "committed" in line:
                    break
    run.check_items()


async def commit_every(run):
    """A consumer that commits by itself is killed and stopped. What it committed does not come again, and the rest does."""
    run.is_live = True
    await run.prepare()
    run.scenario["request"] = {"max_batch": 1, "consumer": "c", "limit": "1000"}

    async def read(count, every, end):
        """Reads until this number of messages was handed out, and ends. The texts."""
        texts = []
        async with Client(run.command) as client:
            run.stream(client, run.server.address, commit_every=every, credit=count)
            async for line in client.lines():
                if "error" in line:
                    raise Failed(f"it ended: {line}")
                texts += [text_of(line["item"])] if "item" in line else []
                if "item" in line and len(texts) == count:
                    # The last message is in hand, so it is not done. This is the time to commit those before it.
                    await asyncio.sleep(0.5 * run.scale)
                    if end == "kill":
                        return texts
                    client.send(do="stop")
        return texts

    done = 0

    async def check(count, every, end, least, most):
        """The consumer begins with an item from `least` to `most`."""
        nonlocal done
        texts = await read(count, every, end)
        start = run.expected.index(texts[0])
        if texts != run.expected[start : start + len(texts)]:
            raise Failed(f"not in order: {texts}")
        if not least <= start <= most:
            kind = Late if start == 0 else Failed
            raise kind(f"it began with item {start}, not with one from {least} to {most}")
        done = start + len(texts) - IN_HAND
        return start

    half = run.items // 2

    async def write():
        for n in range(half, run.items):
            await run.write(n, n + 1)
            await asyncio.sleep(0.05)

    writing = asyncio.create_task(write())
    # It commits while it reads.
    await check(half + 10, 0.1, "kill", 0, 0)
    await writing
    # Not more often than it should, so this one commits nothing before it is killed,
    committed = await check(5, 3600.0, "kill", 1, done)
    await check(5, 3600.0, "stop", committed, committed)
    # and this one at its end. Where a stop is noticed in the head of the loop, the message in hand is done.
    await check(1, 3600.0, "kill", done, done + IN_HAND)


async def taken_over(run):
    run.is_live = True
    await run.prepare()
    run.scenario["request"] = {"consumer": "c", "limit": "1000"}
    async with Client(run.command) as first, Client(run.command) as second:
        run.stream(first, run.server.address)
        await first.line()
        run.stream(second, run.server.address)
        await run.read_all(first)
    run.check_end("error")
    run.check_error({"code": "ABORTED", "reason": "CONSUMER_TAKEN_OVER", "retryable": False})


CASES |= {
    function.__name__: function
    for function in (
        kill_with_states, kill_with_store, stop_with_store, limit_with_state, slow_first_item, late_lines, bad_states,
        consumer, commit_every, taken_over,
    )
}  # fmt: skip
