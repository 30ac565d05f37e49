"""The configuration of a build: its settings and defaults, the prompt, and what an update takes over from a version."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from encoders import DecodeLimits
from storage import Manifest
from storage.arguments import check_fields, exits_as_typed_wrong
from storage.schema import AnnKind, VectorDType

from .corpus import SourceOptions
from .errors import BuildError

PLACEHOLDER = "{}"
MAX_SEED = 2**63 - 1
POSITIVE_INTEGERS = (
    "shard_cost",
    "batch_size",
    "decode_workers",
    "memory_bytes",
    "max_pixels",
    "max_file_bytes",
    "ray_workers",
    "dim",
    "gpus",
)
# Backends of a GPU: those of `encoders.gpu_backends`, which imports torch.
ON_GPU = ("torch-compile", "cuda-graph")
# What decides which items and which approximate index there are; how fast a run may be is its own affair.
KEPT_SETTINGS = (
    "ann",
    "min_ann_recall",
    "max_pixels",
    "max_file_bytes",
    "seed",
    "cache",
    "portable",
    "words_columns",
    "vector_dtype",
)


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """The settings of a build; the manifest keeps them as they were.

    Attributes:
        encoder: Encoder spec; None takes the one of the index being updated, or `DEFAULT_ENCODER`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. `cuda` fails when there is none.
        gpus: How many GPUs of this machine encode, the first so many, each with the model; `CUDA_VISIBLE_DEVICES` says
            which these are. A build that was stopped goes on with another number. Ray has workers of its own for that.
        precision: `auto`, `fp32`, `bf16` or `fp16`. 16 bits are faster on a GPU and on processors with instructions for
            them, and change a cosine by about 0.001. On a CPU `auto` takes, from a thousand images on, the fastest of
            what is installed whose vectors are within .999 of torch's in fp32 (see `encoders.cpu_backends`); `fp32`
            gives equal vectors on all machines.
        backend: What computes images. On a CPU `torch`, `openvino`, or `auto`: see `precision`. On a GPU `auto` is
            `torch`; `torch-compile` and `cuda-graph` compute batches of one size, faster, and are taken by name alone
            and only with vectors within .999 of torch's (see `encoders.gpu_backends`); an update names them again.
        prompt: A template such as `a photo of {}`, whose one `{}` every text replaces when it is encoded; the catalog
            keeps the text as it is. Text queries of a search go through the same template, so that what was measured
            is what is searched. CLIP models trained on web captions gain a point or two of R@1 on descriptions by it;
            None, or `{}` alone, encodes texts as they are.
        ann: Family of the approximate index; `auto` compares every vector while that is quick, then uses `ivf-pq4`.
        min_ann_recall: A version is published only if some operating point of each direction reaches this
            `ann_recall@10`. Usual range 0.9-0.99; 0 switches the check off.
        max_rejected: Stop when more items than this were rejected; a value below 1 is a share of all items. None and
            infinity let any number pass.
        dim: Length of the vectors, where they are to be shorter than the encoder's: it is cut to the directions that
            matter most for a sample of the corpus, and the build is refused where that loses too much (`reduce_dim`).
        vector_dtype: `float16`, or `int8`: one byte a value, half of the disk and of the memory that searches map.
            Scores are exact for the vectors as stored, and differ by a thousandth or so from those of float16, which
            changes two of a hundred nearest (docs/encode.md); the manifest says how much at most. An update keeps it,
            and cannot take it back.
        update: Take over the vectors of unchanged items from the current version and drop what is gone.
        allow_shrink: Publish although no image of the corpus could be read, or more than half of the images, texts or
            pairs of the current version would go. Off, such a build is refused: as a rule a drive is missing or a path
            is wrong.
        memory_bytes: Do not use more memory than this for training and building the approximate index.
        shard_cost: Images in one unit of encode work (eight texts count as one image). A killed build encodes at most
            two such units again, the one that is written and the one that is encoded, and two batches of the next.
            Small units cost more writes. None picks 512 on a CPU and 8192 on a GPU.
        batch_size: Images in one forward pass; None takes what the encoder proposes.
        decode_workers: Threads that read and decode images; None takes one a core.
        decode_in: `threads` of this process, or as many `processes`, of some 300 MB each; the bytes are the same.
            Python's lock lets threads decode 2,000 to 4,700 images a second however many cores there are, so that
            `auto` takes processes for an encoder on a GPU, where there are four cores and 10,000 images. `gpu`: the
            GPU of the encoder decodes plain JPEG files, threads all others; taken by name alone, and only with
            vectors within .999 of those of the usual decoder (see `encoders.device_jpegs`).
        max_pixels: An image with more pixels is rejected before it is decoded.
        max_file_bytes: A file with more bytes is rejected before it is read.
        seed: Seed of every random choice: training sample, k-means, tuning queries.
        executor: `local`, or `ray`: shards are encoded by the workers of a Ray cluster, which see the corpus under the
            same path; this process merges and publishes. The index is the same.
        address: The cluster, e.g. `10.0.0.1:6379`; None takes the one that `RAY_ADDRESS` names or that runs on this
            machine, and starts one here where there is none.
        ray_workers: Workers with an encoder each; None takes one a GPU, or without GPUs one a node. More workers on a
            node hold more copies of the model and share its cores.
        cache: The folder for the copy of a remote corpus; None takes `INDEX.corpus` beside the index.
        portable: Put the encoder's towers into the index, 110 MB for `lite` and 250 MB for ViT-B-32, so that another
            machine searches it by text, and with `lite` by image, without torch, model hub and network.
        words_columns: Metadata columns that searches by words look into, besides captions and item ids.
    """

    encoder: str | None = None
    device: str = "auto"
    gpus: int = 1
    precision: str = "auto"
    backend: Literal["auto", "torch", "openvino", "torch-compile", "cuda-graph"] = "auto"
    prompt: str | None = None
    dim: int | None = None
    vector_dtype: VectorDType = "float16"
    ann: AnnKind | Literal["auto"] = "auto"
    min_ann_recall: float = 0.9
    max_rejected: float | None = None
    update: bool = False
    allow_shrink: bool = False
    memory_bytes: int | None = None
    shard_cost: int | None = None
    batch_size: int | None = None
    decode_workers: int | None = None
    decode_in: Literal["auto", "threads", "processes", "gpu"] = "auto"
    max_pixels: int = DecodeLimits().max_pixels
    max_file_bytes: int = DecodeLimits().max_bytes
    seed: int = 0
    executor: Literal["local", "ray"] = "local"
    address: str | None = None
    ray_workers: int | None = None
    cache: str | None = None
    portable: bool = False
    words_columns: tuple[str, ...] = ()

    @exits_as_typed_wrong
    def __post_init__(self) -> None:
        check_fields(self, BuildError)
        object.__setattr__(self, "words_columns", tuple(self.words_columns))
        for name in POSITIVE_INTEGERS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BuildError(f"{name} is {value!r}; give a number of at least 1, or leave it out")
        if not 0 <= self.min_ann_recall <= 1:
            raise BuildError(f"min_ann_recall is {self.min_ann_recall!r}; give a share between 0 and 1, such as 0.9")
        if self.max_rejected is not None and not self.max_rejected >= 0:
            raise BuildError(f"max_rejected is {self.max_rejected!r}; give a count, or a share such as 0.05")
        if self.max_rejected == float("inf"):
            # JSON, in which the manifest keeps these values, has no infinity.
            object.__setattr__(self, "max_rejected", None)
        if self.prompt is not None:
            object.__setattr__(self, "prompt", checked_prompt(self.prompt))
        if not 0 <= self.seed <= MAX_SEED:
            raise BuildError(f"seed is {self.seed!r}; give a number from 0 to {MAX_SEED}")

        self._check_executor()
        self._check_backend()
        self._check_gpus()

    @property
    def workers(self) -> int:
        """Threads that decode images."""
        return self.decode_workers or os.cpu_count() or 1

    @property
    def limits(self) -> DecodeLimits:
        """What an image may cost."""
        return DecodeLimits(max_bytes=self.max_file_bytes, max_pixels=self.max_pixels)

    def _check_backend(self) -> None:
        if self.backend == "openvino" and (self.device not in ("auto", "cpu") or self.executor == "ray"):
            raise BuildError("--backend openvino computes on the CPU of this machine; leave --device and ray out")
        if self.backend in ON_GPU and (self.device == "cpu" or self.executor == "ray"):
            raise BuildError(f"--backend {self.backend} computes on a GPU of this machine; leave --device and ray out")

    def _check_gpus(self) -> None:
        if self.gpus == 1:
            return
        if self.device not in ("auto", "cuda"):
            raise BuildError(f"--gpus {self.gpus} goes with --device cuda, not {self.device}; leave one of them out")
        if self.executor == "ray":
            raise BuildError(f"--gpus {self.gpus} is for this machine alone; with --executor ray say --workers")

    def _check_executor(self) -> None:
        if self.executor == "ray" and self.decode_in in ("processes", "gpu"):
            raise BuildError(f"--decode-in {self.decode_in} is for builds on one machine; leave it or ray out")
        if self.decode_in == "gpu" and self.device == "cpu":
            raise BuildError(
                "--decode-in gpu goes with an encoder on a GPU, not with --device cpu; leave one of them out"
            )
        for name, option in (("address", "--address"), ("ray_workers", "--workers")):
            if self.executor == "local" and getattr(self, name) is not None:
                raise BuildError(f"{option} {getattr(self, name)} goes with --executor ray; give that too")

    def rejection_limit(self, items: int) -> float:
        """Return how many of `items` may be rejected before the build stops."""
        if self.max_rejected is None:
            return float("inf")
        return self.max_rejected * items if 0 < self.max_rejected < 1 else self.max_rejected


def checked_prompt(template: str) -> str | None:
    """Return a template that holds one placeholder for a text; None where it is nothing but that.

    Raises:
        BuildError: It has no `{}` or several, more than one line, or is not valid Unicode.
    """
    count = template.count(PLACEHOLDER)
    if count != 1:
        raise BuildError(
            f"the prompt {template!r} has {count} placeholders for the text; "
            f"write {PLACEHOLDER} once, as in 'a photo of {PLACEHOLDER}'"
        )
    if not template.isprintable():
        raise BuildError(f"the prompt {template!r} holds characters that cannot be printed; write it on one line")
    return None if template.strip() == PLACEHOLDER else template


def with_prompt(encode: Callable[[list[str]], np.ndarray], template: str | None) -> Callable[[list[str]], np.ndarray]:
    """Return `encode` for texts that go through a template first; None leaves them as they are."""
    if template is None:
        return encode
    return lambda texts: encode([template.replace(PLACEHOLDER, text) for text in texts])


def options_json(options: SourceOptions) -> dict[str, Any]:
    """Return source options as JSON values, so that an update can read the corpus the same way."""
    return {**asdict(options), "root": str(options.root.resolve()) if options.root else None}


def recorded_options(build: Mapping[str, Any], given: SourceOptions | None = None) -> SourceOptions:
    """Return the source options that a version was built with; what `given` says otherwise than by default wins.

    Raises:
        BuildError: URLs were fetched for that version, and `given` does not allow it again: an index that came from
            elsewhere may not make this machine fetch anything.
    """
    values = dict(build.get("source_options") or {})
    if values.pop("allow_urls", False) and not (given is not None and given.allow_urls):
        raise BuildError("the index was built from URLs; give --allow-urls again, or build without --update")
    values.pop("allow_private", None)
    for name in ("metadata", "splits"):
        values[name] = tuple(values[name]) if values.get(name) is not None else None
    values["splits"] = values["splits"] or ()
    values["exclude"] = tuple(values.get("exclude") or ())
    values["root"] = Path(values["root"]) if values.get("root") else None
    chosen = given or SourceOptions()
    named = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    changed = {name: value for name, value in named.items() if value != getattr(SourceOptions(), name)}
    return replace(SourceOptions(**values), **changed)


def recorded_settings(manifest: Manifest) -> dict[str, Any]:
    """Return the settings of a version that an update or a repair takes over, by the names of `BuildConfig`."""
    config = manifest.build.get("config") or {}
    kept = {name: config[name] for name in KEPT_SETTINGS if name in config}
    return {**kept, "prompt": manifest.encoding.prompt}


def recorded_config(manifest: Manifest, config: BuildConfig, named: frozenset[str]) -> BuildConfig:
    """Return `config` with the settings of the version that is updated, where they are not in `named`."""
    kept = recorded_settings(manifest)
    return replace(config, **{name: value for name, value in kept.items() if name not in named})
