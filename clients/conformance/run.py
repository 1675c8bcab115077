#!/usr/bin/env python3
"""Runs the scenarios of clients/conformance with a client in any language, against the real server.

    run.py --client "python conformance.py" [--only WORD]… [--skip WORD]… [--jobs 4] [--list] [--figures]

The client is started anew for each run, and speaks the lines that README.md describes. perenniald and perennial are
those of target/release, or those that PERENNIALD and PERENNIAL name.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import sys
import tempfile
import time
import tomllib

import figures
import publishing  # noqa: F401 - it adds its cases
import restarts  # noqa: F401 - likewise
import trust  # noqa: F401 - likewise
from bed import CLIENTS, PAUSES, Client, Failed, Late, Server
from cases import CASES, Run

HERE = pathlib.Path(__file__).resolve().parent
# Of a scenario. A busy machine may need half a minute to start a client.
LIMIT_SECONDS = 300
# How often a scenario that came too late is run.
ATTEMPTS = 3


def scenarios():
    """Each scenario once for each kind of stream and each code."""
    for path in sorted((HERE / "scenarios").glob("*.toml")):
        for scenario in tomllib.loads(path.read_text())["scenario"]:
            for kind in scenario["kinds"]:
                for code in scenario.get("codes", [scenario.get("code")]):
                    suffix = f", code {code}" if "codes" in scenario else ""
                    yield scenario | {"kind": kind, "code": code, "title": f"{scenario['name']} ({kind}{suffix})"}


async def one(command, scenario, attempt):
    """Runs one scenario. What is wrong, or None, and whether that depends on time."""
    clients = []
    CLIENTS.set(clients)
    with tempfile.TemporaryDirectory() as directory:
        server = Server(pathlib.Path(directory), scenario.get("options", ()))
        run = Run(command, dict(scenario), server, attempt)
        fault, is_late = None, False
        try:
            if scenario.get("tls"):
                await server.secure()
            await server.start()
            await asyncio.wait_for(CASES[scenario.get("run", "read")](run), LIMIT_SECONDS)
        except Failed as error:
            fault, is_late = str(error), isinstance(error, Late)
        except asyncio.TimeoutError:
            fault = f"not done within {LIMIT_SECONDS} s; {run.progress()}"
        finally:
            await server.end()
    if fault:
        printed = b"".join(client.stderr for client in clients).decode(errors="replace").strip()[-4000:]
        fault += f"\nstderr of the client:\n{printed}" if printed else "\nthe client printed nothing to stderr"
        fault = fault.replace("\n", "\n        ")
    return fault, is_late


async def ask(command):
    async with Client(command) as client:
        client.send(do="info")
        line = await asyncio.wait_for(client.line(), LIMIT_SECONDS)
    if not line or "info" not in line:
        sys.exit(f"the client answers {line!r} to the command `info`: see clients/conformance/README.md")
    return line["info"]


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--client", help="the command that starts the client, run by a shell")
    parser.add_argument("--only", action="append", default=[], help="scenarios whose title has this text, or a part of --figures")
    parser.add_argument("--skip", action="append", default=[], help="no scenarios whose title has this text")
    parser.add_argument("--jobs", type=int, default=4, help="scenarios at a time")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--figures", action="store_true", help="measure instead; with --only, one of speed, outage and kills")
    arguments = parser.parse_args()
    chosen = [s for s in scenarios() if all(word in s["title"] for word in arguments.only)]
    chosen = [s for s in chosen if not any(word in s["title"] for word in arguments.skip)]
    if arguments.figures and not set(arguments.only) <= set(figures.PARTS):
        parser.error(f"--figures has the parts {', '.join(figures.PARTS)}")
    if arguments.list:
        print("\n".join(s["title"] for s in chosen))
        return 0
    if not arguments.client:
        parser.error("--client is needed")
    info = await ask(arguments.client)
    print(f"{info['package']} {info['version']} ({info['language']})", flush=True)
    if arguments.figures:
        return await figures.measure(arguments.client, info, arguments.only or figures.PARTS)
    places, counts, began = asyncio.Semaphore(arguments.jobs), {"ok": 0, "FAILED": 0, "skipped": 0}, time.monotonic()

    late, failed = [], []

    async def run(scenario, attempt):
        if missing := set(scenario.get("needs", ())) - set(info["can"]):
            result, fault = "skipped", f"the client cannot: {', '.join(sorted(missing))}"
        else:
            async with places:
                since = time.monotonic()
                fault, is_late = await one(arguments.client, scenario, attempt)
            result = "FAILED" if fault else "ok"
            if fault and is_late and attempt + 1 < ATTEMPTS:
                result = "late"
                late.append(scenario)
            elif fault:
                failed.append(f"FAILED  {scenario['title']}\n        {fault}")
        counts[result] = counts.get(result, 0) + 1
        took = f" {time.monotonic() - since:.1f} s" if result == "ok" else ""
        print(f"{result:7} {scenario['title']}{took}" + (f"\n        {fault}" if fault else ""), flush=True)

    # The longest first.
    def length(scenario):
        fault = scenario.get("fault", {})
        return sum((scenario.get("away", 0), scenario.get("pause", 0), fault.get("seconds", 0), 5 * (fault.get("do") == "stall")))

    chosen.sort(key=lambda s: -length(s))
    pauses = asyncio.create_task(PAUSES.watch())
    await asyncio.gather(*(run(scenario, 0) for scenario in chosen))
    # What was late only because of the others, or of something else on this machine, is not late alone.
    for attempt in range(1, ATTEMPTS):
        again, late[:] = late[:], []
        for scenario in again:
            await run(scenario, attempt)
    pauses.cancel()
    if failed:
        print("", *failed, "", sep="\n")
    print(f"{counts['skipped']} skipped, {counts.get('late', 0)} runs were late and repeated alone, in {time.monotonic() - began:.0f} s")
    print(f"{counts['ok']} passed, {counts['FAILED']} failed")
    return 1 if counts["FAILED"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
