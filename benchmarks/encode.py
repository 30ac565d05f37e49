"""Photographs through build-index's pipeline, beside its two halves alone: decoding, and encoding what is decoded.

Three kinds of photographs (Flickr8k at 224 x 224, COCO at 640 pixels, 12-megapixel JPEGs made from those), two encoders
(`lite`; ViT-B-32 with random weights) on the CPU. On a CPU both halves use the same cores, so that the work of both
together is the limit: 1 / (1 / decode + 1 / encode). What the pipeline itself costs shows with a stand-in encoder that
only waits, as one with a device of its own would. Also the vectors of the quick path beside those of a full decode and
open_clip's own transform.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import Figure, need_data, record

from encoders import Encoder, decode_image, load_encoder
from encoders.checkpoints import load_towers
from encoders.cpu_backends import fastest
from encoders.images import open_image, pixels_for
from encoders.preprocess import Preprocess

SETS = ("Flickr8k, 224 x 224", "COCO, 640 x 480", "12 megapixels")
COUNTS = {"lite": (1200, 480, 96), "ViT-B-32": (160, 120, 48)}
ENCODED_ALONE = {"lite": 480, "ViT-B-32": 80}
SHARE = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="+", default=["lite", "ViT-B-32"])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--raced", action="store_true", help="Encode by the backend that a build takes by itself.")
    parser.add_argument("--only", action="store_true", help="Leave out the comparison of vectors.")
    parser.add_argument("--name", default="encode", help="of the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sets = photographs(Path(scratch))
        figures: list[Figure] = []
        for name in arguments.encoders:
            encoder = opened(name, Path(scratch), arguments.precision)
            if arguments.raced:
                encoder, race = fastest(encoder, remember=False)  # type: ignore[arg-type]
                figures.append(Figure(f"{name}: taken by a build", race.winner.name))
            for kind, paths in sets.items():
                count = COUNTS[name][SETS.index(kind)]
                figures += speed(f"{name}, {kind}", encoder, repeated(paths, count, Path(scratch)))
            if arguments.only:
                continue
            checked = 100 if name == "lite" else 24
            figures += [
                one for kind, paths in sets.items() for one in parity(f"{name}, {kind}", encoder, paths[:checked])
            ]
        figures += [] if arguments.only else [overlap(sets[SETS[1]], Path(scratch))]
    precision = "the backend that is fastest here" if arguments.raced else arguments.precision
    record(arguments.name, figures, f"{os.cpu_count()} decode threads; {precision}. {NOTES}")


NOTES = (
    "Decode: bytes to preprocessed pixels; encode: pixels in memory to vectors; pipeline: the encoding stage of "
    "build-index. CPU bound: what is left when both halves share the cores, 1 / (1 / decode + 1 / encode); against it "
    "the pipeline is to be judged where the encoder runs on the CPU. Cosine: against a full decode and open_clip's own "
    "transform, lowest over each set (`lite`: over all photographs that were made, at most 100; ViT-B-32: 24)."
)


def photographs(scratch: Path) -> dict[str, list[Path]]:
    data = need_data()
    small = sorted((data / "flickr8k" / "images").iterdir())
    middle = sorted((data / "coco_cc" / "images").iterdir())
    large = [enlarged(path, scratch / f"large_{number}.jpg", number) for number, path in enumerate(middle[:24])]
    return dict(zip(SETS, (small, middle, large), strict=True))


def enlarged(path: Path, to: Path, seed: int) -> Path:
    """Write a photograph at 12 megapixels, with the noise of a sensor for detail."""
    image = Image.open(path).convert("RGB")
    size = (4000, 3000) if image.width >= image.height else (3000, 4000)
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS)).astype(np.int16)
    noise = np.random.default_rng(seed).integers(-6, 7, pixels.shape[:2], dtype=np.int16)
    Image.fromarray(np.clip(pixels + noise[:, :, None], 0, 255).astype(np.uint8)).save(to, quality=90)
    return to


def repeated(paths: Sequence[Path], count: int, scratch: Path) -> Path:
    """Return a folder with `count` photographs, each as often as it takes."""
    folder = scratch / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:05}.jpg").symlink_to(paths[number % len(paths)].resolve())
    return folder


def opened(name: str, scratch: Path, precision: str) -> Encoder:
    if name == "lite":
        return load_encoder(name, device="cpu", precision=precision)
    import open_clip
    import torch
    from fidelity import save

    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None).eval()
    (scratch / name).mkdir()
    save(model, name, scratch / name)
    return load_encoder(f"local-dir:{scratch / name}", device="cpu", precision=precision)


@dataclass(frozen=True)
class Rates:
    """Images a second of the two halves alone and of the pipeline."""

    decode: float
    encode: float
    pipeline: float
    bottleneck: str

    @property
    def bound(self) -> float:
        """What both halves reach on the same cores."""
        return 1 / (1 / self.decode + 1 / self.encode)


def speed(name: str, encoder: Encoder, corpus: Path) -> list[Figure]:
    paths, elsewhere = sorted(corpus.iterdir()), Elsewhere()
    decode, ready = decode_alone(encoder, paths)
    count = ENCODED_ALONE["lite" if encoder.spec == "lite" else "ViT-B-32"]
    encode = encode_alone(encoder, (ready * (count // len(ready) + 1))[:count])
    rates = Rates(decode, encode, *through_pipeline(encoder, corpus))
    slower = min(rates.decode, rates.encode)
    return [
        Figure(f"{name}: decode alone", round(rates.decode, 1), unit="images/s"),
        Figure(f"{name}: encode alone", round(rates.encode, 1), unit="images/s"),
        Figure(f"{name}: CPU bound of both", round(rates.bound, 1), unit="images/s"),
        Figure(f"{name}: pipeline", round(rates.pipeline, 1), unit="images/s"),
        Figure(f"{name}: pipeline beside the slower half", round(rates.pipeline / slower, 3), f">= {SHARE}"),
        Figure(f"{name}: pipeline beside the CPU bound", round(rates.pipeline / rates.bound, 3)),
        Figure(f"{name}: bottleneck", rates.bottleneck),
        Figure(f"{name}: cores that other programs used meanwhile", round(elsewhere.cores(), 2), "0"),
    ]


class Elsewhere:
    """How many cores other programs have used since this was made: what disturbs a measurement."""

    def __init__(self) -> None:
        self._started, self._busy = time.perf_counter(), self._seconds()

    def cores(self) -> float:
        return max(0.0, self._seconds() - self._busy) / (time.perf_counter() - self._started)

    def _seconds(self) -> float:
        """Busy seconds of all cores since the machine started, without those of this process."""
        ticks = [int(value) for value in Path("/proc/stat").read_text("utf-8").splitlines()[0].split()[1:]]
        own = os.times()
        return (sum(ticks[:3]) + sum(ticks[5:7])) / os.sysconf("SC_CLK_TCK") - own.user - own.system


def decode_alone(encoder: Encoder, paths: Sequence[Path]) -> tuple[float, list[np.ndarray]]:
    """Return images a second of as many threads as a build uses, and some of the pixels."""

    def prepare(path: Path) -> np.ndarray:
        return pixels_for(encoder, open_image(encoder, path).pixels)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ready = list(pool.map(prepare, paths[:64]))
        return rate(len(paths), lambda: [None for _ in pool.map(prepare, paths)]), ready


def encode_alone(encoder: Encoder, pixels: Sequence[np.ndarray]) -> float:
    size = encoder.batch_size
    batches = [np.stack(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    encoder.encode_pixels(batches[0])
    return rate(len(pixels), lambda: [encoder.encode_pixels(batch) for batch in batches])


def rate(count: int, work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def through_pipeline(encoder: Encoder, corpus: Path) -> tuple[float, str]:
    """Return images a second of the encoding stage of a build, and what it waited for."""
    from indexer import build_index

    with tempfile.TemporaryDirectory() as scratch:
        report = build_index(corpus, Path(scratch) / "index", encoder=encoder)
        told = dict(report.manifest.build)["encode"]
        return told["items"] / told["seconds"], told["bottleneck"]


class Waiting:
    """A stand-in for an encoder on a device of its own: takes its time and no core."""

    spec, dim, device, precision, batch_size, fingerprint = "waiting", 8, "cpu", "fp32", 32, "0" * 64

    def __init__(self, real: Encoder, images_a_second: float) -> None:
        self.open_image, self.byte_pixels, self.preprocess = real.open_image, real.byte_pixels, real.preprocess  # type: ignore[attr-defined]
        self.images_a_second = images_a_second

    @property
    def info(self) -> Any:
        from storage import EncoderInfo

        return EncoderInfo(spec=self.spec, dim=self.dim, fingerprint=self.fingerprint)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(len(pixels) / self.images_a_second)
        return np.full((len(pixels), self.dim), self.dim**-0.5, dtype=np.float32)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), self.dim), self.dim**-0.5, dtype=np.float32)


def overlap(paths: Sequence[Path], scratch: Path) -> Figure:
    """The pipeline with an encoder as fast as decoding is, so that both must run all the time."""
    corpus = repeated(paths, 1500, scratch)
    real = load_encoder("lite", device="cpu")
    decode, _ = decode_alone(real, sorted(corpus.iterdir()))
    pipeline, _ = through_pipeline(Waiting(real, decode), corpus)  # type: ignore[arg-type]
    name = f"{SETS[1]}: pipeline beside decode alone, encoder on its own device and as fast ({decode:.0f} images/s)"
    return Figure(name, round(pipeline / decode, 3), f">= {SHARE}")


def parity(kind: str, encoder: Encoder, paths: Sequence[Path]) -> list[Figure]:
    """Cosine of each vector to that of a full decode and open_clip's own transform."""
    exact = Preprocess(load_towers(encoder.spec).preprocess)
    reference = encoder.encode_pixels(np.stack([exact(decode_image(path).pixels) for path in paths]))
    cosines = (reference * encoder.encode_images(paths)).sum(axis=1)
    name = f"{kind}: cosine of the quick path over {len(paths)} photographs"
    return [
        Figure(f"{name}, mean", f"{cosines.mean():.6f}", "> 0.999"),
        Figure(f"{name}, lowest", f"{cosines.min():.6f}", "> 0.999"),
    ]


if __name__ == "__main__":
    main()
