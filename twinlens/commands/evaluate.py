"""The command `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from evaluation import Bootstrap
from evaluation.protocol import PROTOCOLS
from evaluation.published import DATASETS, published_rows
from searcher.evaluation.evaluate_index import EvaluateOptions, evaluate_index
from searcher.evaluation.recall_plot import check_plot, save_recall_plot
from searcher.evaluation.scorecard import scorecard
from searcher.evaluation.side_by_side import SideBySideOptions, evaluate_side_by_side
from searcher.evaluation.side_by_side_text import side_by_side_text

from ..console import emit, output_option

_OF_ONE = ("protocol", "folds", "hub_split", "ann_recall", "dataset", "plot", "version")


class Depths(click.ParamType[tuple[int, ...]]):
    """Depths such as 1,5,10."""

    name = "K,K,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the depths in the order given, each once."""
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} are no depths; give whole numbers from 1 on, such as 1,5,10", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in parts))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("index", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", help="Score only this split, as queries and as gallery.  [default: all items]")
@click.option("--k", type=Depths(), default="1,5,10", show_default=True, help="How deep to look.")
@click.option("--exact", is_flag=True, help="Only exact search, nothing through the approximate index.")
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="twinlens",
    show_default=True,
    help="Whose definitions and keys to print.",
)
@click.option("--folds", type=int, default=1, show_default=True, help="The mean of contiguous folds; COCO-1K takes 5.")
@click.option("--hub-correction", "hub_split", metavar="SPLIT", help="Also correct for hubs, learnt from this split.")
@click.option("--bootstrap", is_flag=True, help="Give 95 % intervals of the exact figures.")
@click.option("--ann-recall", type=float, help="What searches through the index should reach.  [default: 0.95]")
@click.option("--dataset", type=click.Choice(DATASETS), help="Show published figures of this data set beside.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the figures as a PNG.")
@click.option("--version", type=int, help="Which version of the index.  [default: the current one]")
@output_option
def evaluate(
    index: tuple[Path, ...], output: str, plot: Path | None, dataset: str | None, bootstrap: bool, **options: Any
) -> None:
    """Score INDEX against its own pairs of images and captions, exactly and as searches through it find them.

    Several indexes of one corpus are set side by side: the same queries by exact search, with intervals, and the
    difference of each to the best.

    \b
      twinlens evaluate photos.index --split test
      twinlens evaluate lite.index tuned.index --split test
      twinlens evaluate coco.index --protocol eccv --folds 5 --output json
      twinlens evaluate flickr.index --split test --dataset flickr30k --plot recall.png
    """
    if len(index) > 1:
        _refuse_for_several()
        result = evaluate_side_by_side(index, SideBySideOptions(split=options["split"], k=options["k"]))
        emit(output, result, side_by_side_text(result))
        return
    if plot is not None:
        check_plot(plot)
    result = evaluate_index(index[0], EvaluateOptions(**options, bootstrap=Bootstrap() if bootstrap else None))
    rows = published_rows(dataset, result["index"]["encoder"]) if dataset else []
    if dataset:
        result["published"] = {"dataset": dataset, "rows": [row.to_json() for row in rows]}
    if plot is not None:
        save_recall_plot(plot, result, rows)
    emit(output, result, scorecard(result, dataset, rows))


def _refuse_for_several() -> None:
    """Refuse what is told of one index alone; several are always searched exactly and always have intervals."""
    context = click.get_current_context()
    for name in _OF_ONE:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = {"hub_split": "hub-correction"}.get(name, name.replace("_", "-"))
            raise click.UsageError(f"--{option} goes with one INDEX; leave it out, or score each index by itself.")
