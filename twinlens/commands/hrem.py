"""The commands `regions`, `fit-hrem` and `evaluate-hrem`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from training.hrem.config import INTERACTIONS, LINKS_WITHIN, PRESETS, RANKINGS, RELATION_GRADIENTS, HremConfig

from ..console import emit, output_option
from .build import FILE, CorpusPath, column_options, corpus_options
from .fit import check_plot, copied_here, left, line_listener

DEFAULTS = HremConfig()
_TABLE = ("encoder", "grid", "dtype", "device", "precision")


@click.command()
@click.argument("corpus", type=CorpusPath(path_type=Path))
@click.option("--out", required=True, type=FILE, metavar="FOLDER", help="A new folder, usually NAME_precomp.")
@corpus_options
@click.option("--encoder", default="lite", show_default=True, help="Whose trunk: lite, ARCH/TAG, ..., or timm:NAME.")
@click.option("--grid", type=int, metavar="N", help="Average the map into N x N cells.  [default: the trunk's own]")
@click.option("--dtype", type=click.Choice(["float16", "float32"]), default="float16", show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto", show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@output_option
def regions(corpus: Path | str, out: Path, quiet: bool, output: str, **options: Any) -> None:
    """Write grid features of the images in CORPUS, and their captions, as a folder that fit-hrem learns from.

    \b
      twinlens regions captions.jsonl --image image --text captions --encoder lite --out data/f8k_precomp
    """
    from indexer.corpus import SourceOptions
    from training.hrem.grid_features import RegionsConfig, write_regions

    config = RegionsConfig(**{name: options[name] for name in _TABLE})
    reading = SourceOptions(**column_options(options))
    corpus = copied_here(corpus, out, reading, quiet=quiet)
    result = write_regions(corpus, out, config, reading, None if quiet else line_listener())
    lines = [
        f"{name:<8} {facts['images']:,} images x {facts['regions']} regions x {facts['dim']}, "
        f"{facts['captions']:,} captions"
        for name, facts in result["splits"].items()
    ]
    if result["left_out"]:
        lines.append(f"left out {len(result['left_out'])} unreadable images, e.g. {result['left_out'][0]}")
    emit(output, result, "\n".join([*lines, f"folder   {result['folder']}"]))


def _setting(name: str, text: str, **how: Any) -> Any:
    """Return an option for a field of `HremConfig`, with its default."""
    default = getattr(DEFAULTS, name)
    flag = f"--{name.replace('_', '-')}"
    if isinstance(default, bool):
        flag = f"{flag}/--no-{name.replace('_', '-')}"
    elif "type" not in how:
        how["type"] = type(default)
    return click.option(flag, name, default=default, show_default=default is not None, help=text, **how)


_SETTINGS = (
    _setting("bert", "Text transformer: folder, hub name, lite or auto; bigru for a recurrent network."),
    _setting("freeze_bert", "Leave the transformer as it is; for a CPU."),
    _setting("interaction", "How instances attend to each other.", type=click.Choice(INTERACTIONS)),
    _setting("fragment_relation", "Attention among regions and among words."),
    _setting("dim", "Length of the embeddings."),
    _setting("heads", "Attention heads."),
    _setting("layers", "Attention layers of a tower."),
    _setting("relation_layers", "Attention layers of the instance relation."),
    _setting("dropout", "In attention layers."),
    _setting("residual_weight", "Share pooled before the fragments' attention."),
    _setting("pooling", "Before that attention.", type=click.Choice(["max", "gpo"])),
    _setting("max_tokens", "Tokens of a caption at most."),
    _setting("epochs", "Times that each caption is seen."),
    _setting("warmup_epochs", "Epochs before the instance relations begin."),
    _setting("batch_size", "Captions a step."),
    _setting("lr", "Learning rate."),
    _setting("bert_lr_factor", "Of it for the transformer."),
    _setting("graph_lr_factor", "Of it for the instance relation."),
    _setting("lr_decay", "By what it is multiplied at each step."),
    _setting("weight_decay", "AdamW's."),
    _setting("clip_norm", "Largest length of the gradient."),
    _setting("ranking", "Loss of the embeddings.", type=click.Choice(RANKINGS)),
    _setting("relation_ranking", "Loss of the enhanced embeddings.", type=click.Choice(RANKINGS)),
    _setting("margin", "Of the ranking losses."),
    _setting("cutoff", "No negative beyond this distance; 1.9 for COCO."),
    _setting("distance_dim", "Dimension of the distribution of distances."),
    _setting(
        "relation_gradient",
        "through: towers and relation learn through each other; stopped: each takes the other's output as given.",
        type=click.Choice(RELATION_GRADIENTS),
    ),
    _setting("cross_loss", "Also rank embeddings against enhanced ones."),
    _setting("relation_weight", "Of relevance in attention; 1.5 for COCO."),
    _setting("link_share", "Share of a batch that each instance is linked to."),
    _setting(
        "links_within",
        "What links images to images and captions to captions: their own cosines, or those across.",
        type=click.Choice(LINKS_WITHIN),
    ),
    _setting("top_fragments", "Fragment affinities that the relevance network sees."),
    _setting("regularisation", "Weight of the divergence."),
    _setting("temperature", "Of the softmaxes in it."),
    _setting("region_drop", "Share of regions left out in a step."),
    _setting("word_drop", "Share of words hidden, exchanged or left out."),
    _setting("dev_images", "Images of the dev split that weights are chosen by."),
    _setting("patience", "Epochs without gain before stopping.", type=int),
    _setting("time_limit", "Seconds for everything.", type=float, metavar="SECONDS"),
    _setting("workers", "Batches read ahead."),
    _setting("cache", "Folder for the states of a frozen transformer.", type=str, metavar="FOLDER"),
    _setting("device", "auto, cpu, cuda or cuda:N."),
    _setting("precision", "auto is fp32.", type=click.Choice(["auto", "fp32", "bf16"])),
    _setting("seed", "The same seed gives the same towers on the same machine."),
)


def _all_settings(command: Any) -> Any:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@click.command("fit-hrem")
@click.argument("data", type=FILE)
@click.option("--out", required=True, type=FILE, metavar="FOLDER", help="A new folder for the checkpoint.")
@click.option("--train-split", default="train", show_default=True)
@click.option("--dev-split", default="dev", show_default=True, help="Weights are chosen by it.")
@click.option("--lr-step", "lr_steps", type=int, multiple=True, metavar="EPOCH", help="[default: at 1/2 and 5/6]")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Published settings of Flickr30K or COCO; what is given beside it comes first.",
)
@_all_settings
@click.option("--plot", type=FILE, metavar="FILE", help="Draw loss and recall, e.g. fit.png.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@output_option
@click.pass_context
def fit_hrem(
    context: click.Context,
    /,
    data: Path,
    out: Path,
    train_split: str,
    dev_split: str,
    preset: str | None,
    plot: Path | None,
    quiet: bool,
    output: str,
    **settings: Any,
) -> None:
    """Train HREM's two towers on the region features and captions in the folder DATA.

    Weights are chosen on the dev split. A killed run goes on when the same command is run again; Ctrl-C and the time
    limit keep the best weights so far.

    \b
      twinlens fit-hrem data/f8k_precomp --bert lite --freeze-bert --out runs/f8k
      build-index data/f8k_precomp --split dev --encoder hrem:runs/f8k --out f8k.index
    """
    began = time.monotonic()
    check_plot(plot)
    settings["lr_steps"] = settings["lr_steps"] or None
    chosen = PRESETS[preset] if preset else {}
    settings |= {
        name: value for name, value in chosen.items() if context.get_parameter_source(name) is ParameterSource.DEFAULT
    }
    config = HremConfig(**settings)
    from training.hrem.hrem_training import fit_hrem as fit

    config = replace(config, time_limit=left(config.time_limit, began))
    report = fit(data, out, config, None if quiet else line_listener(), train=train_split, dev=dev_split)
    if plot is not None:
        from training.hrem.hrem_evaluation import save_plot

        save_plot(report, plot)
    emit(output, report.to_json(), report.to_text())
    if report.stopped_by == "interrupted":
        context.exit(130)


@click.command("evaluate-hrem")
@click.argument("runs", type=FILE, nargs=-1, required=True)
@click.option("--split", default="test", show_default=True)
@click.option("--data", type=FILE, metavar="FOLDER", help="Region features.  [default: what RUNS learned from]")
@click.option("--images", type=click.IntRange(1), metavar="N", help="Only the first N images.")
@click.option(
    "--folds", type=click.IntRange(1), default=1, show_default=True, help="Average over folds; 5 for COCO 1K."
)
@click.option("--similarities", type=FILE, metavar="FILE", help="Write all scores to this .npy file.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="fp32 as published; auto: 16 bits on a GPU.",
)
@output_option
def evaluate_hrem(runs: tuple[Path, ...], output: str, **options: Any) -> None:
    """Measure checkpoints on a split, several as one ensemble whose similarities are averaged.

    \b
      twinlens evaluate-hrem runs/f8k --split test --output json
      twinlens evaluate-hrem runs/coco-a runs/coco-b --split testall --folds 5
    """
    from training.hrem.hrem_evaluation import EvaluateHremOptions, to_text
    from training.hrem.hrem_evaluation import evaluate_hrem as evaluate

    result = evaluate(runs, EvaluateHremOptions(**options))
    emit(output, result, to_text(result))
