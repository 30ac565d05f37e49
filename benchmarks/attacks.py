"""The server under attack: whether it lives, answers others in time, stays within its memory, and ends when it is told.

The server is the command `serve` in a process of its own, in a memory cgroup where one can be made. Each attack is
sent by many clients at once, over and over, for some seconds; meanwhile a witness asks what anybody asks, over a new
connection each time. Then the server is ended by SIGTERM while the attacks go on.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
from PIL import Image
from record import HOME, Figure, need_data, record

LIMIT = 2 * 1024**3
SERVE = "from twinlens.commands.serve import serve; from twinlens.console import run; run(serve)"
BOMB = "bomb.jpg"
# The witness counts what takes longer as not answered.
PATIENCE = 20.0


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What one kind of attacker sends.

    Attributes:
        name: For the table.
        sent: Whole requests, sent in turn, each over a connection of its own.
        clients: Attackers at once.
        drip: Whether to send a byte a second in place of all at once.
        holds: Whether to keep the connection open and silent, once all is sent, until the server closes it.
    """

    name: str
    sent: Sequence[bytes]
    clients: int = 8
    drip: bool = False
    holds: bool = False


@dataclass
class Seen:
    """What came back: how many answers of each status, `lost` for connections that ended without one."""

    statuses: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, status: str, seconds: float) -> None:
        """Count an answer."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.seconds.append(seconds)

    def __str__(self) -> str:
        return ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items())) or "none"


def request(path: str, body: bytes | None = None, kind: str = "application/json", *more: str) -> bytes:
    """Return a request over a connection of its own."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: localhost", "Connection: close", *more]
    if body is not None:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def filter_request(where: str, *more: str) -> bytes:
    """Return a search with a filter."""
    return request(f"/search?item={quote(BOMB)}&k=1&where={quote(where)}", None, "", *more)


def scans_jpeg(scans: int, side: int = 7000) -> bytes:
    """Return a progressive JPEG of many empty scans: a few bytes each, and each walks over all pixels."""
    stream = io.BytesIO()
    Image.new("L", (16, 16), 128).save(stream, "JPEG", progressive=True)
    data = bytearray(stream.getvalue())
    at = data.index(b"\xff\xc2")
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    scan = b"\xff\xda\x00\x08\x01\x01\x10\x01\x3f\x00" + b"\x00"
    return bytes(data[: data.rindex(b"\xff\xd9")]) + scan * scans + b"\xff\xd9"


def multipart(data: bytes) -> bytes:
    """Return a form with an image, as the page sends it."""
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    return head + data + b"\r\n--x--\r\n"


def filters() -> list[str]:
    """Return filters that cost without end where nothing bounds them."""
    long = 12_000  # the longest address that the server reads has 64 KiB
    edits = f"damerau_levenshtein('{'a' * 2 * long}','{'b' * 2 * long}') > 1"
    nested = "json_extract('" + "[" * 6_000 + "'||item_id||'" + "]" * 6_000 + "','$..*') IS NOT NULL"
    return [edits, nested, "item_id" + ".a" * long + " = 1", "(" * 9_000 + "1=1" + ")" * 9_000]


def attacks(scans: int = 2_000, megabytes: int = 16) -> list[Attack]:
    """Return all kinds of attack."""
    bomb = scans_jpeg(scans)
    cross = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image")
    junk = bytes(megabytes * 1_000_000)
    head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    chunk = b"%x\r\n" % len(junk) + junk + b"\r\n"
    lists = b'{"vector": [' + b"[]," * (megabytes * 320_000) + b"[]]}"
    return [
        *(Attack(name=f"filter {number}", sent=[filter_request(one)]) for number, one in enumerate(filters(), start=1)),
        Attack(name="filters from another site", sent=[filter_request(one, *cross) for one in filters()]),
        Attack(name="JPEG of many scans as query", sent=[request("/search", bomb, "image/jpeg")]),
        Attack(
            name="JPEG of many scans on the page",
            sent=[request("/", multipart(bomb), "multipart/form-data; boundary=x")],
        ),
        Attack(name="JPEG of many scans as item", sent=[request(f"/thumbnails?id={BOMB}&size=large")]),
        Attack(name="headers byte by byte", sent=[b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "], clients=600, drip=True),
        Attack(
            name="bodies byte by byte",
            sent=[head + b"Content-Length: 900\r\n\r\n", head + b"Transfer-Encoding: chunked\r\n\r\n"],
            clients=100,
            drip=True,
        ),
        Attack(name="large bodies", sent=[request("/search", junk, "image/png")], clients=32),
        Attack(name="endless bodies", sent=[head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 4], clients=32),
        Attack(name="bodies announced", sent=[head + b"Content-Length: 99999999999\r\n\r\n" + junk], clients=32),
        Attack(
            name="JSON nested, JSON of many lists",
            sent=[
                request("/search", b"[" * len(junk)),
                request("/search", lists[:4_000_000]),
                request("/search", lists),
            ],
            clients=16,
        ),
        Attack(
            name="forms of junk, of many fields",
            sent=[
                request("/", junk, "multipart/form-data; boundary=x"),
                request("/", b"--x\r\n" * (len(junk) // 5), "multipart/form-data; boundary=x"),
                request("/search", multipart(b"\r\n--" * (len(junk) // 4)), "multipart/form-data; boundary=x"),
            ],
            clients=16,
        ),
        Attack(name="connections that are only held", sent=[b""], clients=2_000, holds=True),
        Attack(
            name="long addresses and headers",
            sent=[
                request("/search?" + "&" * 60_000),
                request("/?q=" + "%20" * 20_000),
                request("/", None, "", "X: " + "y" * 60_000),
            ],
            clients=16,
        ),
    ]


def probes(item: str = "0.jpg", dim: int = 384) -> list[bytes]:
    """Return what anybody asks."""
    vector = np.random.default_rng(0).standard_normal(dim).round(3).tolist()
    return [
        request("/healthz"),
        request("/search?text=a+dog&k=5"),
        request("/search", json.dumps({"vector": vector, "k": 5}).encode()),
        request(f"/?item={quote(item)}"),
        request(f"/thumbnails?id={quote(item)}"),
    ]


async def exchange(port: int, sent: bytes, *, drip: bool = False, holds: bool = False) -> str:
    """Send one request over a new connection, and return the status of its answer, `lost` for none."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writing = asyncio.create_task(_send(writer, sent, drip=drip))
        try:
            got = await reader.read(-1 if not (drip or holds) else 1_000)
        finally:
            writing.cancel()
        return got[9:12].decode("ascii") if got.startswith(b"HTTP/1.1 ") else "lost"
    except (OSError, asyncio.IncompleteReadError):
        return "lost"
    finally:
        if writer is not None:
            writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, sent: bytes, *, drip: bool) -> None:
    with suppress(OSError):
        writer.write(sent)
        await writer.drain()
        while drip:
            await asyncio.sleep(1)
            writer.write(b"x")


async def attacker(port: int, attack: Attack, seen: Seen) -> None:
    """Send the attack's requests for ever."""
    turn = 0
    while True:
        turn += 1
        started = time.perf_counter()
        status = await exchange(port, attack.sent[turn % len(attack.sent)], drip=attack.drip, holds=attack.holds)
        seen.add(status, time.perf_counter() - started)
        if status == "lost":
            await asyncio.sleep(0.05)


async def witness(port: int, asked: Sequence[bytes], seconds: float, seen: Seen) -> None:
    """Ask in turn for so long."""
    end = time.perf_counter() + seconds
    turn = 0
    while time.perf_counter() < end:
        turn += 1
        started = time.perf_counter()
        try:
            status = await asyncio.wait_for(exchange(port, asked[turn % len(asked)]), PATIENCE)
        except TimeoutError:
            status = "too late"
        seen.add(status, time.perf_counter() - started)
        await asyncio.sleep(0.05)


def crowd(port: int, kinds: Sequence[Attack], pipe: Connection) -> None:
    """Attack until told to stop, and send what the attackers saw: in a process of its own, apart from the witness."""

    async def play() -> Seen:
        seen = Seen()
        tasks = [asyncio.create_task(attacker(port, attack, seen)) for attack in kinds for _ in range(attack.clients)]
        pipe.send("begun")
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return seen

    pipe.send(asyncio.run(play()))


@contextmanager
def attacking(port: int, kinds: Sequence[Attack]) -> Iterator[Seen]:
    """Attack for the length of a block; after it, what the attackers saw is there."""
    seen = Seen()
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=crowd, args=(port, kinds, theirs), daemon=True)
    process.start()
    ours.recv()
    try:
        yield seen
        ours.send("stop")
        found: Seen = ours.recv()
        seen.statuses, seen.seconds = found.statuses, found.seconds
    finally:
        process.kill()
        process.join()


def under(port: int, attack: Attack, asked: Sequence[bytes], seconds: float) -> tuple[Seen, Seen]:
    """Attack for so long, and return what the attackers and the witness saw."""
    others = Seen()
    with attacking(port, [attack]) as attacked:
        time.sleep(0.2)
        asyncio.run(witness(port, asked, seconds, others))
    return attacked, others


class Memory:
    """The memory of a process and its children: of its cgroup where there is one, else what is resident."""

    def __init__(self, pid: int, group: Path | None) -> None:
        self._pid = pid
        self._group = group
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def taken(self) -> int:
        """Return the peak since the last call, in bytes."""
        peak, self.peak = self.peak, 0
        return peak

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            with suppress(OSError, ValueError):
                self.peak = max(self.peak, self._used())

    def _used(self) -> int:
        if self._group is not None:
            lines = (self._group / "memory.stat").read_text("ascii").splitlines()
            known = dict(line.split() for line in lines)
            # Files in the page cache go when memory is wanted.
            return int(known.get("total_rss", known.get("anon", 0)))
        return sum(_resident(pid) for pid in [self._pid, *_children(self._pid)])


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def memory_group(limit: int) -> Iterator[Path | None]:
    """Make a cgroup with so many bytes, swap included; None where this system lets nobody make one."""
    made: Path | None = None
    for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        if not (Path(root) / "cgroup.procs").exists():
            continue
        folder = Path(root) / f"twinlens-attacks-{os.getpid()}"
        try:
            folder.mkdir()
            (folder / name).write_text(str(limit), "ascii")
            made = folder
            break
        except OSError:
            with suppress(OSError):
                folder.rmdir()
    if made is not None:
        for name, value in (("memory.memsw.limit_in_bytes", limit), ("memory.swap.max", 0)):
            with suppress(OSError):
                (made / name).write_text(str(value), "ascii")
    try:
        yield made
    finally:
        if made is not None:
            with suppress(OSError):
                made.rmdir()


def started(index: Path, group: Path | None, *options: object, code: str = SERVE) -> tuple[subprocess.Popen[str], int]:
    """Start the server, in a cgroup, and return its process and port."""
    command = [sys.executable, "-c", code, str(index), "--port", "0", "--output", "json", *map(str, options)]
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'test -z "$0" || echo $$ > "$0/cgroup.procs"; exec "$@"', str(group or ""), *command],
        cwd=HOME,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = ""
    while not said.endswith("\n}\n"):
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            sys.exit(f"the server did not start: exit code {process.wait()}")
        said += line
    return process, int(urlsplit(json.loads(said)["url"]).port or 0)


def ended(process: subprocess.Popen[str], port: int, kinds: Sequence[Attack], wait: float) -> tuple[float, int]:
    """End the server by SIGTERM under all these attacks, and return the seconds it took and its exit code."""
    with attacking(port, kinds):
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        begun = time.perf_counter()
        while process.poll() is None and time.perf_counter() - begun < wait:
            time.sleep(0.02)
        seconds = time.perf_counter() - begun
    if process.poll() is None:
        process.kill()
    return seconds, process.wait()


def build(work: Path, count: int = 300) -> Path:
    """Return an index of photographs, in which a hostile file has taken the place of one since."""
    index, folder = work / "attacked.index", work / "photos"
    if not index.exists():
        from indexer import build_index

        folder.mkdir(parents=True, exist_ok=True)
        paths = sorted((need_data() / "flickr8k" / "images").iterdir())[:count]
        for number, path in enumerate(paths):
            (folder / (BOMB if number == 1 else f"{number}.jpg")).write_bytes(path.read_bytes())
        build_index(folder, index, encoder="lite")
    (folder / BOMB).write_bytes(scans_jpeg(2_000))
    return index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HOME / "benchmarks" / "work" / "attacks")
    parser.add_argument("--seconds", type=float, default=12.0, help="Of each attack.")
    parser.add_argument("--attack", default="", help="Only those with this in their names; nothing is recorded then.")
    parser.add_argument("--grace", type=float, default=15.0, help="Of the server.")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    index = build(arguments.work)
    figures: list[Figure] = []
    with memory_group(LIMIT) as group:
        process, port = started(index, group, "--grace", arguments.grace)
        memory = Memory(process.pid, group)
        try:
            settle(port)
            kinds = [attack for attack in attacks() if arguments.attack in attack.name]
            figures += measured(process, port, memory, kinds, arguments.seconds)
            chosen = [one for one in kinds if one.clients <= 16]
            seconds, code = ended(process, port, chosen, arguments.grace + 30)
        finally:
            process.kill()
        memory.close()
    figures.append(
        Figure(
            "from SIGTERM under attack to the end", f"{seconds:.1f}; exit code {code}", f"<= {arguments.grace:g}", "s"
        )
    )
    where = f"a memory cgroup of {LIMIT // 1024**2} MiB" if group else "no cgroup: resident memory was measured"
    notes = (
        f"`serve` with `lite` on 300 photographs, in {where}; {arguments.seconds:g} s an attack, the attackers on the "
        "same cores. Others: a witness that asks health, a text, a vector, an item's page and a thumbnail in turn, "
        "each over a new connection."
    )
    if arguments.attack:
        print(figures[-1].name, "|", figures[-1].measured)
    else:
        record("server_attacks", figures, notes)


def measured(
    process: subprocess.Popen[str], port: int, memory: Memory, kinds: Sequence[Attack], seconds: float
) -> list[Figure]:
    """Return what happened under each attack, one after the other."""
    asked = probes()
    quiet = Attack(name="none", sent=[b""], clients=0)
    figures: list[Figure] = []
    for attack in [quiet, *kinds]:
        attacked, others = under(port, attack, asked, seconds)
        peak = memory.taken() / 1024**2
        if process.poll() is not None:
            figures.append(Figure(f"{attack.name}: the server", f"died, {process.returncode}", "alive"))
            return figures
        shown = f"{np.percentile(others.seconds, 50):.2f} / {max(others.seconds):.1f}"
        figures += [
            Figure(f"{attack.name}: others", f"{others}; p50 / longest {shown} s", "all 200"),
            Figure(f"{attack.name}: attackers", f"{attacked}; memory {peak:.0f} MiB", f"< {LIMIT // 1024**2} MiB"),
        ]
        for figure in figures[-2:]:
            print(figure.name, "|", figure.measured, flush=True)
        settle(port)
    return figures


def settle(port: int, seconds: float = 180.0) -> None:
    """Wait until texts can be encoded, and what an attack left behind is worked off."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answers = [asyncio.run(exchange(port, one)) for one in (request("/readyz"), request("/search?text=a+dog&k=5"))]
        if answers == ["200", "200"]:
            return
        time.sleep(0.2)


if __name__ == "__main__":
    main()
