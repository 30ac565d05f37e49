"""`build_index`, from a corpus to a published version: plan, encode, merge, index, measure, publish."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from encoders import Encoder
from encoders.base import backend_of
from encoders.catalogue import resolve_preset
from encoders.load import DEFAULT_ENCODER, family_of
from storage import CollectionInfo, IndexStore, IndexVersion, Manifest, StorageError, VectorTable
from storage.arguments import check_arguments
from storage.errors import CorruptIndexError, IncompatibleIndexError, check_keywords
from storage.files.canonical_json import to_plain
from storage.files.layout import CATALOG
from storage.hit_calibration import Calibrations
from storage.schema import COLLECTIONS, LATER_COLUMNS, Collection, CorpusInfo, Counts, EncodingInfo
from storage.staging import Staging

from .ann.build_ann import EncodeTexts, build_approximate, carried_over, say_memory
from .config import BuildConfig, options_json, recorded_config, recorded_options
from .corpus import EmbeddingSource, Source, SourceOptions, open_source
from .corpus.embeddings.clip_retrieval import is_clip_retrieval, open_clip_retrieval
from .corpus.item import LAYOUTS, is_utf8, printable
from .corpus.remote.mirror import path_here
from .corpus.remote.url import is_remote
from .encode.build_encoder import (
    Computed,
    ComputedElsewhereError,
    DeferredEncoder,
    computed,
    deferred,
    load,
    query_encoder,
)
from .encode.known_films import films_report
from .encode.known_items import IMAGE_COLUMNS_KEY, columns_to_fill
from .encode.pipeline import Executor, LocalExecutor, RejectionLimit, ShardEncoder
from .encode.reuse import NoReuse, VersionReuse
from .encode.shards import Corpus, build_fingerprint, cut, read_from, survey
from .errors import BuildError
from .fit_calibrations import fit_calibrations, kept_calibrations
from .lexical import check_columns, write_words
from .merge import EmbeddingTables, merge
from .progress import Progress, SilentProgress
from .rebuild_command import corpus_of
from .reduce_dim import go_on_with, with_fewer_dimensions
from .report import BuildReport, ShrinkGuard, changes_since
from .tower_export import include_towers, keep_towers
from .up_to_date import changed_on_disk, image_root, is_up_to_date
from .vector_dtype import check_vector_dtype, rounding_of, taken_over

SHARD_COST_CPU, SHARD_COST_GPU = 512, 8192
LOADED_LATER = "as it made the index, loaded once something has to be encoded"


def build_index(
    source: str | Path | Source | EmbeddingSource,
    out: str | Path,
    *,
    encoder: str | Encoder | None = None,
    options: SourceOptions | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> BuildReport:
    """Build or update an index and publish it as a new version; a killed build goes on where it stopped.

    Args:
        source: A corpus: folder, table or dataset layout; the same by a protocol of fsspec, as `s3://bucket/photos`, of
            which a copy is kept (see `BuildConfig.cache`); an opened source; or ready-made embeddings, also as the
            folder that clip-retrieval writes.
        out: The index folder, made where it is missing.
        encoder: An encoder spec such as `lite`, or a loaded encoder. None takes that of the index being updated, else
            `DEFAULT_ENCODER`; for ready-made embeddings None means that nothing is known of it.
        options: Which columns, split and layout to read.
        progress: Where to tell what is going on; silent by default.
        **settings: The fields of `BuildConfig`. An update keeps the settings of the version before, and its
            `options`, where they are not named again.

    Raises:
        BuildError: The corpus, the settings or the result are not fit to publish; the old version stays.
        StorageError: The index folder cannot be used, or another builder holds it.
    """
    check_arguments(build_index, locals(), BuildError)
    known = [one.name for one in fields(BuildConfig)]
    check_keywords("build_index", settings, [*known, "source", "out", "encoder", "options", "progress"])
    spec = encoder if isinstance(encoder, str) or encoder is None else encoder.spec
    config = BuildConfig(encoder=spec, **settings)
    if isinstance(encoder, str):
        config = replace(config, encoder=resolve_preset(encoder, config.device))
    if isinstance(source, str | Path) and not is_remote(source) and is_clip_retrieval(Path(source)):
        source, options = open_clip_retrieval(Path(source), options), None
    options = _with_layout_of(config.encoder, options, config)
    made_of = corpus_of(source)
    _check_out(Path(out), update=config.update and not isinstance(source, EmbeddingSource))
    if not config.update and not isinstance(source, EmbeddingSource):
        # A corpus that cannot be read leaves no empty index behind.
        source = _opened(source, options or SourceOptions(), Path(out), config, progress or SilentProgress())
    with IndexStore.building(Path(out)) as store:
        builder = Builder(
            store=store,
            config=config,
            progress=progress or SilentProgress(),
            started=time.perf_counter(),
            given=None if isinstance(encoder, str) else encoder,
            named=frozenset(settings),
            made_of=made_of,
        )
        if isinstance(source, EmbeddingSource):
            return builder.from_embeddings(source)
        return builder.from_corpus(source, options)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A corpus that was surveyed, and the version that it updates, if it does."""

    source: Source
    options: SourceOptions | None
    corpus: Corpus
    parent: IndexVersion | None
    guard: ShrinkGuard


@dataclass(frozen=True, kw_only=True)
class Builder:
    """One build, under the lock of its index."""

    store: IndexStore
    config: BuildConfig
    progress: Progress
    started: float
    given: Encoder | None
    named: frozenset[str] = frozenset()
    made_of: Mapping[str, Any] = field(default_factory=dict)

    def from_corpus(self, corpus: str | Path | Source, options: SourceOptions | None) -> BuildReport:
        """Encode a corpus and publish it."""
        if not self.config.update:
            return self._from_source(self._opened(corpus, options or SourceOptions()), options, None)
        if self.store.current() is None:
            raise BuildError(f"{self.store.path} holds no version to update; build it first, without --update")
        with self.store.open_version() as parent:
            if parent.manifest.corpus is None:
                raise BuildError(
                    f"version {parent.number} of {self.store.path} was made of ready-made embeddings, which no encoder "
                    "can go on with; build without --update"
                )
            options = recorded_options(parent.manifest.build, options)
            config = go_on_with(self.config, parent.manifest.encoder)
            config = recorded_config(parent.manifest, config, self.named)
            check_vector_dtype(parent.manifest, config)
            builder = replace(self, config=config)
            return builder._from_source(self._opened(corpus, options), options, parent)

    def from_embeddings(self, source: EmbeddingSource) -> BuildReport:
        """Publish ready-made vectors."""
        if self.config.update:
            raise BuildError("--update works on a corpus, not on ready-made embeddings; build them anew without it")
        if self.config.dim is not None:
            raise BuildError("--dim cuts an encoder, and ready-made embeddings have none; leave it out")
        if self.config.prompt is not None:
            raise BuildError(
                f"the prompt {self.config.prompt!r} goes with texts that are yet to be encoded; "
                "leave it out for ready-made embeddings"
            )
        encoder = load(self.config, self.given) if self.config.encoder else None
        if encoder is not None and encoder.dim != source.dim:
            raise BuildError(
                f"encoder {encoder.spec!r} gives {encoder.dim} dimensions and the embeddings have {source.dim}; "
                "name the encoder that made them, or leave --encoder out"
            )
        say_memory({name: source.rows(name) for name in source.collections}, source.dim, self.config, self.progress)
        chunks = EmbeddingTables(source, self.progress)
        guard = ShrinkGuard(before=self._current(), config=self.config)
        limit = RejectionLimit(config=self.config, items=sum(source.rows(name) for name in source.collections))
        manifest = self._publish(
            limit.counted(chunks.tables()),
            source.dim,
            encoder,
            {"source": source.name},
            guard=guard,
            pairs=chunks.pairs,
        )
        return self._report(manifest, notes=source.notes, rejected=dict(limit.reasons))

    def _from_source(self, source: Source, options: SourceOptions | None, parent: IndexVersion | None) -> BuildReport:
        if options is not None and options.frames is not None:
            self.progress.note(f"looking through the films for frames ({options.frames})")
        corpus = survey(source)
        if parent is not None and is_up_to_date(parent, source, corpus, self.config):
            return self._unchanged(parent.manifest, source)
        check_columns(self.config.words_columns, [*source.metadata_schema.names, *sorted(LATER_COLUMNS)])
        guard = ShrinkGuard(before=parent.manifest if parent else self._current(), config=self.config)
        guard.check_survey(corpus)
        reading = Reading(source=source, options=options, corpus=corpus, parent=parent, guard=guard)
        executor = self._executor()
        try:
            encoder = self._deferred(source, corpus, parent) or self._encoder(source, corpus, parent)
            return self._encoded(reading, executor, encoder)
        except ComputedElsewhereError as other:
            return self._encoded(reading, executor, other.computed)

    def _encoded(self, reading: Reading, executor: Executor, computed: Computed) -> BuildReport:
        """Encode what was read and publish it."""
        source, corpus, parent, (encoder, race) = reading.source, reading.corpus, reading.parent, computed
        self._say_plan(source, corpus, encoder)
        say_memory({"images": corpus.images, "texts": corpus.texts}, encoder.dim, self.config, self.progress)
        cost = self.config.shard_cost or (SHARD_COST_CPU if encoder.device == "cpu" else SHARD_COST_GPU)
        known = taken_over(parent.manifest if parent else None)
        fingerprint = build_fingerprint(source, encoder, executor.placed(self.config), cost, known)
        if (done := self._published_by(fingerprint, corpus)) is not None:
            return self._unchanged(done, source)
        staging = self.store.staging(fingerprint)
        staging.write_plan({**asdict(corpus), "source": source.name, "encoder": encoder.spec, "shard_cost": cost})
        job = ShardEncoder(
            corpus=corpus,
            encoder=encoder,
            staging=staging,
            reuse=VersionReuse(parent, self.config.prompt, source.metadata_schema.names) if parent else NoReuse(),
            config=self.config,
            metadata=source.metadata_schema,
            progress=self.progress,
            rejected=RejectionLimit(config=self.config, items=corpus.items),
        )
        try:
            report = executor.encode(job, cut(source.items(), cost))
        except ComputedElsewhereError:
            staging.discard()
            raise
        build_report: dict[str, Any] = {
            "source": source.name,
            "source_options": options_json(reading.options or SourceOptions()),
            "encode": {**report.to_json(), **({"backends": race} if race else {})},
            IMAGE_COLUMNS_KEY: sorted(columns_to_fill(source.metadata_schema.names)),
            **films_report(source, reading.options),
        }
        shards = _noting_start((staging.read(number) for number in range(report.shards)), build_report)
        encoding = EncodingInfo(
            prompt=self.config.prompt, backend=report.backend, device=report.device, precision=report.precision
        )
        corpus_info = CorpusInfo(root=image_root(source), digest=corpus.digest, staging=fingerprint)
        manifest = self._publish(
            shards,
            encoder.dim,
            encoder,
            build_report,
            guard=reading.guard,
            parent=parent,
            encoding=encoding,
            corpus=corpus_info,
        )
        notes = (*source.notes, *_own_columns(source, corpus))
        return self._report(manifest, notes=(*notes, *_discarded(staging)), rejected=report.reasons)

    def _deferred(self, source: Source, corpus: Corpus, parent: IndexVersion | None) -> Computed | None:
        """Return the encoder of an update, to be loaded when it is needed; None where it is needed at once."""
        if parent is None or self.given is not None:
            return None
        encoder = deferred(self.config, parent.manifest, lambda: self._encoder(source, corpus, parent))
        return Computed(encoder) if encoder is not None else None

    def _encoder(self, source: Source, corpus: Corpus, parent: IndexVersion | None) -> Computed:
        """Return the encoder of this build, as it will be computed."""
        if self.given is None:
            known = parent.manifest.encoder if parent else None
            self.progress.note(f"loading encoder {self.config.encoder or (known.spec if known else DEFAULT_ENCODER)}")
        encoder = load(self.config, self.given, parent.manifest.encoder if parent else None)
        if self.config.dim is not None:
            encoder = with_fewer_dimensions(encoder, source, corpus, self.config, self.store.path, self.progress)
        if self.given is not None:
            return Computed(encoder)
        before = parent.manifest.encoding if parent else None
        return computed(encoder, self.config, corpus.images, before, self.progress)

    def _current(self) -> Manifest | None:
        """Return the current version if there is one that can be read; a new version replaces a damaged one."""
        try:
            return self.store.manifest() if self.store.current() is not None else None
        except (CorruptIndexError, IncompatibleIndexError):
            return None

    def _published_by(self, fingerprint: str, corpus: Corpus) -> Manifest | None:
        """Return the current version if this very build has published it and was stopped while it tidied up."""
        if not self.store.is_staged(fingerprint) or self.store.current() is None:
            return None
        try:
            with self.store.open_version() as version:
                manifest = version.manifest
        except (CorruptIndexError, IncompatibleIndexError):
            return None  # a new version replaces it
        known = manifest.corpus
        same = known is not None and (known.staging, known.digest) == (fingerprint, corpus.digest)
        same = same and not changed_on_disk(manifest, corpus)
        return manifest if same and manifest.build.get("config") == to_plain(asdict(self.config)) else None

    def _unchanged(self, manifest: Manifest, source: Source) -> BuildReport:
        """Report the version that is there already, after what a build that was stopped has left undone."""
        self.store.confirm()
        fingerprint, notes = manifest.corpus.staging if manifest.corpus else None, source.notes
        if fingerprint is not None and self.store.is_staged(fingerprint):
            notes = (
                *notes,
                "an earlier run had published it and was stopped while it removed its shards",
                *_discarded(self.store.staging(fingerprint)),
            )
        return self._report(manifest, notes=notes, published=False)

    def _opened(self, corpus: str | Path | Source, options: SourceOptions) -> Source:
        return _opened(corpus, options, self.store.path, self.config, self.progress)

    def _executor(self) -> Executor:
        if self.config.executor == "local":
            return LocalExecutor()
        from .ray.executor import RayExecutor

        return RayExecutor(self.config, self.given)

    def _say_plan(self, source: Source, corpus: Corpus, encoder: Encoder) -> None:
        computed = f"on {encoder.device} by {backend_of(encoder)} in {encoder.precision}"
        self.progress.note(
            f"{source.name}: {corpus.images:,} images and {corpus.texts:,} texts; encoder {encoder.spec} "
            f"({encoder.dim}-d) {LOADED_LATER if isinstance(encoder, DeferredEncoder) else computed}; "
            f"{self.config.workers} decode threads"
        )
        if self.config.prompt is not None:
            self.progress.note(f"every text is encoded as {self.config.prompt!r}")
        for note in (*source.notes, *_own_columns(source, corpus)):
            self.progress.note(note)

    def _publish(
        self,
        tables: Iterable[pa.Table],
        dim: int,
        encoder: Encoder | None,
        build_report: dict[str, Any],
        *,
        guard: ShrinkGuard,
        parent: IndexVersion | None = None,
        pairs: Callable[[], np.ndarray] | None = None,
        encoding: EncodingInfo | None = None,
        corpus: CorpusInfo | None = None,
    ) -> Manifest:
        draft = self.store.draft()
        try:
            self.progress.note("merging")
            counts, lost = merge(tables, draft.path, dim, pairs, self.config.vector_dtype)
            write_words(draft.path, self.config.words_columns, self.progress)
            changes = (
                changes_since(parent, draft.path / CATALOG, set(build_report[IMAGE_COLUMNS_KEY])) if parent else None
            )
            guard.check_result(counts, draft.path / CATALOG, changes)
            encode = query_encoder(encoder, self.config.prompt, parent.tower("text_tower") if parent else None)
            infos, calibrations = self._index(draft.path, counts, encoder, encode, parent)
            if self.config.portable:
                include_towers(encoder, draft.path, self.progress, parent.path if parent else None)
            self.progress.note("publishing")
            build = {
                **self.made_of,
                **build_report,
                "changes": to_plain(changes),
                "config": asdict(self.config),
                "machine": machine(),
                "seconds": self._seconds,
            }
            manifest = self.store.publish(
                draft,
                encoder=encoder.info if encoder else None,
                encoding=encoding,
                corpus=corpus,
                calibrations=calibrations,
                rounding=rounding_of(lost, parent.manifest if parent else None, self.config),
                collections=infos,
                counts=counts,
                build=build,
            )
        except BaseException:
            draft.discard()
            raise
        if encoder is not None and not self.config.portable:
            keep_towers(encoder, self.progress)
        return manifest

    def _index(
        self,
        folder: Path,
        counts: Counts,
        encoder: Encoder | None,
        encode: EncodeTexts | None,
        parent: IndexVersion | None,
    ) -> tuple[dict[Collection, CollectionInfo], Calibrations]:
        """Return what is measured of a draft: its approximate indexes, and how probable it is that a hit fits."""
        paths = {name: folder / name / "vectors.arrow" for name in COLLECTIONS}
        present = [name for name, path in paths.items() if path.exists()]
        infos = carried_over(parent, folder, present, self.config, self.progress)
        calibrations = None if infos is None or parent is None else kept_calibrations(parent, folder, self.progress)
        if infos is None:
            with ExitStack() as stack:
                tables = {name: stack.enter_context(closing(VectorTable.open(paths[name]))) for name in present}
                infos = build_approximate(folder, tables, self.config, self.progress, encode)
        if calibrations is None:
            calibrations = fit_calibrations(folder, counts, self.config.seed, self.progress, encode)
        return infos, calibrations

    @property
    def _seconds(self) -> float:
        return round(time.perf_counter() - self.started, 3)

    def _report(
        self,
        manifest: Manifest,
        *,
        notes: tuple[str, ...],
        rejected: dict[str, int] | None = None,
        published: bool = True,
    ) -> BuildReport:
        return BuildReport(
            path=self.store.path,
            version=manifest.version,
            published=published,
            manifest=manifest,
            seconds=self._seconds,
            notes=notes,
            rejected=rejected or {},
        )


def machine() -> dict[str, Any]:
    """Return what the figures of a build were measured on."""
    return {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


def _opened(
    corpus: str | Path | Source, options: SourceOptions, out: Path, config: BuildConfig, progress: Progress
) -> Source:
    if not isinstance(corpus, str | Path):
        return corpus
    cache = Path(config.cache) if config.cache else out.with_name(f"{out.name}.corpus")
    return open_source(path_here(corpus, cache, options, progress), options)


def _with_layout_of(spec: str | None, options: SourceOptions | None, config: BuildConfig) -> SourceOptions | None:
    """Return the options with the layout that the family of the encoder needs."""
    layout = (options or SourceOptions()).layout
    family = family_of(spec)
    if family is not None and family.layout is not None:
        return replace(options or SourceOptions(), layout=family.layout) if layout == "auto" else options
    if layout not in LAYOUTS and not config.update:
        raise BuildError(
            f"encoder {spec or DEFAULT_ENCODER!r} sees photographs, and layout {layout!r} has none; "
            "give an encoder that reads this layout, or another layout"
        )
    return options


def _check_out(out: Path, *, update: bool) -> None:
    if not is_utf8(str(out)):
        raise BuildError(f"the index path {printable(str(out))!r} is not UTF-8 and DuckDB needs that; choose another")
    if update and not out.exists():
        raise BuildError(f"{out} holds no version to update; build it first, without --update")


def _discarded(staging: Staging) -> tuple[str, ...]:
    """Remove the shards of a build that is published; where that fails it is a note, for the version is durable."""
    try:
        staging.discard()
    except StorageError as error:
        return (f"the version is published, but {error}",)
    return ()


def _own_columns(source: Source, corpus: Corpus) -> tuple[str, ...]:
    """A note where the user's columns stand in place of what image files say."""
    hidden = sorted(LATER_COLUMNS - columns_to_fill(source.metadata_schema.names)) if corpus.images else []
    names = ", ".join(hidden)
    return (f"{names}: the corpus has its own, so what the image files say of that is left out",) if hidden else ()


def _noting_start(shards: Iterable[pa.Table], build_report: dict[str, Any]) -> Iterator[pa.Table]:
    """Yield shards as they come, and keep when the earliest of the runs that made them began to read."""
    for shard in shards:
        build_report["read_from_ns"] = min(build_report.get("read_from_ns", time.time_ns()), read_from(shard))
        yield shard
