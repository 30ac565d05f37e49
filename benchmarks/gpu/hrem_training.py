"""fit-hrem on made-up regions of Flickr30K's shape: both text towers, two precisions, each way of interaction."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpu.meters import TrainingSteps, memory_taken, utilisation
from gpu.models import made_up_bert
from gpu.notes import Run

LOOKS = 200  # words that a region can show
WORDS = ["a", "with", "on", "it", *(f"w{number}x0" for number in range(LOOKS))]


@dataclass(frozen=True, kw_only=True)
class Training:
    """One of the runs."""

    bert: str
    precision: str
    interaction: Any
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        text = "bigru" if self.bert == "bigru" else "BERT"
        frozen = " frozen" if self.more.get("freeze_bert") else ""
        pooling = f", {self.more['pooling']}" if "pooling" in self.more else ""
        return f"HREM, {text}{frozen}, {self.precision}, {self.interaction}{pooling}"


def hrem(run: Run) -> None:
    """Six runs of some seconds each."""
    data = run.work / "made_up_precomp"
    write_regions(data, run.pick((1000, 200), (24, 8)), run.pick((36, 2048), (6, 32)))
    bert = made_up_bert(run, WORDS)
    trainings = (
        Training(bert="bigru", precision="fp32", interaction="fusion"),
        Training(bert="bigru", precision="bf16", interaction="fusion"),
        Training(bert="bigru", precision="fp32", interaction="standalone", more={"pooling": "gpo"}),
        Training(bert=bert, precision="fp32", interaction="fusion"),
        Training(bert=bert, precision="bf16", interaction="fusion"),
        Training(bert=bert, precision="fp32", interaction="none", more={"freeze_bert": True}),
    )
    for number, training in enumerate(trainings):
        with run.notes.part(training.name):
            run.notes.need(10)
            fit(run, training, data, run.work / f"hrem-{number}")


def fit(run: Run, training: Training, data: Path, out: Path) -> None:
    from training.hrem import HremConfig, fit_hrem

    name, notes, steps = training.name, run.notes, TrainingSteps()
    for path in (out, out.with_name(f"{out.name}.fit")):
        shutil.rmtree(path, ignore_errors=True)
    tiny = {"dim": 64, "batch_size": 16, "heads": 4}
    config = HremConfig(
        bert=training.bert,
        precision=training.precision,
        interaction=training.interaction,
        device=run.device,
        epochs=1 if training.interaction == "none" else 2,
        warmup_epochs=0.0,
        time_limit=run.pick(7.0, 20.0),
        workers=run.pick(4, 1),
        cache=str(run.work / "states"),
        **run.pick({"dim": 1024, "batch_size": 128}, tiny),
        **training.more,
    )
    with memory_taken(run, name), utilisation(run, name):
        report = fit_hrem(data, out, config, steps)
    notes.fact(f"{name}: curve", report.curve)
    if steps.step is not None:
        notes.figure(f"{name}: a step of {config.batch_size} captions, median", steps.step, "s")
    losses = [round(row["loss"], 3) for row in report.curve if row.get("loss") is not None]
    notes.figure(f"{name}: losses", str(losses))
    beside_the_cpu(run, name, data, out)


def beside_the_cpu(run: Run, name: str, data: Path, out: Path) -> None:
    """The trained towers on the device and on the CPU."""
    from encoders import load_encoder

    regions: Any = [np.load(data / "test_ims.npy")[row] for row in range(4)]
    on, off = (load_encoder(f"hrem:{out}", device=device, precision="fp32") for device in (run.device, "cpu"))
    captions = ["w1x0 a w2x0"]
    cosines = (
        *(on.encode_images(regions) * off.encode_images(regions)).sum(1),
        *(on.encode_texts(captions) * off.encode_texts(captions)).sum(1),
    )
    run.notes.figure(f"{name}: trained towers beside the CPU, lowest cosine", float(min(cosines)), asked="> 0.999")


def write_regions(folder: Path, images: tuple[int, int], shape: tuple[int, int]) -> None:
    """Images whose regions carry the direction of a word, so that there is something to learn.

    Args:
        folder: Where the three splits go.
        images: How many of the training split, and of each of the others.
        shape: Regions of an image, and features of a region.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    looks = rng.standard_normal((LOOKS, shape[1]), dtype=np.float32)
    for split, count in (("train", images[0]), ("dev", images[1]), ("test", images[1])):
        shown = rng.integers(0, LOOKS, (count, 4))
        features = rng.standard_normal((count, *shape), dtype=np.float32)
        features[:, :4] += looks[shown]
        np.save(folder / f"{split}_ims.npy", features)
        lines = [
            f"a w{words[number % 4]}x0 with w{words[(number + 1) % 4]}x0 on it"
            for words in shown
            for number in range(5)
        ]
        (folder / f"{split}_caps.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
