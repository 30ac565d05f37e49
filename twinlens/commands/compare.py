"""The command `compare`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from ..console import emit, output_option
from .build import FILE, CorpusPath, column_options, corpus_options

FAILED = 1


@click.command()
@click.argument("corpus", type=CorpusPath(path_type=Path))
@click.option("--encoders", required=True, metavar="A,B,...", help="Two specs or more, as --encoder of build-index.")
@click.option("--sample", type=int, default=2000, show_default=True, help="Captioned images that are drawn.")
@click.option("--out", type=FILE, metavar="FILE", help="Write a page with plot and thumbnails: one file, no network.")
@corpus_options
@click.option("--split", multiple=True, help="Draw only from this split; may be repeated.  [default: from all]")
@click.option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    help="Leave out files and folders of a folder by name or path; may be repeated.",
)
@click.option("--prompt", metavar="TEMPLATE", help="Encode every text as TEMPLATE with the text in place of {}.")
@click.option("--examples", type=int, default=4, show_default=True, help="Queries shown that one alone answers.")
@click.option(
    "--cache",
    type=FILE,
    metavar="DIR",
    help="Where vectors are kept, and the copy of a remote CORPUS.  [default: the user's cache]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample and of the intervals.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@output_option
@click.pass_context
def compare(
    context: click.Context,
    /,
    corpus: Path | str,
    encoders: str,
    out: Path | None,
    output: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Compare encoders on the captioned images of CORPUS: whatever build-index reads.

    One sample is drawn and encoded by each, and searched exactly in both directions: recall with intervals, differences
    to the best, speed and size, and the queries that each alone answers. Vectors are kept, so that a killed or repeated
    run goes on.

    An encoder that cannot be used is named with the reason; the others are compared, and the exit code is 1.

    \b
      twinlens compare captions.jsonl --encoders lite,local-dir:my-encoder --split dev --out compare.html
      twinlens compare photos/ --encoders lite,ViT-B-32/laion2b_s34b_b79k --sample 500 --output json
    """
    # The slow imports wait until the command line has been read.
    from indexer.corpus import SourceOptions
    from indexer.progress import SilentProgress, console_progress
    from searcher.render.audit_page import check_page
    from searcher.render.comparison_page import EXAMPLE, save_comparison

    from ..compare.comparison import CompareConfig, check_encoders, compare_encoders
    from ..compare.comparison_text import comparison_text

    specs = [spec.strip() for spec in encoders.split(",") if spec.strip()]
    check_encoders(specs)
    if out is not None:
        check_page(out, EXAMPLE)
    reading = SourceOptions(**column_options(options), splits=options["split"], exclude=options["exclude"])
    names = ("sample", "seed", "device", "precision", "prompt", "examples", "cache")
    config = CompareConfig(**{name: options[name] for name in names})
    with nullcontext(SilentProgress()) if quiet else console_progress(sys.stderr) as progress:
        found = compare_encoders(corpus, specs, options=reading, config=config, progress=progress)
    if out is not None:
        save_comparison(out, found.facts, found.images)
    emit(output, found.facts, comparison_text(found.facts))
    if found.facts["failed"]:
        context.exit(FAILED)
