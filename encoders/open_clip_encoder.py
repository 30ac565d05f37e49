"""The encoder of any open_clip model: images and texts in batches to unit vectors, on a device at a precision.

On a CPU a pool runs one small batch per core, and models are folded and cast before they run.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from storage.schema import EncoderInfo

from .base import ImageLike
from .decoding.ahead import BATCHES_HELD, DecodedBatch, decoded_batches
from .decoding.processes import DecodeProcesses, processes_pay
from .device import Placement
from .errors import EncoderError
from .fast_preprocess import FastPreprocess
from .images import DEFAULT_LIMITS, DecodedImage, DecodeLimits, decode_image
from .lite import LOGIT_SCALE, ConseTrunk, fold_batch_norm
from .openvino_images import OpenVinoImages
from .preprocess import Preprocess, PreprocessConfig
from .text_forward import text_forward
from .transfer import Transfer, pinned
from .two_towers import TwoTowers, fingerprint

T = TypeVar("T")
R = TypeVar("R")


_pools: WeakSet[CorePool] = WeakSet()


def _start_anew_in_a_fork() -> None:
    """A forked process has none of its parent's threads: those of pools and of torch are not to be waited for."""
    torch.set_num_threads(1)
    for pool in list(_pools):
        pool._forget_threads()


os.register_at_fork(after_in_child=_start_anew_in_a_fork)


class CorePool:
    """A thread pool in which torch uses one core per thread; its threads start when they are first needed.

    By default torch splits every operation over all cores and waits for the slowest, so that whatever else runs
    (decoding threads, other programs) stalls all of them, and a batch large enough to split leaves the caches. One
    small batch per core avoids both: 1.6 times the images of `lite` on two cores. A process that was forked starts
    threads of its own.
    """

    def __init__(self, count: int | None = None) -> None:
        """Use `count` threads; None takes as many as torch uses for one operation (`OMP_NUM_THREADS`)."""
        self.count = count or torch.get_num_threads()
        self._forget_threads()
        _pools.add(self)

    def _forget_threads(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[T], R], parts: Sequence[T], *, small: bool = False) -> list[R]:
        """Return `work` of every part, in order.

        Args:
            work: What to do with a part.
            parts: As a rule several. A single one is computed by the caller, with all of torch's threads.
            small: A single part is so little work that several threads would wait for each other longer than they
                compute: run it on one thread of the pool. On a quiet machine a short text through `lite` is hardly
                slower; on a busy one it takes 15 ms, where it would now and then take 400.

        Raises:
            Exception: The first that `work` raised, in the order of the parts.
        """
        if self.count == 1 or len(parts) < (1 if small else 2):
            return [work(part) for part in parts]
        return list(self._started().map(work, parts))

    def submit(self, work: Callable[..., R], *arguments: Any) -> Future[R]:
        """Have a thread of the pool, even of one, do something."""
        return self._started().submit(work, *arguments)

    def _started(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = _single_threaded(self.count)
            return self._pool


def _single_threaded(count: int) -> ThreadPoolExecutor:
    """Return a pool of `count` threads in which torch uses one core each; the setting of other threads is restored."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="encoder-core")
    all_started = threading.Barrier(count)

    def use_one_core(_: int) -> None:
        torch.get_num_threads()  # initialises torch in this thread; done later, that would undo the next line
        torch.set_num_threads(1)
        all_started.wait()  # so that each thread of the pool runs this once

    list(pool.map(use_one_core, range(count)))
    # The count is kept per thread, but new threads inherit the one that was set last, by any thread.
    torch.set_num_threads(before)
    return pool


def ready_for_inference(model: nn.Module, placement: Placement) -> Any:
    """Return the model on its device with folded norms and cast weights; vectors are equal up to rounding.

    The model passed in is modified and must not be used again.
    """
    if isinstance(getattr(model.visual, "trunk", None), ConseTrunk):
        model = _with_folded_norms(model)
    if placement.precision != "fp32":
        _cast_weights(model, placement.dtype)
    return model.to(memory_format=torch.channels_last).to(placement.device)


def _with_folded_norms(model: nn.Module) -> nn.Module:
    visual: Any = copy.deepcopy(model.visual)
    fold_batch_norm(visual.trunk.backbone)
    return _with_visual(model, visual)


def _with_visual(model: nn.Module, visual: nn.Module) -> nn.Module:
    """Return the model with another image tower; all else is shared."""
    other = copy.copy(model)
    other._modules = {**model._modules, "visual": visual}
    return other


def _cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast once what autocast would cast in every forward pass: on a CPU those copies cost more than the arithmetic.

    Norms, embeddings and the residual stream stay in fp32, as under autocast.
    """
    kept = {id(part) for trunk in model.modules() if isinstance(trunk, ConseTrunk) for part in trunk.fp32_layers()}
    for part in model.modules():
        if id(part) in kept:
            continue
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            part.to(dtype)
        elif isinstance(part, nn.MultiheadAttention):
            _cast_attention(part, dtype)


def _cast_attention(part: nn.MultiheadAttention, dtype: torch.dtype) -> None:
    for parameter in part.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)


# Images per call; a GPU needs hundreds at once.
CPU_BATCH_PER_THREAD = 8
GPU_BATCH = 256
# Images per forward pass on one core. The first layers of a convolutional network make 5 MB of activations per image:
# more images leave the cache and lose a third; a transformer gains 5 % up to 8, and in OpenVINO 10 % up to 16.
CONVOLUTIONAL_PASSES, TRANSFORMER_PASSES = (4, 4), (8, 16)
BACKENDS = ("torch", "openvino")
"""The libraries that compute an image tower on a CPU."""

# A caption is a fraction of an image's work and memory.
TEXTS_PER_IMAGE = 4
# Up to this many tokens, as in most search queries, one core computes the batch.
FEW_TOKENS = 64


class ClipEncoder:
    """An `Encoder` over any open_clip model; see `encoders.base.Encoder` for the attributes. Made by `load_encoder`.

    It takes ownership of the towers: do not train or save them afterwards. `hashed` gives their fingerprint for the
    length of their vectors.
    """

    def __init__(
        self, towers: TwoTowers, placement: Placement, hashed: Callable[[TwoTowers, int], str] = fingerprint
    ) -> None:
        self.spec = towers.spec
        self.device = placement.device
        self.precision = placement.precision
        self.backend = "torch"
        on_cpu = placement.kind == "cpu"
        self._pool = CorePool(None if on_cpu else 1)
        # A GPU is fed by one thread. All cores decode the images of a call, a batch while the last is computed.
        self._decoders = self._pool if on_cpu else CorePool(os.cpu_count())
        self._decodes_ahead = not on_cpu
        self.batch_size = CPU_BATCH_PER_THREAD * self._pool.count if on_cpu else GPU_BATCH
        self.dim = _dim(towers)
        # Before anything is moved, folded or cast: the fingerprint is that of the model as it was loaded.
        self.fingerprint = hashed(towers, self.dim)
        self._fast = FastPreprocess(Preprocess(towers.preprocess))
        self._pass, self._compiled_pass = _passes(towers.model, placement)
        self.details: Mapping[str, Any] = dict(towers.details)
        self.logit_scale = _logit_scale(towers)
        self._kind = placement.kind
        self._autocast = _autocast(placement)
        self._sent = Transfer(placement.device)
        self._tokenizer = towers.tokenizer
        self._model = ready_for_inference(towers.model, placement)
        self._text = text_forward(self._model)
        self._compiled: OpenVinoImages | None = None
        self._tower: Callable[[torch.Tensor], torch.Tensor] | None = None
        # Its weights are what was loaded at fp32 only; elsewhere they are cast.
        self.towers = replace(towers, model=self._model)
        # Rust tokenizers keep padding and truncation as state, and fail when two threads use them at once.
        self._tokenizer_lock = threading.Lock()

    @property
    def preprocess_config(self) -> PreprocessConfig:
        """What `open_image` and `byte_pixels` make of an image, for processes that decode without the encoder."""
        return self._fast.exact.config

    @property
    def info(self) -> EncoderInfo:
        """What the manifest records of this encoder; device and precision are not part of it."""
        return EncoderInfo(spec=self.spec, dim=self.dim, fingerprint=self.fingerprint, details=self.details)

    def on_backend(self, backend: str, precision: str) -> ClipEncoder:
        """Return the same encoder as another library computes it on the CPU; this one, in fp32, stays as it is.

        Args:
            backend: `torch`, or `openvino` for the images; texts are torch's.
            precision: `fp32` or `bf16`.
        """
        if (self.backend, self.precision, self._kind) != ("torch", "fp32", "cpu"):
            raise EncoderError(f"encoder {self.spec!r} is no longer in fp32 on the CPU; load it anew")
        if backend not in BACKENDS or precision not in ("fp32", "bf16"):
            raise EncoderError(f"no backend {backend!r} in {precision!r}; choose torch or openvino, and fp32 or bf16")
        other = copy.copy(self)
        other.backend, other.precision = backend, precision
        if backend == "openvino":
            visual: Any = self._model.visual
            other._compiled = OpenVinoImages(visual, self._fast, precision=precision, cores=self._pool.count)
            other._pass = self._compiled_pass
            other.batch_size = max(self.batch_size, (self._compiled_pass or 1) * self._pool.count)
            other._model = _with_visual(self._model, nn.Identity())
        if precision != "fp32":
            placement = Placement(device=self.device, precision=precision)
            other._model = copy.deepcopy(other._model)
            _cast_weights(other._model, placement.dtype)
            other._autocast = _autocast(placement)
        other._text = text_forward(other._model)
        other.towers = replace(self.towers, model=other._model)
        return other

    def with_image_tower(
        self, backend: str, make: Callable[[Callable[[torch.Tensor], torch.Tensor]], Callable[..., torch.Tensor]]
    ) -> ClipEncoder:
        """Return the same encoder with another way to compute its image tower; this one stays as it is.

        Args:
            backend: What it is called.
            make: Returns it, given the tower: from (n, 3, H, W) float32 on the device, channels last, to (n, dim).
        """
        other = copy.copy(self)
        other.backend, other._tower = backend, make(self._model.encode_image)
        return other

    def open_image(self, source: ImageLike, limits: DecodeLimits = DEFAULT_LIMITS) -> DecodedImage[Image.Image]:
        """Return an image decoded as large as this encoder needs it; its width and height are those of the file.

        Raises:
            ImageError: It cannot be decoded.
        """
        return decode_image(source, limits, shrink=self._fast.exact.shrink)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Return one RGB image as the model wants it: (3, H, W) float32. Meant for decode threads; needs no GPU."""
        return self._fast.floats(image)

    def byte_pixels(self, image: Image.Image) -> np.ndarray:
        """Return one RGB image as (3, H, W) uint8: a quarter of the memory of `preprocess`, in half the time."""
        return self._fast(image)

    def encode_pixels(self, pixels: np.ndarray | torch.Tensor) -> np.ndarray:
        """Return (n, dim) float32 unit rows for (n, 3, H, W) images, in the order given.

        Args:
            pixels: What `preprocess` gives (floats) or what `byte_pixels` gives (uint8).

        Raises:
            EncoderError: The shape is neither's, or a vector is not finite.
        """
        batch = torch.as_tensor(pixels)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != self._fast.pixel_shape:
            expected = ", ".join(["n", *map(str, self._fast.pixel_shape)])
            raise EncoderError(f"pixels have shape {tuple(batch.shape)}, encoder {self.spec!r} takes ({expected})")
        return self._rows(self._pool.map(self._images, self._parts(batch, 1)))

    def encode_images(self, images: Sequence[ImageLike]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for images, in the order given.

        For a GPU the next batch is decoded while one is computed; 10,000 images and more in one call are decoded in
        processes, as a build does it, once these have been started.

        Raises:
            ImageError: One of them cannot be decoded.
        """
        size = self.batch_size  # of now: where a batch finds no memory it becomes smaller
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        if self._decodes_ahead and len(batches) > 1:
            return self._encoded_ahead(batches, len(images))
        parts = [self.encode_pixels(np.stack(self._decoders.map(self._bytes_of, batch))) for batch in batches]
        return np.concatenate(parts) if parts else self._rows([])

    def _encoded_ahead(self, batches: Sequence[Sequence[ImageLike]], count: int) -> np.ndarray:
        with ExitStack() as stack:
            processes = None
            if processes_pay(self._decoders.count, count):
                processes = stack.enter_context(
                    DecodeProcesses(
                        self.preprocess_config,
                        DEFAULT_LIMITS,
                        processes=self._decoders.count,
                        slots=BATCHES_HELD * len(batches[0]),
                    )
                )
                if self._kind == "cuda":
                    stack.enter_context(pinned(processes.pixels.array, self.device))
            decoded = decoded_batches(batches, self._bytes_of, self._decoders.submit, processes)
            return np.concatenate([self._released(batch) for batch in stack.enter_context(closing(decoded))])

    def _released(self, batch: DecodedBatch) -> np.ndarray:
        rows = self.encode_pixels(batch.pixels)
        batch.release()
        return rows

    def _bytes_of(self, image: ImageLike) -> np.ndarray:
        return self.byte_pixels(self.open_image(image).pixels)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, dim) float32 unit rows for texts, in the order given; texts too long for the model are truncated.

        Raises:
            EncoderError: An item is not a text, or a vector is not finite.
        """
        if isinstance(texts, str):
            raise EncoderError(f"encode_texts takes a list of texts, got the one text {texts[:40]!r}; put it in a list")
        invalid = next((text for text in texts if not isinstance(text, str)), None)
        if invalid is not None:
            raise EncoderError(f"encode_texts takes texts, got {type(invalid).__name__} {invalid!r}")
        if not len(texts):
            return self._rows([])
        ids = self._tokenize(list(texts))
        # Texts of similar length share a batch, so that a short one is not padded to the length of a long one.
        lengths = self._text.lengths(ids)
        order = torch.argsort(lengths, stable=True)
        small = int(lengths.sum()) <= FEW_TOKENS and self._text.cuts
        parts = self._parts(order, TEXTS_PER_IMAGE)
        encoded = self._pool.map(lambda part: self._texts(ids[part, : int(lengths[part].max())]), parts, small=small)
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        rows[order.numpy()] = self._rows(encoded)
        return rows

    def _parts(self, batch: torch.Tensor, times: int) -> list[torch.Tensor]:
        """Return a batch split into forward passes of `times` the usual size, or less to occupy every core."""
        if not len(batch):
            return []
        limit = min(self._pass or self.batch_size, self.batch_size) * times
        return list(torch.split(batch, min(limit, -(-len(batch) // self._pool.count))))

    def _images(self, batch: torch.Tensor) -> torch.Tensor:
        if self._compiled is not None:
            return torch.from_numpy(self._compiled(self._fast.bytes_of(batch).numpy()))
        return self._run(self._image_features, batch)

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features of bytes or floats; bytes are scaled here, where `_run` halves what finds no memory."""
        if pixels.dtype == torch.uint8:
            wide = self._fast.scaled(pixels)
        else:
            wide = pixels.to(torch.float32, memory_format=torch.channels_last)
        features: torch.Tensor = (self._tower or self._model.encode_image)(wide)
        return features

    def _texts(self, ids: torch.Tensor) -> torch.Tensor:
        return self._run(self._text, ids)

    def _run(self, tower: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        """Return unit rows on the device; on a GPU the call returns before they are computed."""
        with torch.inference_mode():
            try:
                with torch.autocast(**self._autocast):
                    features = tower(self._sent(batch))
            except torch.OutOfMemoryError as error:
                if len(batch) == 1 and self._tower is None:
                    raise EncoderError(
                        f"device {self.device!r} has no memory left for one item of encoder {self.spec!r}: "
                        f"{str(error).partition('.')[0]}; end what else runs there, or use --device cpu"
                    ) from error
                features = None
            if features is None:  # outside of the handler, which holds the tensors of the frames that failed
                return self._in_halves(tower, batch)
            return functional.normalize(features.float(), dim=-1)

    def _in_halves(self, tower: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        """Return what `_run` does for a batch that the device had no memory for; later ones are as small at once."""
        if self._kind == "cuda":
            torch.cuda.empty_cache()
        if self._tower is not None:  # holds memory, and needs it for a batch of its own size whatever is left of one
            self._tower, self.backend = None, "torch"
            return self._run(tower, batch)
        half = -(-len(batch) // 2)
        if tower is not self._text and half < self.batch_size:
            self.batch_size = half
        return torch.cat([self._run(tower, part) for part in torch.split(batch, half)])

    def _rows(self, parts: Sequence[torch.Tensor]) -> np.ndarray:
        """Return the rows of all parts on the CPU, checked."""
        if not parts:
            return np.empty((0, self.dim), dtype=np.float32)
        with torch.inference_mode():
            rows: np.ndarray = torch.cat(list(parts)).cpu().numpy()
        if not np.isfinite(rows).all():
            precision = self.precision
            hint = "; fp16 may have overflowed, try --precision bf16 or fp32" if precision == "fp16" else ""
            raise EncoderError(f"encoder {self.spec!r} gave values that are not finite at {precision}{hint}")
        return rows

    def _tokenize(self, texts: list[str]) -> torch.Tensor:
        with self._tokenizer_lock:
            return self._tokenizer(texts)


def _passes(model: nn.Module, placement: Placement) -> tuple[int | None, int | None]:
    """Return images per forward pass, on a CPU on one core: of torch, and of OpenVINO; None for a whole batch."""
    if placement.kind != "cpu":
        return None, None
    convolutions = sum(isinstance(part, nn.Conv2d) for part in model.visual.modules())  # type: ignore[union-attr]
    return CONVOLUTIONAL_PASSES if convolutions > 4 else TRANSFORMER_PASSES


def _autocast(placement: Placement) -> dict[str, Any]:
    return {"device_type": placement.kind, "dtype": placement.dtype, "enabled": placement.precision != "fp32"}


def _logit_scale(towers: TwoTowers) -> float | None:
    """Return what the model was trained to multiply cosines with before a softmax; None where it never was."""
    if towers.details.get("family") == "lite":
        return LOGIT_SCALE
    learned: Any = getattr(towers.model, "logit_scale", None)
    if learned is None:
        return None
    return float(torch.as_tensor(learned).detach().float().exp())


def _dim(towers: TwoTowers) -> int:
    """Return the length of the vectors, which a projection head may make differ from `embed_dim`."""
    with torch.inference_mode():
        model: Any = towers.model
        return int(model.encode_text(towers.tokenizer([""])).shape[-1])
