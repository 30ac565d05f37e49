"""`compare_encoders`: which encoder fits a captioned corpus best, by how much, and at what price."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from encoders import Encoder
from encoders.catalogue import PRESETS, resolve_preset
from encoders.load import family_of
from encoders.remembered import absolute_spec, user_cache
from evaluation import Bootstrap
from indexer import BuildConfig, SourceOptions, open_source
from indexer.corpus.remote.mirror import path_here
from indexer.encode.shards import survey
from indexer.progress import Progress, SilentProgress
from searcher.audit import audit_index
from searcher.evaluation.side_by_side import SideBySideOptions, evaluate_side_by_side
from storage import IndexStore, TwinlensError
from storage.arguments import check_arguments, check_fields, exits_as_typed_wrong
from storage.files.atomic import folder_made

from .candidate import Bench, Encoded
from .errors import CompareError
from .sample import Sample

DEPTHS = (1, 5, 10)
# What ends one column and not the run; of torch also that a GPU has no memory left.
_LOST = (TwinlensError, OSError, MemoryError, RuntimeError)
_MOST_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """How encoders are compared.

    Attributes:
        sample: How many captioned images are drawn, with all their captions. 2000 tell encoders apart that differ by 2
            points of R@1, and take ViT-B-32 two minutes on two cores.
        seed: Of the sample and of the bootstrap.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `fp32`, `bf16` or `fp16`, as `build_index` takes it.
        prompt: A template such as `a photo of {}` for every text; None encodes them as they are.
        examples: Queries that one encoder alone answers, shown for each direction.
        cache: Where vectors are kept; None takes `compare` in the user's cache.
    """

    sample: int = 2000
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    prompt: str | None = None
    examples: int = 4
    cache: Path | None = None

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, CompareError)
        if self.sample < 2:
            raise CompareError(
                f"--sample {self.sample} leaves nothing to tell apart; give 2 images or more, 2000 is usual"
            )
        for name, value in (("seed", self.seed), ("examples", self.examples)):
            if value < 0:
                raise CompareError(f"--{name} {value} is negative; give a whole number from 0 on")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison found.

    Attributes:
        facts: JSON's own types, as `docs/compare.md` lists them.
        images: By `item_id` the file, or the bytes, of each image that the facts show.
    """

    facts: dict[str, Any]
    images: dict[str, Path | bytes]


def compare_encoders(
    corpus: str | Path,
    encoders: Sequence[str | Encoder],
    *,
    options: SourceOptions | None = None,
    config: CompareConfig | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Encode one sample of a captioned corpus with each encoder and search it exactly, in both directions.

    An encoder that cannot be used is named with the reason under `failed`, and the others are compared.

    Args:
        corpus: A file, a folder or a pattern of shards, as `build_index` reads it, here or by a protocol of fsspec;
            of a remote one a copy is kept in the cache.
        encoders: Specs or loaded encoders, two or more.
        options: Which columns, split and layout to read.
        config: Size of the sample, seed, device and so on.
        progress: Told what is going on; silent by default.

    Raises:
        CompareError: Fewer than two encoders, one given twice, a sample below 2, no two captioned images, or no encoder
            that could be used.
        SourceError: The corpus cannot be read.
    """
    check_arguments(compare_encoders, locals(), CompareError)
    config, progress = config or CompareConfig(), progress or SilentProgress()
    encoders = [_without_preset(encoder, config.device) for encoder in encoders]
    check_encoders(encoders)
    reading = _layout(encoders, options)
    cache = Path(config.cache) if config.cache is not None else user_cache() / "compare"
    with folder_made(cache, "keep vectors in"):
        source = open_source(path_here(corpus, cache / _copy_name(corpus), reading, progress), reading)
        sample = Sample(source, config.sample, config.seed)
        bench = Bench(
            sample=sample,
            corpus=survey(sample),
            cache=cache,
            config=BuildConfig(device=config.device, precision=config.precision, prompt=config.prompt),
            progress=progress,
        )
        encoded, failed = _encode_all(bench, encoders)
    facts = _facts(bench, config, encoded, failed)
    return Comparison(facts=facts, images=sample.contents(_shown(facts)))


def _copy_name(corpus: str | Path) -> str:
    return f"{hashlib.sha256(str(corpus).encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.corpus"


@exits_as_typed_wrong
def check_encoders(encoders: Sequence[str | Encoder]) -> None:
    """Refuse what cannot be compared, before anything is read.

    Raises:
        CompareError: Fewer than two encoders, or one that is given twice.
    """
    specs = [_spec(encoder) for encoder in encoders]
    known: set[str] = set()
    for spec in specs:
        if absolute_spec(spec) in known:
            raise CompareError(f"the encoder {spec!r} is given twice; name each encoder once")
        known.add(absolute_spec(spec))
    if len(specs) < 2:
        named = f"{specs[0]!r} alone is" if specs else "no encoder is"
        raise CompareError(
            f"{named} given, and a comparison needs two or more, as in --encoders lite,ViT-B-32/laion2b_s34b_b79k; "
            "one by itself is scored by build-index and twinlens evaluate"
        )


def _without_preset(encoder: str | Encoder, device: str) -> str | Encoder:
    known = isinstance(encoder, str) and encoder in PRESETS
    return resolve_preset(str(encoder), device) if known else encoder


def _spec(encoder: str | Encoder) -> str:
    return encoder if isinstance(encoder, str) else encoder.spec


def _layout(encoders: Sequence[str | Encoder], options: SourceOptions | None) -> SourceOptions:
    """Return the options with the layout that the encoders read; families of regions read one of their own."""
    chosen = options or SourceOptions()
    families = [family_of(_spec(encoder)) for encoder in encoders]
    layouts = {family.layout if family else None for family in families}
    if len(layouts) > 1:
        names = ", ".join(_spec(encoder) for encoder in encoders)
        raise CompareError(
            f"of {names} some see photographs and some region features; compare those that read the same"
        )
    (layout,) = layouts
    return replace(chosen, layout=layout) if layout is not None and chosen.layout == "auto" else chosen


def _encode_all(bench: Bench, encoders: Sequence[str | Encoder]) -> tuple[dict[str, Encoded], list[dict[str, str]]]:
    """Encode the sample with each encoder; one that cannot be used is left out with the reason."""
    encoded: dict[str, Encoded] = {}
    failed = []
    for number, encoder in enumerate(encoders, 1):
        spec = _spec(encoder)
        bench.progress.note(f"encoder {number} of {len(encoders)}: {spec}")
        try:
            one = bench.encode(encoder)
        except _LOST as error:
            reason = " ".join(str(error).split()) or type(error).__name__
        else:
            twin = next((name for name, other in encoded.items() if other.fingerprint == one.fingerprint), None)
            if twin is None:
                encoded[spec] = one
                continue
            reason = f"it is the same model as {twin!r}, by its weights, preprocessing and tokenizer"
        bench.progress.note(f"{spec} is left out: {reason}")
        failed.append({"encoder": spec, "reason": reason})
    if not encoded:
        raise CompareError(
            f"none of {len(encoders)} encoders could be used; {failed[0]['encoder']}: {failed[0]['reason']}"
        )
    return encoded, failed


def _facts(
    bench: Bench, config: CompareConfig, encoded: dict[str, Encoded], failed: list[dict[str, str]]
) -> dict[str, Any]:
    bench.progress.note("searching exactly, and drawing resamples")
    paths = [one.index for one in encoded.values()]
    options = SideBySideOptions(k=_depths(paths), bootstrap=Bootstrap(seed=config.seed), examples=config.examples)
    found = evaluate_side_by_side(paths, options, list(encoded))
    found.pop("split")
    columns = [
        {**index, "speed": one.speed, "from_cache": one.reused}
        for index, one in zip(found.pop("indexes"), encoded.values(), strict=True)
    ]
    audit = audit_index(paths[found["best"] or 0], most=_MOST_LISTED).facts
    return {
        "corpus": {**bench.sample.about(), "seed": config.seed},
        "prompt": config.prompt,
        "failed": failed,
        "encoders": columns,
        **found,
        **{name: audit[name] for name in ("duplicates", "leaks", "rejected")},
    }


def _shown(facts: dict[str, Any]) -> set[str]:
    """The ids of everything that the examples show."""
    examples = [one for found in facts["alone"] or () for side in found.values() for one in side["examples"]]
    items = [item for one in examples for item in (one["query"], *one["right"])]
    items += [other["item"] for one in examples for other in one["instead"]]
    return {item["item_id"] for item in items}


def _depths(paths: Sequence[Path]) -> tuple[int, ...]:
    """The usual depths, as far as the sample goes."""
    smallest = min(
        min(counts.images, counts.texts) for path in paths for counts in (IndexStore.open(path).manifest().counts,)
    )
    return tuple(k for k in DEPTHS if k <= smallest) or (1,)
