"""Fine-tuning of ViT-B-32 on the photographs: steps a second, memory, and whether it learns."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpu.meters import TrainingSteps, memory_taken, seconds_of, utilisation
from gpu.models import random_towers, saved_model
from gpu.notes import Run
from gpu.photographs import paths_of, rows_of

AHEAD, NONE, WAITING = "", ", nothing decoded ahead", ", each loss waited for"
# With the seconds of each, and what goes on while a step is computed.
MODES = (
    ("auto", 25.0, AHEAD),
    ("full", 10.0, AHEAD),
    ("full", 10.0, NONE),
    ("full", 10.0, WAITING),
    ("upper", 10.0, AHEAD),
    ("lora", 10.0, AHEAD),
)
REHEARSED = (("head", 90.0, NONE), ("head", 40.0, WAITING))


def fine_tuning(run: Run) -> None:
    """Four modes, each with its own time limit, one also without what goes on beside a step, and a bare step."""
    from training import CaptionedImages

    count = run.pick(376, 40)
    captions = [row["captions"] for row in rows_of(run.photographs, count)]
    examples = CaptionedImages(paths_of(run.photographs, count), captions)
    spec = f"local-dir:{saved_model(run, 'ViT-B-32')}"
    for mode, seconds, way in run.pick(MODES, REHEARSED):
        name = f"fine-tuning, mode {mode}{way}"
        with run.notes.part(name):
            run.notes.need(seconds + 6)
            with beside_a_step(0 if way == NONE else 2, 0 if way == WAITING else 2):
                fit(run, name, spec, examples, mode, seconds)
    with run.notes.part("a training step with pixels on the device"):
        run.notes.need(10)
        bare_step(run)


@contextmanager
def beside_a_step(decoded: int, unread: int) -> Iterator[None]:
    """Have the images of so many later steps decoded, and the losses of so many unread, while a GPU computes one."""
    from training.fine_tuning import BATCHES_AHEAD
    from training.on_device import STEPS_BEHIND

    before = BATCHES_AHEAD["cuda"], STEPS_BEHIND["cuda"]
    BATCHES_AHEAD["cuda"], STEPS_BEHIND["cuda"] = decoded, unread
    try:
        yield
    finally:
        BATCHES_AHEAD["cuda"], STEPS_BEHIND["cuda"] = before


def fit(run: Run, name: str, spec: str, examples: Any, mode: Any, seconds: float) -> None:
    from encoders import load_encoder
    from training import FitConfig, fit_encoder

    out, steps = run.work / f"fitted-{mode}", TrainingSteps()
    for path in (out, out.with_name(f"{out.name}.fit")):
        shutil.rmtree(path, ignore_errors=True)
    config = FitConfig(
        mode=mode,
        epochs=run.pick(30, 2),
        batch_size=run.pick(128, 16),
        lr=1e-4,
        head_lr=1e-4,
        evaluations=4,
        time_limit=seconds,
        patience=None,
        device=run.device,
        precision="auto" if run.device != "cpu" else "fp32",
        val_share=0.2,
        soup=2,
    )
    with memory_taken(run, name), utilisation(run, name):
        report = fit_encoder(spec, examples, None, out, config, steps)
    for fact in ("curve", "seconds", "settings"):
        run.notes.fact(f"{name}: {fact}", getattr(report, fact))
    told(run, name, report, steps, config.batch_size or 0)
    load_encoder(f"local-dir:{out}", device=run.device).encode_texts(["a dog"])


def told(run: Run, name: str, report: Any, steps: TrainingSteps, batch: int) -> None:
    notes = run.notes
    if steps.step is not None:
        notes.figure(f"{name}: a step, median", steps.step, "s")
        notes.figure(f"{name}: images", batch / steps.step, "images/s")
    if steps.evaluations:
        median = sorted(steps.evaluations)[len(steps.evaluations) // 2]
        count = len(steps.evaluations)
        notes.figure(f"{name}: an evaluation with its checkpoint, median of {count}", median, "s")
    if report.curve:
        losses = [row["loss"] for row in report.curve]
        notes.figure(f"{name}: loss of the first and the last evaluation", f"{losses[0]:.3f} -> {losses[-1]:.3f}")
        notes.figure(f"{name}: the loss falls", losses[-1] < losses[0], asked="True")
    if report.before is not None and report.after is not None:
        change = f"{report.before.mean:.3f} -> {report.after.mean:.3f}"
        notes.figure(f"{name}: recall before and after", change)


def bare_step(run: Run) -> None:
    """What the card could do: forward, backward and AdamW on a batch that is there already."""
    import torch

    batch, device = run.pick(128, 4), run.device
    model: Any = random_towers("ViT-B-32", device).model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    pixels = torch.randn(batch, 3, 224, 224, device=device)
    ids = torch.randint(1, 40000, (batch, 77), device=device)
    target = torch.arange(batch, device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16):
            left, right = model.encode_image(pixels), model.encode_text(ids)
        left, right = (torch.nn.functional.normalize(side.float(), dim=1) for side in (left, right))
        scores, loss = 20 * left @ right.T, torch.nn.functional.cross_entropy
        (loss(scores, target) + loss(scores.T, target)).backward()
        optimizer.step()

    seconds = seconds_of(step, device, repeats=run.pick(5, 1), warm=run.pick(2, 1))
    run.notes.figure(f"a bare training step of ViT-B-32, batch {batch}, bf16", seconds, "s")
