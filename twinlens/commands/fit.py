"""The command `fit`."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.config import MODES, FitConfig
from training.errors import TrainingError

from ..console import emit, output_option
from .build import FILE, CorpusPath, column_options, corpus_options

if TYPE_CHECKING:
    from indexer.corpus import SourceOptions
    from training.loop import FitProgress, Listener

PLOT_SUFFIXES = (".png", ".svg", ".pdf", ".jpg", ".webp")
FIRST_LINE_AFTER, SECONDS_BETWEEN_LINES = 3.0, 10.0
_SETTINGS = (
    "mode",
    "epochs",
    "batch_size",
    "chunk_size",
    "lr",
    "head_lr",
    "image_blocks",
    "text_blocks",
    "time_limit",
    "device",
    "precision",
    "seed",
)


@click.command()
@click.argument("corpus", type=CorpusPath(path_type=Path))
@click.option("--out", required=True, type=FILE, metavar="FOLDER", help="A new folder for the encoder.")
@click.option(
    "--encoder", default="lite", show_default=True, help="lite, a preset, ARCH/TAG, hf-hub:NAME or local-dir:PATH."
)
@corpus_options
@click.option("--split", help="Learn from this split.  [default: from all]")
@click.option("--val-split", help="Choose weights by this split.  [default: some of the images are held back]")
@click.option("--mode", type=click.Choice(MODES), default="auto", show_default=True, help="What is trained.")
@click.option("--epochs", type=int, help="Times that each image is seen.")
@click.option("--batch-size", type=int, help="Distinct images a step.")
@click.option("--chunk-size", type=int, help="Images in one forward pass; lower it where memory runs out.")
@click.option("--lr", type=float, help="Learning rate of the last block.")
@click.option("--head-lr", type=float, help="Learning rate of the heads.")
@click.option("--image-blocks", type=int, help="Last blocks of the image tower that are trained.")
@click.option("--text-blocks", type=int, help="Last blocks of the text tower that are trained.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="For everything; 0 saves the encoder untrained.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--plot", type=FILE, metavar="FILE", help="Draw loss and recall, e.g. fit.png.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@output_option
@click.pass_context
def fit(context: click.Context, /, corpus: Path | str, output: str, **options: Any) -> None:
    """Fine-tune an encoder on the captioned images of CORPUS: whatever build-index reads, remote ones too.

    A killed run goes on when the same command is run again; Ctrl-C and the time limit keep the best weights so far.

    \b
      twinlens fit captions.jsonl --split train --val-split dev --encoder lite --out my-encoder
      build-index photos/ --encoder local-dir:my-encoder --out photos.index
    """
    began = time.monotonic()
    plot: Path | None = options["plot"]
    check_plot(plot)
    # The slow imports wait until the command line has been read.
    from indexer.corpus import SourceOptions
    from training.examples import read_captions
    from training.fit import fit_encoder

    config = FitConfig(**{name: options[name] for name in _SETTINGS})
    reading = SourceOptions(**column_options(options))
    corpus = copied_here(corpus, options["out"], reading, quiet=options["quiet"])
    train = read_captions(corpus, split=options["split"], options=reading)
    val = None if options["val_split"] is None else read_captions(corpus, split=options["val_split"], options=reading)
    listen = None if options["quiet"] else line_listener()
    for note in dict.fromkeys((*train.notes, *(val.notes if val is not None else ()))):
        click.echo(note, err=True)
    config = replace(config, time_limit=left(config.time_limit, began))
    report = fit_encoder(options["encoder"], train, val, options["out"], config, listen)
    if plot is not None and report.curve:
        from training.report import save_plot

        save_plot(report, plot)
    emit(output, report.to_json(), report.to_text())
    if report.stopped_by == "interrupted":
        context.exit(130)


def check_plot(path: Path | None) -> None:
    """Refuse a file that no plot can be written to, before hours of training.

    Raises:
        TrainingError: Its folder is not there, it is a folder, or its name ends in no format of plots.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise TrainingError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}; make it first")
    if path.is_dir() or path.suffix.lower() not in PLOT_SUFFIXES:
        raise TrainingError(f"cannot draw to {str(path)!r}; name a file that ends in {', '.join(PLOT_SUFFIXES)}")


def copied_here(corpus: Path | str, out: Path, reading: SourceOptions, *, quiet: bool) -> Path:
    """Return the path of a corpus; of a remote one that of its copy, in `OUT.corpus`."""
    from indexer.corpus.remote.mirror import path_here
    from indexer.progress import SilentProgress, console_progress

    out = out.absolute()
    with nullcontext(SilentProgress()) if quiet else console_progress(sys.stderr) as progress:
        return path_here(corpus, out.with_name(f"{out.name}.corpus"), reading, progress)


def left(limit: float | None, began: float) -> float | None:
    """Return what imports and reading since `began` have left of a time limit."""
    return None if limit is None else max(0.0, limit - (time.monotonic() - began))


def line_listener() -> Listener:
    """Return what prints progress to stderr: each line, and how far the stage is; on a terminal always, else sometimes.

    Elsewhere than on a terminal a stage that takes long is heard of after some seconds, and then every ten.
    """
    terminal, paced = sys.stderr.isatty(), Paced()

    def listen(progress: FitProgress) -> None:
        if progress.text:
            paced.begin()
            click.echo(("\r\033[K" if terminal else "") + progress.text, err=True)
        elif progress.total and (terminal or paced.due()):
            left = paced.left(progress.done, progress.total) if progress.stage == "features" else ""
            said = f"{progress.stage} {progress.done:,}/{progress.total:,}{left}"
            click.echo(f"\r\033[K{said}" if terminal else said, err=True, nl=not terminal)

    return listen


class Paced:
    """Says when a stage may be heard of again, and how long it goes on."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from now."""
        self._began = time.monotonic()
        self._next = self._began + FIRST_LINE_AFTER

    def due(self) -> bool:
        """Whether it is time for a line; the next one is then due after ten seconds."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + SECONDS_BETWEEN_LINES
        return True

    def left(self, done: int, total: int) -> str:
        """Return the seconds that the rest takes at the rate so far, with a comma before it."""
        return f", {(time.monotonic() - self._began) / max(done, 1) * (total - done):,.0f} s left"
