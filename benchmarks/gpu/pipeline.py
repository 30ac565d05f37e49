"""From photographs to an index: build-index beside decoding alone, encoding alone, and a plain loop over the files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from encode import SETS, decode_alone, enlarged, repeated

from gpu.meters import Stages, seconds_of, utilisation
from gpu.models import random_towers, saved_model
from gpu.notes import Run
from gpu.photographs import rows_of

CORES = os.cpu_count() or 1
SMALL, MIDDLE, LARGE = SETS


def pipeline(run: Run) -> None:
    """build-index of three kinds of photographs, and of photographs with captions."""
    from encoders import load_encoder

    folder = saved_model(run, "ViT-B-32")
    precision = "auto" if run.device != "cpu" else "bf16"
    encoder: Any = load_encoder(f"local-dir:{folder}", device=run.device, precision=precision)
    encode_alone(run, encoder)
    for kind, (paths, count) in photograph_sets(run).items():
        with run.notes.part(f"pipeline of {kind}"):
            run.notes.need(10)
            corpus = repeated(paths, count, run.work)
            files = sorted(corpus.iterdir())
            some = files[: run.pick(max(64, count // 3), 24)]
            build_of_photographs(run, kind, encoder, corpus, some)
            if kind == MIDDLE:
                with run.notes.part("decode threads"):
                    run.notes.need(16)
                    decode_threads(run, kind, encoder, corpus, SWITCHED)
                with run.notes.part("the plain loop"):
                    run.notes.need(15)
                    plain_loop(run, kind, files[: run.pick(6000, 32)])
            if kind != LARGE:
                with run.notes.part(f"{kind}: threads beside processes"):
                    run.notes.need(16)
                    decode_threads(run, kind, encoder, corpus, BESIDE)
                with run.notes.part(f"{kind}: decoding in processes"):
                    run.notes.need(10)
                    decode_in_processes(run, kind, folder, some)
    with run.notes.part("several GPUs"):
        run.notes.need(15)
        several_gpus(run, encoder)
    with run.notes.part("photographs with five captions each"):
        run.notes.need(10)
        captioned(run, encoder)


def photograph_sets(run: Run) -> dict[str, tuple[list[Path], int]]:
    """Return photographs of each kind, and how many files to build of."""
    small, middle = (sorted((run.photographs / name).glob("*.jpg")) for name in ("flickr8k", "coco"))
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(enlarged, path, run.work / f"large_{number}.jpg", number)
            for number, path in enumerate(middle[: run.pick(16, 2)])
        ]
        large = [job.result() for job in jobs]
    sizes = run.pick((12_000, 12_000, 1_000), (64, 48, 6))
    return dict(zip(SETS, zip((small, middle, large), sizes, strict=True), strict=True))


def built(run: Run, source: Path, encoder: Any, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Build an index anew; return the report and what it tells of its encoding stage."""
    from indexer import build_index

    index = run.work / "index"
    shutil.rmtree(index, ignore_errors=True)
    report = build_index(source, index, encoder=encoder, **settings)
    return report, dict(report.manifest.build)["encode"]


def build_of_photographs(run: Run, kind: str, encoder: Any, corpus: Path, some: Sequence[Path]) -> None:
    notes, stages = run.notes, Stages()
    decode, _ = decode_alone(encoder, some)
    notes.figure(f"{kind}: decode alone, {CORES} threads", decode, "images/s")
    with utilisation(run, kind):
        report, told = built(run, corpus, encoder, progress=stages)
    notes.fact(f"{kind}: encode", told)
    notes.fact(f"{kind}: stages", stages.done())
    count, rate = told["items"], told["items"] / told["seconds"]
    notes.figure(f"{kind}: build-index, {count:,} files, encoding stage", rate, "images/s")
    notes.figure(f"{kind}: build-index as a whole", count / report.seconds, "images/s")
    notes.figure(f"{kind}: beside decoding alone", rate / decode, asked=">= 0.9")
    notes.figure(f"{kind}: bottleneck", told["bottleneck"])


def encode_alone(run: Run, encoder: Any) -> None:
    """Images a second of bytes in memory, copied beside the arithmetic and, as it was before, in one queue with it."""
    pixels = np.random.default_rng(0).integers(0, 256, (encoder.batch_size, 3, 224, 224), dtype=np.uint8)
    rounds, name = run.pick(40, 2), "encode alone, bytes in memory, two threads"

    def in_one_queue(batch: Any) -> Any:
        return (batch.pin_memory() if run.device != "cpu" else batch).to(run.device, non_blocking=True)

    beside = encoder._sent
    with ThreadPoolExecutor(2) as two:
        for way, send in ((name, beside), (f"{name}, copies in the queue of the arithmetic", in_one_queue)):
            encoder._sent = send
            took = seconds_of(lambda: list(two.map(encoder.encode_pixels, [pixels] * rounds)), run.device, repeats=1)
            run.notes.figure(way, rounds * len(pixels) / took, "images/s")
    encoder._sent = beside


# Ways to decode: what is given to the build, and the interpreter's switch interval in seconds.
BESIDE = {
    "decoding in threads": ({"decode_in": "threads"}, 0.005),
    "decoding in processes": ({"decode_in": "processes"}, 0.005),
}
SWITCHED = {
    "twice the decode threads": ({"decode_in": "threads", "decode_workers": 2 * CORES}, 0.005),
    "threads that switch every 0.5 ms": ({"decode_in": "threads"}, 0.0005),
}


def decode_threads(run: Run, kind: str, encoder: Any, corpus: Path, ways: Mapping[str, Any]) -> None:
    """Whether the interpreter's lock holds decoding up: threads, processes, threads that take turns more often."""
    before = sys.getswitchinterval()
    for name, (settings, interval) in ways.items():
        sys.setswitchinterval(interval)
        try:
            _, told = built(run, corpus, encoder, **settings)
        finally:
            sys.setswitchinterval(before)
        run.notes.figure(f"{kind}: build-index with {name}", told["items"] / told["seconds"], "images/s")
        if settings["decode_in"] == "processes":
            run.notes.figure(f"{kind}: of that, starting {CORES} processes", starting(encoder), "s")


def several_gpus(run: Run, encoder: Any) -> None:
    """Bytes in memory through one encoder and through one on each device; on a CPU two on it stand for them."""
    import torch

    from encoders import load_encoder
    from indexer.encode.several_devices import EncoderTeam

    count = torch.cuda.device_count() if run.device != "cpu" else 2
    pixels = np.random.default_rng(0).integers(0, 256, (encoder.batch_size, 3, 224, 224), dtype=np.uint8)
    rates, rows, teams = [], [], [[encoder]]
    if count > 1:
        names = [f"cuda:{number}" if run.device != "cpu" else "cpu" for number in range(1, count)]
        teams.append([encoder, *(load_encoder(encoder.spec, name, encoder.precision) for name in names)])
    for encoders in teams:
        team, rounds = EncoderTeam(encoders), run.pick(40 * len(encoders), 2)
        with ThreadPoolExecutor(team.threads) as threads:

            def work(team: Any = team, threads: Any = threads, rounds: int = rounds) -> None:
                rows.append(list(threads.map(team.encode_pixels, [pixels] * rounds)))

            took = seconds_of(work, run.device, repeats=1)
        rates.append(rounds * len(pixels) / took)
        run.notes.figure(
            f"encode alone, bytes in memory, {len(encoders)} devices in one process", rates[-1], "images/s"
        )
    if count > 1:
        run.notes.figure(f"{count} devices beside one", rates[1] / rates[0], asked=f">= {0.9 * count:.1f}")
        equal = all(np.array_equal(rows[0][0], row) for found in rows for row in found)
        run.notes.figure("vectors of each device are the same to the last bit", equal, asked="True")


def starting(encoder: Any) -> float:
    """Return the seconds after which all processes that decode are there."""
    from encoders import DecodeLimits
    from encoders.decoding.processes import DecodeProcesses

    began = time.perf_counter()
    with DecodeProcesses(encoder.preprocess_config, DecodeLimits(), processes=CORES, slots=1) as processes:
        processes.wait()
        return time.perf_counter() - began


def decode_in_processes(run: Run, kind: str, folder: Path, paths: Sequence[Path]) -> None:
    """Images a second without one interpreter's lock; the workers never touch a GPU."""
    pool = ProcessPoolExecutor(CORES, initializer=_decoder, initargs=(str(folder),))
    seconds = run.pick(30.0, 120.0)
    try:
        list(pool.map(_decoded, paths[:64], chunksize=4, timeout=seconds))
        began = time.perf_counter()
        list(pool.map(_decoded, paths, chunksize=16, timeout=seconds))
        rate = len(paths) / (time.perf_counter() - began)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    run.notes.figure(f"{kind}: decode alone, {CORES} processes, pixels dropped", rate, "images/s")


_preprocess: Any = None


def _decoder(folder: str) -> None:
    """Make a preprocessor in a worker process, which never touches a GPU."""
    global _preprocess
    import torch

    from encoders.fast_preprocess import FastPreprocess
    from encoders.preprocess import Preprocess

    torch.set_num_threads(1)
    config = json.loads((Path(folder) / "open_clip_config.json").read_text("utf-8"))
    _preprocess = FastPreprocess(Preprocess(config["preprocess_cfg"]))


def _decoded(path: Path) -> int:
    from encoders import decode_image

    return _preprocess(decode_image(path, shrink=_preprocess.exact.shrink).pixels).nbytes


def plain_loop(run: Run, kind: str, paths: Sequence[Path]) -> None:
    """Images a second of a DataLoader over the files with open_clip's own transform, bf16 by autocast."""
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    towers, workers = random_towers("ViT-B-32", run.device), min(16, CORES)
    model = towers.model.to(run.device)
    loader = torch.utils.data.DataLoader(
        Files(paths, image_transform_v2(PreprocessCfg(**towers.preprocess), is_train=False)),
        batch_size=run.pick(256, 8),
        num_workers=workers,
        pin_memory=run.device != "cpu",
    )
    rows = []
    began = time.perf_counter()
    with torch.inference_mode(), torch.autocast(run.device.partition(":")[0], dtype=torch.bfloat16):
        for batch in loader:
            features = model.encode_image(batch.to(run.device, non_blocking=True))
            rows.append((features / features.norm(dim=-1, keepdim=True)).float().cpu())
    rate = len(paths) / (time.perf_counter() - began)
    run.notes.figure(f"{kind}: open_clip's loop with a DataLoader of {workers} workers", rate, "images/s")


class Files:
    """A dataset of images, as a user would write it."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Any], Any]) -> None:
        self._paths, self._transform = list(paths), transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> Any:
        from PIL import Image

        return self._transform(Image.open(self._paths[row]).convert("RGB"))


def captioned(run: Run, encoder: Any) -> None:
    """Texts and images of one corpus: whether they hold each other up."""
    notes, count = run.notes, run.pick(6000, 24)
    rows = [row for row in rows_of(run.photographs) if row["image"].startswith("flickr8k")]
    folder = repeated([run.photographs / row["image"] for row in rows], count, run.work / "captioned")
    captions = [rows[number % len(rows)]["captions"] for number in range(count)]
    lines = [
        {"image": str(path), "captions": texts} for path, texts in zip(sorted(folder.iterdir()), captions, strict=True)
    ]
    table = run.work / "captioned.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    name = f"{count:,} photographs of 224 x 224 with five captions each"
    with utilisation(run, name):
        _, told = built(run, table, encoder, progress=Stages())
    notes.fact("captioned: encode", told)
    notes.figure(f"{name}: items", told["items"] / told["seconds"], "items/s")
    spent = f"{told['stages']['encoding texts']} of {told['seconds']}"
    notes.figure(f"{name}: encoding texts, of all", spent, "s")
