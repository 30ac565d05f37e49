"""Steps over a folder of tiny images that is built, updated and watched, with an encoder that really encodes."""

from __future__ import annotations

import random
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from colour import COLOURS, ColourEncoder, paint

from indexer import BuildError, build_index
from indexer.progress import SilentProgress
from indexer.report import BuildReport
from indexer.watch import watch
from storage.errors import CorruptIndexError

from .disk import Fault
from .expected import Content, Half
from .promise import expect
from .world import World

MOST_IMAGES = 8
SETTLED = 0.3
ENCODER = ColourEncoder()


def photos(world: World) -> Path:
    """The folder of images."""
    return world.folder / "photos"


def edit(world: World, chance: random.Random) -> None:
    """Add, change, remove, move or copy an image, write its captions anew, or leave one that cannot be read."""
    folder, files = photos(world), _images(world)
    kind = chance.choice(("add", "add", "change", "remove", "move", "copy", "caption", "break"))
    if not files or (kind in ("add", "copy", "break") and len(files) < MOST_IMAGES):
        target = _new_name(world, chance)
        if kind == "copy" and files:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(chance.choice(files).read_bytes())
        elif kind == "break" and files:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"no image " + chance.randbytes(8))
        else:
            paint(target, chance.choice(sorted(COLOURS)), (12, 9), chance.randrange(1000))
        return
    path = chance.choice(files)
    if kind == "move":
        target = _new_name(world, chance)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    elif kind == "caption":
        lines = [f"a {chance.choice(sorted(COLOURS))} square {chance.randrange(9)}" for _ in range(chance.randrange(3))]
        path.with_suffix(".txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    elif kind == "remove" and len(files) > 1:
        path.unlink()
    else:
        paint(path, chance.choice(sorted(COLOURS)), (12, 9), chance.randrange(1000))
    for text in folder.rglob("*.txt"):
        if not text.with_suffix(".png").exists():
            text.unlink()


def _images(world: World) -> list[Path]:
    return sorted(photos(world).rglob("*.png"))


def _new_name(world: World, chance: random.Random) -> Path:
    taken = {path.name for path in _images(world)}
    free = [name for name in (f"{number:02}.png" for number in range(30)) if name not in taken]
    return photos(world) / chance.choice(("a", "b", "c/d")) / chance.choice(free)


def expected(world: World) -> Content:
    """What an index of the folder must hold."""
    images, texts, pairs, rejected = [], [], [], 0
    for path in sorted(_images(world), key=lambda one: one.relative_to(photos(world)).as_posix()):
        name, data = path.relative_to(photos(world)).as_posix(), path.read_bytes()
        captions = path.with_suffix(".txt")
        lines = captions.read_text("utf-8").splitlines() if captions.exists() else []
        whole = not data.startswith(b"no image")
        for number, line in enumerate(lines):
            if whole:
                pairs.append((len(images), len(texts)))
            texts.append((f"{name}#{number}", line, ENCODER.encode_texts([line])[0]))
        if whole:
            first = lines[0] if lines else None
            images.append((name, first, ENCODER.encode_images([path])[0], sha256(data).hexdigest()))
        rejected += not whole
    halves = {}
    if images:
        halves["images"] = _half([one[:3] for one in images], [one[3] for one in images])
    if texts:
        halves["texts"] = _half(texts, [sha256(one[1].encode()).hexdigest() for one in texts])
    corpus = {one[0]: one[3] for one in images}
    return Content(halves=halves, pairs=frozenset(pairs), rejected=rejected, words=True, corpus=corpus)


def _half(rows: list[tuple[str, str | None, np.ndarray]], hashes: list[str]) -> Half:
    return Half(
        ids=tuple(row[0] for row in rows),
        captions=tuple(row[1] for row in rows),
        vectors=np.stack([row[2] for row in rows]).astype(np.float16),
        hashes=tuple(hashes),
    )


def has_images(world: World) -> bool:
    """Whether there is something to build from."""
    return any(not path.read_bytes().startswith(b"no image") for path in _images(world))


def build(world: World, chance: random.Random) -> None:
    """Build the folder, or update the current version by it, perhaps disturbed; the next one is built upon that."""
    update = chance.random() < 0.7
    fault = world.disk.fault(chance) if chance.random() < 0.4 else None
    known = world.versions.get(world.current or 0)
    if world.pointer == "damaged":
        world.refused((CorruptIndexError,), lambda: _build(world, update=update), "a build over a damaged CURRENT")
        return
    if update and (known is None or known.content.corpus is None) and not (known and known.damaged):
        world.refused((BuildError,), lambda: _build(world, update=True), "an update of no corpus")
        return
    if update and known is not None and known.damaged:
        return
    _built(world, fault, update=update)


def _built(world: World, fault: Fault | None, *, update: bool) -> None:
    content, parent, reports = expected(world), world.current, list[BuildReport]()
    known = world.versions.get(parent or 0)
    # What an update keeps; otherwise one byte a value now and then.
    in_one_byte = bool(known.content.lost) if update and known else len(content.corpus or ()) % 3 == 0
    content = content.in_one_byte() if in_one_byte else content
    chosen: dict[str, Any] = {} if update else {"vector_dtype": "int8" if in_one_byte else "float16"}
    ended = world.attempt(lambda: reports.append(_build(world, update=update, **chosen)), fault)
    if reports and not reports[0].published:
        same = known is not None and known.content.corpus == content.corpus
        expect(same, True, "nothing was published, so nothing has changed")
        expect(world.store.versions(), sorted(world.versions), "the versions when nothing has changed")
        return
    number = world.after_publishing(ended, content, parent)
    if update and number is not None and known is not None:
        changes = world.store.manifest(number).build["changes"]["images"]
        wanted = _changes(known.content.corpus or {}, content.corpus or {})
        expect({name: changes[name] for name in wanted}, wanted, f"changes of version {number}")


def _build(world: World, *, update: bool, **chosen: Any) -> BuildReport:
    settings = {"update": update, "allow_shrink": True, "decode_workers": 1, "batch_size": 4, **chosen}
    return build_index(photos(world), world.path, encoder=ENCODER, **settings)


def _changes(old: dict[str, str], new: dict[str, str]) -> dict[str, int]:
    """How many images were added, changed, moved, removed and kept."""
    gone = [old[name] for name in old if name not in new]
    come = [new[name] for name in new if name not in old]
    moved = sum(min(gone.count(one), come.count(one)) for one in set(gone))
    kept = sum(new.get(name) == digest for name, digest in old.items())
    return {
        "added": len(come) - moved,
        "changed": len(old.keys() & new.keys()) - kept,
        "moved": moved,
        "removed": len(gone) - moved,
        "kept": kept,
    }


class _Waiting(SilentProgress):
    """Says when the first update is done and changes are waited for."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def note(self, message: str) -> None:
        if message.startswith("watching"):
            self.begun.set()


def watch_burst(world: World, chance: random.Random) -> None:
    """Watch the folder while a burst of changes comes: once it has settled there is one version with all of it."""
    if world.pointer == "damaged":
        return
    _built(world, None, update=False)
    in_one_byte = bool(world.versions[world.current or 0].content.lost)
    waiting, stop, took, published = _Waiting(), threading.Event(), list[float](), list[int]()

    def burst() -> None:
        waiting.begun.wait(60)
        started = time.perf_counter()
        for _ in range(chance.randrange(1, 5)):
            edit(world, chance)
        paint(_new_name(world, chance), "red", (12, 9), chance.randrange(1000))
        took.append(time.perf_counter() - started)

    threads = [threading.Thread(target=burst), threading.Timer(60, stop.set)]
    for thread in threads:
        thread.start()
    updates = watch(photos(world), world.path, lambda: _build(world, update=True), waiting, settled=SETTLED, stop=stop)
    for report in updates:
        published.append(report.version)
        threads.append(threading.Timer(2 * SETTLED, stop.set))
        threads[-1].start()
    threads[1].cancel()  # type: ignore[attr-defined]
    for thread in threads:
        thread.join()
    expect(len(published) == 1 or took[0] > SETTLED / 2, True, f"one version of one burst, published {published}")
    parent = world.store.manifest(published[-1]).parent
    content = expected(world)
    world.adopt(published[-1], content.in_one_byte() if in_one_byte else content, parent)
    world.current, world.pointer, world.changed = published[-1], "good", True
    if len(published) > 1:  # a burst that took longer than a change takes to settle
        world.store.vacuum(1)
        world.staged.clear()
        world.forget(set(world.versions) - set(world.store.versions()))
