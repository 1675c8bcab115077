#!/usr/bin/env python3
"""Runs the scenarios of clients/conformance with a client in any language, against the real server.

    run.py --client "python conformance.py" [--only WORD]… [--jobs 4] [--list] [--figures]

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
from bed import Client, Failed, Server
from cases import CASES, Run

HERE = pathlib.Path(__file__).resolve().parent
LIMIT_SECONDS = 90


def scenarios():
    """Each scenario once for each kind of stream and each code."""
    for path in sorted((HERE / "scenarios").glob("*.toml")):
        for scenario in tomllib.loads(path.read_text())["scenario"]:
            for kind in scenario["kinds"]:
                for code in scenario.get("codes", [scenario.get("code")]):
                    suffix = f", code {code}" if "codes" in scenario else ""
                    yield scenario | {"kind": kind, "code": code, "title": f"{scenario['name']} ({kind}{suffix})"}


async def one(command, scenario):
    """Runs one scenario. What is wrong, or None."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(pathlib.Path(directory), scenario.get("options", ()))
        run = Run(command, scenario, server)
        try:
            await server.start()
            await asyncio.wait_for(CASES[scenario.get("run", "read")](run), LIMIT_SECONDS)
        except Failed as error:
            return str(error)
        except asyncio.TimeoutError:
            return f"not done within {LIMIT_SECONDS} s; {run.progress()}"
        finally:
            await server.end()
    return None


async def ask(command):
    async with Client(command) as client:
        client.send(do="info")
        line = await asyncio.wait_for(client.line(), 60)
    if not line or "info" not in line:
        sys.exit(f"the client answers {line!r} to the command `info`: see clients/conformance/README.md")
    return line["info"]


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--client", help="the command that starts the client, run by a shell")
    parser.add_argument("--only", action="append", default=[], help="scenarios whose title has this text")
    parser.add_argument("--skip", action="append", default=[], help="no scenarios whose title has this text")
    parser.add_argument("--jobs", type=int, default=4, help="scenarios at a time")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--figures", action="store_true", help="measure instead: speed, and a million lines through 20 kills")
    arguments = parser.parse_args()
    chosen = [s for s in scenarios() if all(word in s["title"] for word in arguments.only)]
    chosen = [s for s in chosen if not any(word in s["title"] for word in arguments.skip)]
    if arguments.list:
        print("\n".join(s["title"] for s in chosen))
        return 0
    if not arguments.client:
        parser.error("--client is needed")
    info = await ask(arguments.client)
    print(f"{info['package']} {info['version']} ({info['language']})", flush=True)
    if arguments.figures:
        return await figures.measure(arguments.client, info)
    places, counts, began = asyncio.Semaphore(arguments.jobs), {"ok": 0, "FAILED": 0, "skipped": 0}, time.monotonic()

    async def run(scenario):
        if missing := set(scenario.get("needs", ())) - set(info["can"]):
            result, fault = "skipped", f"the client cannot: {', '.join(sorted(missing))}"
        else:
            async with places:
                since = time.monotonic()
                fault = await one(arguments.client, scenario)
                result = "FAILED" if fault else "ok"
        counts[result] += 1
        took = f" {time.monotonic() - since:.1f} s" if result == "ok" else ""
        print(f"{result:7} {scenario['title']}{took}" + (f"\n        {fault}" if fault else ""), flush=True)

    # The longest first.
    chosen.sort(key=lambda s: -s.get("away", 0) - s.get("pause", 0) - 5 * (s.get("fault", {}).get("do") == "stall"))
    await asyncio.gather(*(run(scenario) for scenario in chosen))
    print(f"{counts['skipped']} skipped, in {time.monotonic() - began:.0f} s")
    print(f"{counts['ok']} passed, {counts['FAILED']} failed")
    return 1 if counts["FAILED"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
