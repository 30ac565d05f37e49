"""An image tower compiled, or replayed as a CUDA graph: on the CPU device, and by an object that stands for CUDA."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

from encoders import EncoderError, load_encoder
from encoders.gpu_backends import GPU_BACKENDS, CudaGraph, FixedBatches, compiled, faster, gated
from encoders.open_clip_encoder import ClipEncoder
from indexer import BuildError, build_index
from indexer.config import ON_GPU, BuildConfig


class Cuda:
    """What is asked of CUDA, in order. A replay computes again what was computed while the graph was captured."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.captured: Callable[[], Any] | None = None
        self.recording = False

    def tower(self, images: torch.Tensor) -> torch.Tensor:
        cached = torch.is_autocast_cache_enabled()
        self.calls.append(f"compute {len(images)}{' with cached weights' if cached else ''}")
        features = images.mean((2, 3))
        if self.recording:
            self.captured = lambda: features.copy_(images.mean((2, 3)))
        return features

    @contextmanager
    def device(self, name: str) -> Iterator[None]:
        self.calls.append(f"on {name}")
        yield

    def current_stream(self) -> Stream:
        return Stream(self, "own")

    def Stream(self) -> Stream:  # noqa: N802
        return Stream(self, "aside")

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.calls.append(f"begin {stream.name}")
        yield
        self.calls.append(f"end {stream.name}")

    def CUDAGraph(self) -> Cuda:  # noqa: N802
        return self

    @contextmanager
    def graph(self, graph: Cuda, capture_error_mode: str) -> Iterator[None]:
        self.calls.append(f"capture, errors {capture_error_mode}")
        self.recording = True
        yield
        self.recording = False

    def replay(self) -> None:
        self.calls.append("replay")
        assert self.captured is not None
        self.captured()


class Stream:
    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: Stream) -> None:
        self.cuda.calls.append(f"{self.name} waits for {other.name}")


def batch(count: int, seed: int = 0) -> torch.Tensor:
    images = torch.rand(count, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    return images.to(memory_format=torch.channels_last)


def test_a_graph_is_captured_once_and_replayed_for_batches_of_all_sizes() -> None:
    cuda = Cuda()
    with torch.autocast("cpu", torch.bfloat16):
        tower = FixedBatches(CudaGraph(cuda.tower, "cuda:1", cuda), 4)
        first, images = tower(batch(4)), batch(9, seed=1)
        assert cuda.calls == [
            *(
                "on cuda:1",
                "aside waits for own",
                "begin aside",
                *["compute 4"] * 3,
                "end aside",
                "own waits for aside",
            ),
            *("capture, errors thread_local", "compute 4", "replay"),
        ]
        assert torch.is_autocast_cache_enabled()
        cuda.calls.clear()
        rows = tower(images)
    assert cuda.calls == ["on cuda:1", "replay"] * 3
    torch.testing.assert_close(rows, images.mean((2, 3)))
    torch.testing.assert_close(first, batch(4).mean((2, 3)))  # a later batch does not overwrite it


def test_batches_are_of_one_size_and_of_one_layout() -> None:
    seen = list[tuple[int, bool]]()

    def tower(images: torch.Tensor) -> torch.Tensor:
        seen.append((len(images), images.is_contiguous(memory_format=torch.channels_last)))
        return images.sum((1, 2, 3))[:, None]

    images = batch(7)
    torch.testing.assert_close(FixedBatches(tower, 3)(images), images.sum((1, 2, 3))[:, None])
    assert seen == [(3, True)] * 3


@pytest.fixture
def encoder(tiny_folder: Path) -> ClipEncoder:
    made: Any = load_encoder(f"local-dir:{tiny_folder}", device="cpu")
    made._pass, made.batch_size = None, 4
    return made


def nobody(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.parametrize(
    ("precision", "compiler"), [("fp32", "aot_eager"), ("bf16", "aot_eager"), ("fp32", "inductor")]
)
def test_a_compiled_tower_gives_the_vectors_of_the_plain_one_and_is_compiled_once(
    tiny_folder: Path, make_picture: Callable, precision: str, compiler: str
) -> None:
    """`aot_eager` generates no code; `inductor`, which a GPU gets, takes a quarter of a minute once a machine."""
    if compiler == "inductor" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    plain: Any = load_encoder(f"local-dir:{tiny_folder}", device="cpu", precision=precision)
    plain._pass, plain.batch_size = None, 4
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    fast = gated(plain, "torch-compile", partial(compiled, compiler=compiler), nobody)
    assert (fast.backend, plain.backend, fast.fingerprint) == ("torch-compile", "torch", plain.fingerprint)
    pictures = [make_picture(seed=number) for number in range(9)]
    assert (fast.encode_images(pictures) * plain.encode_images(pictures)).sum(1).min() > 0.9999
    assert np.abs(fast.encode_images(pictures[:1]) - plain.encode_images(pictures[:1])).max() < 0.01
    np.testing.assert_array_equal(fast.encode_texts(["a dog"]), plain.encode_texts(["a dog"]))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_graph_passes_the_same_gate(encoder: ClipEncoder, make_picture: Callable) -> None:
    """The encoder's own way from pixels to rows; the object that stands for CUDA computes the tower again."""

    class Graph(Cuda):
        def __init__(self, real: Any) -> None:
            super().__init__()
            self.real = real

        def tower(self, images: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.real(images)
            if self.recording:
                self.captured = lambda: features.copy_(self.real(images))
            return features

    def make(tower: Any, device: str) -> Any:
        cuda = Graph(tower)
        return CudaGraph(cuda.tower, device, cuda)

    fast = gated(encoder, "cuda-graph", make, nobody)
    pictures = [make_picture(seed=number) for number in range(9)]
    np.testing.assert_allclose(fast.encode_images(pictures), encoder.encode_images(pictures), atol=1e-6)


def test_other_vectors_are_refused_in_one_line_and_the_encoder_stays_as_it_is(encoder: ClipEncoder) -> None:
    said = list[str]()
    kept = gated(encoder, "cuda-graph", lambda tower, device: lambda images: tower(images).roll(1, 0), said.append)
    assert kept is encoder
    assert len(said) == 1
    assert said[0].startswith("images are encoded by torch, not by cuda-graph: its cosine to torch, 0.")


def test_no_memory_for_whole_batches_leaves_the_encoder_and_its_batch_size(
    encoder: ClipEncoder, make_picture: Callable
) -> None:
    def make(tower: Any, device: str) -> Any:
        def limited(images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        return limited

    said = list[str]()
    assert gated(encoder, "cuda-graph", make, said.append) is encoder
    assert said == [
        "images are encoded by torch, not by cuda-graph: cpu has no memory for it in batches of 4; a smaller "
        "--batch-size may find some"
    ]
    late = encoder.with_image_tower("cuda-graph", lambda tower: make(tower, "cpu"))
    pictures = [make_picture(seed=number) for number in range(5)]
    np.testing.assert_allclose(late.encode_images(pictures), encoder.encode_images(pictures), atol=1e-6)
    assert (late.backend, late.batch_size, encoder.batch_size) == ("torch", 4, 4)


def test_what_cannot_be_compiled_is_one_clear_error(encoder: ClipEncoder) -> None:
    def make(tower: Any, device: str) -> Any:
        def fail(images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

        return fail

    with pytest.raises(EncoderError, match=r"^torch-compile cannot compute encoder .* on cpu: RuntimeError: Failed to"):
        gated(encoder, "torch-compile", make, nobody)


def test_without_a_gpu_it_is_refused_before_anything_is_loaded(encoder: ClipEncoder, tmp_path: Path) -> None:
    with pytest.raises(
        EncoderError, match="cuda-graph computes on a GPU, and device 'cpu' is none here; leave --backend"
    ):
        faster(encoder, "cuda-graph", nobody)
    if not torch.cuda.is_available():
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "a.txt").touch()
        (tmp_path / "photos" / "a.png").touch()
        with pytest.raises(EncoderError, match="torch-compile computes on a GPU, and device 'auto' is none"):
            build_index(tmp_path / "photos", tmp_path / "index", encoder="local-dir:none", backend="torch-compile")
    assert tuple(GPU_BACKENDS) == ON_GPU
    assert set(ON_GPU) < set(get_type_hints(BuildConfig)["backend"].__args__)


@pytest.mark.parametrize("settings", [{"device": "cpu"}, {"executor": "ray"}])
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="--backend cuda-graph computes on a GPU of this machine") as raised:
        BuildConfig(backend="cuda-graph", **settings)
    assert raised.value.exit_code == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ON_GPU)
def test_a_gpu_gives_the_vectors_of_the_plain_way(backend: str, tiny_folder: Path, make_picture: Callable) -> None:
    plain: Any = load_encoder(f"local-dir:{tiny_folder}", device="cuda")
    fast = faster(plain, backend, nobody)
    pictures = [make_picture(seed=number) for number in range(300)]
    assert (fast.encode_images(pictures) * plain.encode_images(pictures)).sum(1).min() > 0.999
