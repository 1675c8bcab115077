#!/usr/bin/env python3
"""Compares the processor time of a filter of lines with that of `rg` and `grep` for the same file.

    benches/filter.py [MEGABYTES]

One line in 1,000 matches. Each row is the fastest of three runs, by the CPU time of the server or of the peer; the client
of the server is `perennial`, whose time is not counted. The file is in the page cache. It needs target/release/perenniald
and perennial, and rg.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "target/release"
RUNS = 3
TICKS = os.sysconf("SC_CLK_TCK")

# The searches: options of `perennial lines`, of rg, and of grep.
SEARCHES = [
    ("`ERROR`", ["--grep", "ERROR"], ["ERROR"], ["-F", "ERROR"]),
    ("`error`, any case", ["-i", "--grep", "error"], ["-i", "error"], ["-i", "error"]),
    ("`ERROR\\|WARN\\|FATAL`", ["--grep", "ERROR|WARN|FATAL"], ["ERROR|WARN|FATAL"], ["-E", "ERROR|WARN|FATAL"]),
    ("`^\\S+ request=\\d+ ERROR`", ["--grep", r"^\S+ request=\d+ ERROR"], [r"^\S+ request=\d+ ERROR"],
     ["-P", r"^\S+ request=\d+ ERROR"]),
    ("all but `INFO`", ["--exclude", "INFO"], ["-v", "INFO"], ["-v", "INFO"]),
]


def write(path, size):
    block = "".join(
        f"2026-11-23T03:36:{n % 60:02}.{n % 997:03}Z request={n:08} {'ERROR' if n % 1000 == 7 else 'INFO '} "
        f"GET /orders/{n * 7919 % 100000} 200 took {n % 83} ms user=u{n % 51}\n"
        for n in range(100_000)
    ).encode()
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block)


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_of_children():
    times = os.times()
    return times.children_user + times.children_system


def best(run, cpu):
    """The fastest of some runs: its CPU time, its time, and how many lines it printed."""
    runs = []
    for _ in range(RUNS):
        before, start = cpu(), time.monotonic()
        printed = subprocess.run(run, stdout=subprocess.PIPE, check=False).stdout
        runs.append((cpu() - before, time.monotonic() - start, printed.count(b"\n")))
    return min(runs)


def main():
    size = int(sys.argv[1] if len(sys.argv) > 1 else 1000) * 1_000_000
    with tempfile.TemporaryDirectory() as directory:
        log = pathlib.Path(directory) / "logs/app.log"
        log.parent.mkdir()
        write(log, size)
        command = [PROGRAMS / "perenniald", "--listen", "127.0.0.1:0", "--data", f"{directory}/data"]
        command += ["--root", f"logs={log.parent}", "--log", "error"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            found = (re.match(r"perenniald: listening on (http://.*)", line) for line in server.stderr)
            address = next(match[1] for match in found if match)
            print("| pattern | search | lines | CPU | GB/s of CPU | seconds |\n|---|---|---|---|---|---|")
            for name, ours, rg, grep in SEARCHES:
                lines = [PROGRAMS / "perennial", "--server", address, "lines", "logs/app.log", *ours]
                for program, run, cpu in [
                    ("perenniald", lines, lambda: cpu_of(server.pid)),
                    ("rg -n", ["rg", "-n", *rg, log], cpu_of_children),
                    ("rg -n --no-mmap", ["rg", "-n", "--no-mmap", *rg, log], cpu_of_children),
                    ("grep -n", ["grep", "-n", *grep, log], cpu_of_children),
                ]:
                    used, seconds, count = best(run, cpu)
                    speed = log.stat().st_size / max(used, 1 / TICKS) / 1e9
                    print(f"| {name} | {program} | {count} | {used:.2f} s | {speed:.2f} | {seconds:.2f} |", flush=True)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
