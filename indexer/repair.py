"""Repair of a damaged version: a new version in which what can be recovered or computed anew has been."""

from __future__ import annotations

import shlex
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storage import CollectionInfo, IndexStore, Manifest, StorageError, VectorTable
from storage.files.atomic import explained
from storage.files.layout import CATALOG, CURRENT, MANIFEST, ann_name, measure, vectors_name, words_name
from storage.schema import COLLECTIONS, Collection
from storage.verify import Verification

from .ann.build_ann import approximate
from .config import BuildConfig, recorded_settings
from .errors import BuildError, RepairError
from .lexical import write_words
from .progress import Progress, SilentProgress
from .rebuild_command import rebuild_command


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What a repair did.

    Attributes:
        version: The version that was looked at.
        published: The version that was published in its place; None where there was nothing to repair.
        rebuilt: Files that were computed anew, below the folder of the version.
        recovered: Files that were copied from another version that holds the same bytes, each with its number.
        left_out: Files that did not belong to the version, and do not go into the new one.
        kept_measurements: Directions whose operating points are those of the damaged version, because the encoder
            would be needed to measure them again.
    """

    version: int
    published: int | None = None
    rebuilt: tuple[str, ...] = ()
    recovered: tuple[tuple[str, int], ...] = ()
    left_out: tuple[str, ...] = ()
    kept_measurements: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return what was done, for people."""
        if self.published is None:
            return f"version {self.version} is whole, nothing to repair"
        done = [f"{name} rebuilt from the {_source_of(name)}" for name in self.rebuilt]
        done += [f"{name} recovered from version {number}" for name, number in self.recovered]
        done += [f"{name} left out" for name in self.left_out]
        done += [f"operating points of {direction} kept as they were" for direction in self.kept_measurements]
        return f"version {self.version} repaired as version {self.published}, now current: {'; '.join(done)}"


def repair_index(path: str | Path, version: int | None = None, progress: Progress | None = None) -> RepairReport:
    """Verify a version in full and, where it is damaged, publish a repaired copy as a new version.

    The old version is not touched. A damaged file that another version of the index holds, byte for byte, is copied
    from there. An ANN file is trained again from the vectors and measured as in a build, and a lexical index is made
    again from the catalog. Everything else ends in an
    error: vectors come from the encoder, and captions, paths and pairs from the corpus.

    Args:
        path: The index.
        version: Which version; the current one by default. The repaired one becomes the current one.
        progress: Where to tell what is going on; silent by default.

    Raises:
        RepairError: The damage cannot be repaired; the message names the versions that are whole and the next step.
        StorageError: There is no such version, or another builder holds the index.
    """
    store = IndexStore.open(path)
    with store.lock():
        check = store.verify(version)
        if check.ok and check.version is not None:
            return RepairReport(version=check.version)
        if check.version is None or not check.structure:
            raise _refusal(store, check, MANIFEST if check.version is not None else CURRENT)
        manifest = store.manifest(check.version)
        return _Repair(store=store, verification=check, manifest=manifest, progress=progress or SilentProgress()).run()


@dataclass(frozen=True, kw_only=True)
class _Repair:
    """One repair, under the lock of its index."""

    store: IndexStore
    verification: Verification
    manifest: Manifest
    progress: Progress

    def run(self) -> RepairReport:
        damaged, broken = self._damaged()
        sources = {name: number for name in sorted(damaged) if (number := self._intact_copy(name)) is not None}
        rebuilt = sorted((damaged | broken) - set(sources))
        anns: dict[str, Collection] = {ann_name(name): name for name in self.manifest.collections}
        words: dict[str, Collection] = {words_name(name): name for name in self.manifest.collections}
        for name in rebuilt:
            if name not in anns and name not in words:
                raise _refusal(self.store, self.verification, name, self.manifest)
        draft = self.store.draft()
        try:
            for name in sorted(set(self.manifest.files) - set(rebuilt)):
                self._copy(name, sources.get(name, self.manifest.version), draft.path)
            if again := [words[name] for name in rebuilt if name in words]:
                write_words(draft.path, recorded_settings(self.manifest).get("words_columns", ()), self.progress, again)
            fresh = {anns[name]: self._rebuild(anns[name], draft.path) for name in rebuilt if name in anns}
            report = RepairReport(
                version=self.manifest.version,
                published=draft.number,
                rebuilt=tuple(rebuilt),
                recovered=tuple(sorted(sources.items())),
                left_out=self._unexpected_files(),
                kept_measurements=tuple(name for kept, _ in fresh.values() for name in kept),
            )
            infos = {**self.manifest.collections, **{name: info for name, (_, info) in fresh.items()}}
            self.store.publish(
                draft,
                encoder=self.manifest.encoder,
                collections=infos,
                counts=self.manifest.counts,
                encoding=self.manifest.encoding,
                corpus=self.manifest.corpus,
                calibrations=self.manifest.calibrations,
                rounding=self.manifest.rounding,
                build={**self.manifest.build, "repair": _provenance(report)},
            )
        except BaseException:
            draft.discard()
            raise
        return report

    def _damaged(self) -> tuple[set[str], set[str]]:
        """Names of the files that are not as published, and of those that are and break a rule all the same."""
        prefix = self.store.version_path(self.manifest.version).relative_to(self.store.path)
        files = {Path(check.name).relative_to(prefix).as_posix() for check in self.verification.files if check.problem}
        broken = {check.file for check in self.verification.structure if check.problem}
        return files & set(self.manifest.files), broken

    def _unexpected_files(self) -> tuple[str, ...]:
        return tuple(check.name for check in self.verification.files if check.checksum == "unasked")

    def _intact_copy(self, name: str) -> int | None:
        """Return another version that holds the very bytes this file had; None where there is none."""
        entry = self.manifest.files[name]
        for number in reversed(self.store.versions()):
            if number == self.manifest.version:
                continue
            try:
                known = self.store.manifest(number).files.get(name)
                if known == entry and measure(self.store.version_path(number), name) == entry:
                    return number
            except StorageError:
                continue  # a damaged version is no source
        return None

    def _copy(self, name: str, number: int, folder: Path) -> None:
        target = folder / name
        with explained("copy", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.store.version_path(number) / name, target, follow_symlinks=False)
        if measure(folder, name) != self.manifest.files[name]:
            raise BuildError(f"{name} of version {number} changed while it was copied; check the disk and repair again")

    def _rebuild(self, collection: Collection, folder: Path) -> tuple[tuple[str, ...], CollectionInfo]:
        """Return the directions whose measurements were kept, and the collection's new description."""
        before = self.manifest.collections[collection]
        with ExitStack() as stack:
            tables = {
                name: stack.enter_context(VectorTable.open(folder / vectors_name(name)))
                for name in self.manifest.collections
            }
            config = self._config(collection)
            info = approximate(folder, collection, tables, config, self.progress, None)
        kept = {name: tuning for name, tuning in before.tuning.items() if name not in info.tuning}
        return tuple(kept), replace(info, tuning={**kept, **info.tuning})

    def _config(self, collection: Collection) -> BuildConfig:
        """What the version was built with; the kind is that of the file, also where `auto` had chosen it."""
        plan = self.manifest.collections[collection].ann
        return BuildConfig(**{**recorded_settings(self.manifest), "ann": plan.kind, "seed": plan.seed})


def _source_of(name: str) -> str:
    return "catalog" if name in map(words_name, COLLECTIONS) else "vectors"


def _provenance(report: RepairReport) -> dict[str, Any]:
    return {"of": report.version, "rebuilt": report.rebuilt, "recovered": dict(report.recovered)}


def _refusal(store: IndexStore, check: Verification, name: str, manifest: Manifest | None = None) -> RepairError:
    """Return the one line that says what cannot be repaired, why, and what to do."""
    if name == CATALOG:
        reason = "the captions, paths and pairs that it held come from the corpus alone"
    elif name in (MANIFEST, CURRENT):
        reason = "nothing else says what the version held"
    else:
        reason = "vectors come from the encoder alone"
    whole = [number for number in store.versions() if number != check.version and store.verify(number).ok]
    rollback = shlex.join(["twinlens", "rollback", str(store.path), "--to", str(whole[-1])]) if whole else ""
    again = (
        rebuild_command(manifest, store.path)
        if manifest
        else f"build-index CORPUS --out {shlex.quote(str(store.path))}"
    )
    back = f"go back with `{rollback}`, or " if whole else ""
    return RepairError(
        f"{name} cannot be repaired: {_problem(check, name)}, and {reason}; whole versions: "
        f"{', '.join(map(str, whole)) or 'none'}; {back}build again with `{again}`"
    )


def _problem(check: Verification, name: str) -> str:
    """The problem of this file, without the next step that it names."""
    problems = [file.problem for file in check.files if file.problem and file.name.endswith(name)]
    problems += [rule.problem for rule in check.structure if rule.problem and rule.file == name]
    return (problems or check.problems)[0].rsplit(";", 1)[0]
