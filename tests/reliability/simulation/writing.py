"""Steps that write: publish, update, roll back, vacuum, repair, stage, each perhaps disturbed by a fault."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from filter_fuzz import KINDS

from indexer import BuildError
from indexer.lexical import write_words
from indexer.progress import SilentProgress
from indexer.repair import repair_index
from storage import AnnPlan, CollectionInfo, EncoderInfo, IndexStore
from storage.catalog import IMAGE_COLUMNS, PAIR_COLUMNS, REJECTED_COLUMNS, TEXT_COLUMNS, write_catalog
from storage.errors import CorruptIndexError, IncompatibleIndexError, IndexLockedError, IndexNotFoundError
from storage.faiss_file import write_ann
from storage.files import atomic
from storage.publish import Draft
from storage.schema import Counts, Rounding, VectorDType
from storage.vectors import VectorWriter

from .disk import Fault, unsynced
from .expected import Content, Half, changed, made_up
from .promise import expect
from .world import MANIFEST, World

FACTORY = "HNSW32_SQfp16"
FINGERPRINT = "f" * 64


def write(store: IndexStore, content: Content) -> None:
    """Publish a content."""
    with store.lock():
        draft = store.draft()
        _fill(draft, content)
        images, texts = content.rows("images"), content.rows("texts")
        store.publish(
            draft,
            encoder=EncoderInfo(spec="test", dim=content.dim, fingerprint=FINGERPRINT),
            collections={
                name: CollectionInfo(rows=len(half), ann=_plan(content.kinds[name]))
                for name, half in content.halves.items()
            },
            counts=Counts(
                items=images + texts + content.rejected,
                indexed=images + texts,
                rejected=content.rejected,
                images=images,
                texts=texts,
                pairs=len(content.pairs),
            ),
            build={},
            rounding={name: Rounding.of(lost) for name, lost in content.lost.items()},
        )


def _plan(kind: Any) -> AnnPlan:
    return AnnPlan(kind=kind, factory=FACTORY if kind == "hnsw" else "")


def _fill(draft: Draft, content: Content) -> None:
    for name, half in content.halves.items():
        with atomic.explained("make", draft.path / name):
            (draft.path / name).mkdir()
        dtype: VectorDType = "int8" if content.lost else "float16"
        with VectorWriter(draft.path / name / "vectors.arrow", content.dim, batch_rows=8, dtype=dtype) as writer:
            writer.append(half.ids, half.vectors)
        if content.kinds[name] == "hnsw":
            index = faiss.index_factory(content.dim, FACTORY, faiss.METRIC_INNER_PRODUCT)
            index.train(half.vectors.astype(np.float32))
            index.add(half.vectors.astype(np.float32))
            write_ann(index, draft.path / name / "ann.faiss")
    write_catalog(draft.path / "catalog.duckdb", **_tables(content))
    if content.words:
        write_words(draft.path, (), SilentProgress())
    for name, data in content.towers.items():
        with atomic.explained("write", draft.path / name):
            (draft.path / name).parent.mkdir(exist_ok=True)
            (draft.path / name).write_bytes(data)
    if content.towers:
        with atomic.explained("write", draft.path / "text_tower"):
            (draft.path / "text_tower" / "tower.json").write_text(f'{{"fingerprint":"{FINGERPRINT}"}}', "ascii")


def _tables(content: Content) -> dict[str, pa.Table]:
    rejected = [f"rejected-{number}" for number in range(content.rejected)]
    pairs = sorted(content.pairs)
    return {
        "images": _table(content.halves["images"], IMAGE_COLUMNS),
        "texts": _table(content.halves.get("texts"), TEXT_COLUMNS),
        "pairs": pa.table(
            {
                name: pa.array([pair[side] for pair in pairs], kind)
                for side, (name, kind) in enumerate(PAIR_COLUMNS.items())
            }
        ),
        "rejected": pa.table({name: pa.array(rejected, kind) for name, kind in REJECTED_COLUMNS.items()}),
    }


def _table(half: Half | None, kinds: Mapping[str, pa.DataType]) -> pa.Table:
    rows = 0 if half is None else len(half)
    columns = {name: pa.nulls(rows, kind) for name, kind in kinds.items()}
    if half is None:
        return pa.table(columns)
    columns |= {"row_id": pa.array(range(rows), pa.int64()), "item_id": pa.array(half.ids, pa.string())}
    columns |= {"uri": columns["item_id"], "caption": pa.array(half.captions, pa.string())}
    columns["sha256"] = pa.array(half.hashes, pa.string())
    if half.facts:
        columns |= {name: pa.array([one[name] for one in half.facts], kind) for name, kind in KINDS.items()}
    return pa.table(columns)


# --- steps


def publish(world: World, chance: random.Random) -> None:
    """Publish a new content, or one that is near to that of the current version."""
    _publish(world, chance, None)


def publish_disturbed(world: World, chance: random.Random) -> None:
    """The same with a fault in it; then what it left is built upon."""
    _publish(world, chance, world.disk.fault(chance))


def _publish(world: World, chance: random.Random, fault: Fault | None) -> None:
    content = next_content(world, chance)
    if world.pointer == "damaged":
        told = world.refused((CorruptIndexError,), lambda: write(world.store, content), "publishing")
        expect("CURRENT" in told, True, f"CURRENT is named in {told}")
        return
    parent, record = world.current, fault is None and world.disk.has_shim and chance.random() < 0.5
    if record:
        with world.disk.recorded() as calls:
            ended = world.attempt(lambda: write(world.store, content))
        expect(unsynced(calls), [], "what was not durable when CURRENT named it")
    else:
        ended = world.attempt(lambda: write(world.store, content), fault)
    world.after_publishing(ended, content, parent)


def next_content(world: World, chance: random.Random) -> Content:
    """What is published next: something new, or what is near to the current version."""
    known = world.versions.get(world.current or 0)
    if known is not None and known.content.corpus is None and chance.random() < 0.6:
        return changed(chance, known.content)
    return made_up(chance)


def abandon(world: World, chance: random.Random) -> None:
    """Write a draft and leave it, as a process that dies before it publishes."""
    if world.pointer != "damaged":
        with world.store.lock():
            _fill(world.store.draft(), made_up(chance))
        world.changed = True


def second_builder(world: World, chance: random.Random) -> None:
    """Another builder while the lock is held is told of it."""
    with world.store.lock():
        told = world.refused((IndexLockedError,), IndexStore.open(world.path).vacuum, "a second builder")
    expect("is being built by process" in told, True, told)


def roll_back(world: World, chance: random.Random) -> None:
    """Make any version current again; a damaged one is refused."""
    number = chance.choice([*world.versions, max(world.versions) + 7])
    fault = world.disk.fault(chance) if chance.random() < 0.4 else None
    if number not in world.versions:
        world.refused((IndexNotFoundError,), lambda: world.store.rollback(number), "a version that is not there")
    elif world.versions[number].damaged:
        kinds = (CorruptIndexError, IncompatibleIndexError)
        world.refused(kinds, lambda: world.store.rollback(number), f"a rollback to damaged version {number}")
    else:
        before = world.current if world.pointer == "good" else None
        ended = world.attempt(lambda: world.store.rollback(number), fault)
        named = world.named()
        expect(named in (number, before), True, f"CURRENT names {named}, {number} or {before}")
        if ended.done:
            expect(named, number, "the version that was rolled back to")
        if named == number:
            world.current, world.pointer = number, "good"


def vacuum(world: World, chance: random.Random) -> None:
    """Remove old versions; a kill leaves each of them whole or gone."""
    keep = chance.randrange(1, 4)
    fault = world.disk.fault(chance) if chance.random() < 0.4 else None
    if world.pointer == "damaged":
        world.refused((CorruptIndexError,), lambda: world.store.vacuum(keep), "a vacuum without CURRENT")
        return
    kept = {world.current, *sorted(world.versions)[-keep:]}
    ended = world.attempt(lambda: world.store.vacuum(keep), fault)
    gone = set(world.versions) - set(world.store.versions())
    expect(gone <= set(world.versions) - kept, True, f"{gone} were removed, {kept} had to stay")
    if ended.done:
        expect(gone, set(world.versions) - kept, "the versions that were removed")
        left = [path.name for path in (world.path / "versions").iterdir() if path.name.startswith(".")]
        expect(left, [], "leftovers after a vacuum")
        expect(list((world.path / "staging").glob("*")), [], "staging after a vacuum")
    world.staged = {key: data for key, data in world.staged.items() if _is_staged(world, *key)}
    world.forget(gone)


def _is_staged(world: World, build: str, shard: int) -> bool:
    return world.store.is_staged(build) and world.store.staging(build).has(shard)


def repair(world: World, chance: random.Random) -> None:
    """Repair any version: from other versions, or computed anew, or refused."""
    number = chance.choice(sorted(world.versions))
    known = world.versions[number]
    fault = world.disk.fault(chance) if chance.random() < 0.3 else None
    if world.pointer == "damaged":
        return
    if known.damaged and not _repairable(world, number):
        world.refused((BuildError,), lambda: repair_index(world.path, number), f"a repair of {sorted(known.damaged)}")
        return
    parent = world.current
    ended = world.attempt(lambda: repair_index(world.path, number), fault)
    if not known.damaged:
        expect(set(world.store.versions()), set(world.versions), "a whole version needs no repair")
        return
    world.after_publishing(ended, known.content, parent)


def _repairable(world: World, number: int) -> bool:
    known = world.versions[number]
    if MANIFEST in known.damaged:
        return False
    for name in known.damaged:
        twins = [
            other
            for place, other in world.versions.items()
            if place != number
            and MANIFEST not in other.damaged
            and other.hashes.get(name) == known.hashes.get(name)
            and name not in other.damaged
        ]
        computed = name.endswith(("ann.faiss", "words.safetensors")) or name not in known.hashes
        if not twins and not computed:
            return False
    return True


def stage(world: World, chance: random.Random) -> None:
    """Write, read and damage shards of a build that is under way."""
    staging = world.store.staging(f"build-{chance.randrange(2)}")
    shard, values = chance.randrange(3), chance.randbytes(chance.randrange(1, 40))
    key = (staging.path.name, shard)
    known = world.staged.get(key)
    expect(staging.has(shard), known is not None, f"shard {key} is finished")
    if known is not None:
        expect(bytes(staging.read(shard).column("x").to_pylist()), known, f"shard {key}")
    fault = world.disk.fault(chance) if chance.random() < 0.5 else None
    table = pa.table({"x": pa.array(list(values), pa.uint8())})
    ended = world.attempt(lambda: staging.write(shard, table), fault)
    found = bytes(staging.read(shard).column("x").to_pylist()) if staging.has(shard) else None
    expect(found in (known, values), True, f"shard {key} is the old one or the new one")
    expect(found == values or not ended.done, True, f"shard {key} was written")
    world.staged.pop(key, None)
    if found is not None and chance.random() < 0.8:
        world.staged[key] = found
    elif found is not None:
        path: Path = staging.path / f"{shard:08d}.arrow"
        path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])
        expect(staging.has(shard), False, f"shard {key}, cut short, is finished")
