"""From the files of a published data set through `build-index` to its table of recall: what the three scripts share."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layouts import Corpus, DataSet, NoDataError, find_corpus
from record import HOME, RESULTS, record
from retrieval_table import Measured, figures, published_of, table, value

from encoders import Encoder
from evaluation import Bootstrap
from evaluation.protocol import PROTOCOLS
from indexer import build_index
from indexer.ann.plan import minimum_rows
from indexer.progress import console_progress
from searcher import EvaluateOptions, evaluate_index
from searcher.evaluation.recall_plot import check_plot, save_recall_plot
from storage import IndexStore
from storage.errors import TwinlensError
from twinlens.console import emit

WORK = HOME / "benchmarks" / "work"
ANN = "ivf-pq4"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run measures; all encoders are measured on the same corpus."""

    corpus: Corpus
    arguments: argparse.Namespace
    encoders: Mapping[str, Encoder]
    folds: int

    @property
    def ann(self) -> str:
        """The approximate kind; too few items to train one are compared one by one."""
        enough = min(self.corpus.images, self.corpus.texts) >= minimum_rows(ANN)
        return ANN if enough else "flat"

    def index(self, spec: str) -> Path:
        """Return the finished index of an encoder; what an earlier run finished is used again."""
        out = self.arguments.work / f"{self.corpus.data.name}-{self.corpus.split}-{_slug(spec)}-{self._key(spec)}.index"
        settings: dict[str, Any] = {
            "ann": self.ann,
            "prompt": self.arguments.prompt or "{}",
            "device": self.arguments.device,
            "precision": self.arguments.precision,
            "min_ann_recall": 0.0,
            # An update with nothing to do says so without loading the encoder.
            "update": out.exists() and IndexStore.open(out).current() is not None,
        }
        with console_progress(sys.stderr) as progress:
            build_index(
                self.corpus.source,
                out,
                encoder=self.encoders.get(spec, spec),
                options=self.corpus.options,
                progress=progress,
                **settings,
            )
        return out

    def measure(self, spec: str, kind: str) -> Measured:
        """Build and score."""
        path = self.index(spec)
        options = EvaluateOptions(
            split=self.corpus.named_split,
            protocol=self.arguments.protocol,
            bootstrap=Bootstrap(),
            exact=self.ann == "flat",
        )
        found = evaluate_index(path, options)
        folded = evaluate_index(path, replace(options, exact=True, folds=self.folds)) if self.folds > 1 else None
        return Measured(spec=spec, kind=kind, ann=self.ann, found=found, folded=folded)

    def _key(self, spec: str) -> str:
        """A short name for everything that another index would be needed for."""
        corpus, arguments = self.corpus, self.arguments
        parts = [
            str(corpus.path.resolve()),
            corpus.source.name,
            spec,
            arguments.prompt,
            arguments.precision,
            _weights(spec),
            self.ann,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]


def run(
    data: DataSet, argv: Sequence[str] | None, encoders: Mapping[str, Encoder] | None = None, folds: int = 1
) -> dict[str, Any]:
    """Measure a data set as the command line says, print the table, record it, and return it as JSON values.

    Args:
        data: The data set.
        argv: The arguments; None takes those of the program.
        encoders: Encoders that are loaded already, by the name that the arguments give them.
        folds: Also measure the mean over so many folds.

    Raises:
        SystemExit: One line says what is wrong.
    """
    arguments = parsed(data, argv)
    try:
        return _run(data, arguments, encoders or {}, folds)
    except (NoDataError, TwinlensError, OSError) as error:
        sys.exit("error: " + " ".join(str(error).split()))


def _run(data: DataSet, arguments: argparse.Namespace, encoders: Mapping[str, Encoder], folds: int) -> dict[str, Any]:
    if arguments.plot:
        check_plot(arguments.plot)
    corpus = find_corpus(
        arguments.root, data, arguments.split, images=arguments.images, captions=arguments.captions_per_image
    )
    warning = corpus.warning()
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    plan = Plan(corpus=corpus, arguments=arguments, encoders=encoders, folds=folds if _foldable(corpus, folds) else 1)
    measured = [plan.measure(arguments.encoder, "zero-shot")]
    if arguments.fine_tuned:
        measured.append(plan.measure(arguments.fine_tuned, "fine-tuned"))
    name = "_".join([data.name, corpus.split, *(_slug(one.spec) for one in measured)])
    name += f"_{_slug(arguments.prompt)}" if arguments.prompt else ""
    brackets = "In brackets the 95 % interval of the figure at 1, images drawn with all their captions."
    notes = f"{corpus.source.name}. {measured[0].sentence()} {brackets}" + (f" Warning: {warning}." if warning else "")
    written = record(name, figures(data, measured), notes, folder=arguments.results, show=False)
    found = value(corpus, measured) | {"warning": warning, "recorded": written.name}
    if arguments.plot:
        draw(data, measured, arguments.plot)
    emit(arguments.output, found, table(corpus, measured))
    return found


def draw(data: DataSet, measured: Sequence[Measured], path: Path) -> None:
    """Draw each encoder's recall beside published rows; the second picture is named for its kind."""
    for one in measured:
        place = path if one is measured[0] else path.with_stem(f"{path.stem}-{one.kind}")
        save_recall_plot(place, one.found, published_of(data, [one.spec]))


def parsed(data: DataSet, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line of a data set's script."""
    parser = argparse.ArgumentParser(description=f"Recall@1/5/10 of {data.title}, exact and through IVF-PQ.")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="where the original files lie")
    parser.add_argument("--encoder", required=True, metavar="SPEC", help="ARCH/TAG, hf-hub:NAME, local-dir:PATH, lite")
    parser.add_argument("--fine-tuned", metavar="SPEC", help="the encoder after training, to stand beside it")
    parser.add_argument("--split", default=data.default_split, help="default: %(default)s")
    parser.add_argument("--images", type=Path, metavar="DIR", help="the pictures, where they are not below --root")
    parser.add_argument("--prompt", metavar="TEMPLATE", help="encode captions as TEMPLATE, such as 'a photo of {}'")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="twinlens", help="also report under its keys")
    parser.add_argument(
        "--captions-per-image", type=int, metavar="N", help="keep the first N of each image; vse: 5, else all"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="keeps the indexes for the next run")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the dated record goes")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw recall beside published rows")
    arguments = parser.parse_args(argv)
    if arguments.captions_per_image is None:
        arguments.captions_per_image = data.captions if arguments.protocol == "vse" else 0
    elif arguments.captions_per_image < 1:
        parser.error(f"--captions-per-image is {arguments.captions_per_image}; give 1 or more, or leave it out")
    return arguments


def _foldable(corpus: Corpus, folds: int) -> bool:
    """Whether ten results can be asked of each fold."""
    return min(corpus.images, corpus.texts) // folds >= 10


def _weights(spec: str) -> list[Any]:
    """What tells the weights at a path, of `local-dir:PATH` or `ARCH/PATH`, from those that lay there before."""
    path = Path(spec.removeprefix("local-dir:") if spec.startswith("local-dir:") else spec.partition("/")[2] or "-")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


def _slug(name: str) -> str:
    """A name that a file may have; of a path the last part."""
    last = name.rstrip("/").split("/")[-1] if ":" in name else name
    return re.sub(r"[^A-Za-z0-9]+", "-", last).strip("-")
