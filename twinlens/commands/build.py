"""The command `build-index`, also `twinlens build`: builds or updates an index from a corpus."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from encoders import DecodeLimits
from encoders.catalogue.presets import named
from encoders.load import DEFAULT_ENCODER
from indexer.corpus.item import LAYOUTS, printable, registered_layouts
from indexer.corpus.remote.url import is_remote, without_credentials
from storage.schema import ANN_KINDS, VectorDType

from ..console import F, emit, emit_line, output_option, run

if TYPE_CHECKING:
    from indexer.progress import Progress
    from indexer.report import BuildReport

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class ByteSize(click.ParamType[int]):
    """A number of bytes such as 500M or 4GB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes; K, M, G and T are powers of 1024."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size; write it like 500M or 4GB", param, ctx)
        return int(float(match[1]) * UNITS[match[2].upper()])


class CountOrShare(click.ParamType[float]):
    """A count such as 100, or a share such as 5%."""

    name = "COUNT|SHARE%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the count, or the share as a number below 1."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", str(value).strip())
        if match is None or (not match[2] and not match[1].isdigit()):
            self.fail(f"{value!r} is neither a count like 100 nor a share like 5%", param, ctx)
        if not match[2]:
            return float(match[1])
        share = float(match[1]) / 100
        return share if share < 1 else float("inf")


class NamedPath(click.Path):
    """A path; an empty one, as an unset variable of a shell gives, would be the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `Path`."""
        if value in ("", b""):
            self.fail("the path is empty; name a file or a folder", param, ctx)
        if is_remote(value):
            self.fail(f"{without_credentials(value)!r} is an address; copy it here and name the copy", param, ctx)
        return super().convert(value, param, ctx)


class CorpusPath(NamedPath):
    """A path here, or an address such as `s3://bucket/photos`, which stays as it is written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a `Path` or a `str`."""
        return value if is_remote(value) else super().convert(value, param, ctx)


FILE = NamedPath(path_type=Path)
_CORPUS_OPTIONS = (
    click.option("--image", metavar="COLUMN", help="Table column with image paths or bytes. [default: by its name]"),
    click.option(
        "--text", metavar="COLUMN", help="Table column with a text or a list of texts. [default: by its name]"
    ),
    click.option("--id", metavar="COLUMN", help="Table column with your own key. [default: the image path]"),
    click.option("--split-column", metavar="COLUMN", help="Table column with the split. [default: split]"),
    click.option("--root", type=FILE, help="Folder that relative image paths start from."),
    click.option(
        "--layout", type=click.Choice([*LAYOUTS, *registered_layouts()]), default="auto", help="What the corpus is."
    ),
    click.option(
        "--allow-urls", is_flag=True, help="Fetch images that a table names by http(s) URL, from public hosts."
    ),
    click.option("--allow-private", is_flag=True, help="With --allow-urls: private networks and this machine too."),
    click.option("--delimiter", help="What separates the cells of a CSV file. [default: counted in its header]"),
    click.option(
        "--quoting",
        type=click.Choice(["auto", "csv", "none"]),
        default="auto",
        help="Whether quotes hold the cells of a CSV file together. [default: unless they would swallow rows]",
    ),
)


def corpus_options(command: F) -> F:
    """Give a command the options by which a corpus is read; `column_options` returns their values."""
    for option in reversed(_CORPUS_OPTIONS):
        command = option(command)
    return command


def column_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `SourceOptions` that `corpus_options` sets."""
    return {name: arguments[name] for name in COLUMN_NAMES}


@click.command("build-index", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("corpus", required=False, type=CorpusPath(path_type=Path))
@click.option("--out", required=True, type=FILE, metavar="INDEX", help="Folder of the index.")
@click.option(
    "--encoder",
    help="ARCH/TAG, hf-hub:NAME, local-dir:PATH, lite, or a preset: fast, balanced, best, multilingual "
    f"(`twinlens encoders` lists them). [default: {DEFAULT_ENCODER}]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--gpus", type=int, default=1, show_default=True, help="GPUs of this machine that encode.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    help="auto: 16 bits on a GPU; on a CPU, from a thousand images on, what is fastest there with the same vectors. "
    "fp32: equal vectors on all machines.",
)
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "torch", "openvino", "torch-compile", "cuda-graph"]),
    help="What computes images: openvino (its extra) on a CPU; torch-compile or cuda-graph on a GPU.",
)
@click.option(
    "--prompt",
    metavar="TEMPLATE",
    help="Encode every text as TEMPLATE with the text in place of {}, e.g. 'a photo of {}'; text queries of a search "
    "go through it too. '{}' alone stands for no template.",
)
@click.option(
    "--dim",
    type=int,
    help="Shorter vectors than the encoder's, cut to what matters for a sample of CORPUS; refused if that loses much.",
)
@click.option(
    "--vector-dtype",
    type=click.Choice(get_args(VectorDType)),
    default="float16",
    show_default=True,
    help="int8: one byte a value, half of the disk and memory; scores differ by a thousandth or so.",
)
@click.option("--update", is_flag=True, help="Encode only what was added or changed, drop what is gone.")
@click.option(
    "--watch",
    is_flag=True,
    help="With --update: stay, and publish a version whenever CORPUS has changed and settled, until Ctrl-C.",
)
@click.option(
    "--allow-shrink",
    is_flag=True,
    help="Publish although no image could be read, or more than half of what INDEX holds would go.",
)
@corpus_options
@click.option("--metadata", metavar="COLUMN", multiple=True, help="Column to keep for --where. [default: all others]")
@click.option("--split", multiple=True, help="Read only this split; may be repeated.")
@click.option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    help="Leave out files and folders of a folder by name or path, e.g. '*_thumb.jpg'; may be repeated.",
)
@click.option(
    "--frames",
    metavar="SECONDS|scenes",
    help="Index frames of the films in a folder: one every so many seconds, as 2s, or the first of each scene.",
)
@click.option("--cache", metavar="DIR", help="Folder for the copy of a remote CORPUS. [default: INDEX.corpus]")
@click.option("--image-embeddings", type=FILE, help="Ready-made image vectors: .npy or Parquet.")
@click.option("--text-embeddings", type=FILE, help="Ready-made text vectors: .npy or Parquet.")
@click.option("--pairs", type=FILE, help="CSV with the columns image_row,text_row for ready-made vectors.")
@click.option("--image-ids", type=FILE, help="Ids of the image vectors. [default: the row number]")
@click.option("--text-ids", type=FILE, help="Ids of the text vectors.")
@click.option("--image-metadata", type=FILE, help="Table with one row an image vector.")
@click.option("--text-metadata", "--captions", type=FILE, help="Table or .txt with one row a text vector.")
@click.option("--normalize", is_flag=True, help="Scale ready-made vectors to unit length.")
@click.option(
    "--portable/--no-portable",
    default=False,
    help="Put the towers into the index: it can be searched without torch and without the model (by image: of `lite`).",
)
@click.option(
    "--words-column",
    "words_columns",
    metavar="COLUMN",
    multiple=True,
    help="Column that `search --words` looks into besides captions and ids; may be repeated.",
)
@click.option("--ann", type=click.Choice(["auto", *ANN_KINDS]), default="auto", show_default=True)
@click.option("--min-ann-recall", type=float, default=0.9, show_default=True, help="Publish only above this.")
@click.option("--memory", "memory_bytes", type=ByteSize(), help="Memory for the approximate index, e.g. 4GB.")
@click.option("--max-rejected", type=CountOrShare(), help="Stop when more items are rejected, e.g. 100 or 5%.")
@click.option(
    "--max-pixels",
    type=int,
    default=DecodeLimits().max_pixels,
    show_default=True,
    help="Reject images with more pixels.",
)
@click.option("--max-file-bytes", type=ByteSize(), default="64M", show_default=True, help="Reject larger image files.")
@click.option("--batch-size", type=int, help="Images in one forward pass.")
@click.option("--decode-workers", type=int, help="Threads that read and decode. [default: one a core]")
@click.option(
    "--decode-in",
    type=click.Choice(["auto", "threads", "processes", "gpu"]),
    default="auto",
    show_default=True,
    help="Where images are decoded: processes feed a GPU faster; gpu: plain JPEG files on it.",
)
@click.option("--shard-cost", type=int, help="Images in one unit of work. [default: 512 on a CPU, 8192 on a GPU]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Encode in this process, or on the workers of a Ray cluster.",
)
@click.option("--address", help="With --executor ray: the cluster. [default: RAY_ADDRESS, the one here, or a new one]")
@click.option("--workers", "ray_workers", type=int, help="With --executor ray: encoders. [default: one a GPU or node]")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@output_option
def build(output: str, quiet: bool, watch: bool, **arguments: Any) -> None:
    """Build an index of CORPUS: a folder of images, a table, a dataset, or ready-made embeddings.

    CORPUS may be remote, as s3://bucket/photos: it is copied to --cache first.

    A killed build goes on where it stopped when the same command is run again.

    \b
      build-index photos/ --out photos.index --encoder lite
      build-index products.csv --out shop.index --image photo --text title --id sku
      build-index 'shards/{00000..00099}.tar' --out web.index
      build-index --image-embeddings images.npy --out clip.index
    """
    from indexer.progress import SilentProgress, console_progress

    source, options, settings = _split(arguments)
    if watch and not (arguments["update"] and isinstance(source, Path)):
        raise click.UsageError("--watch goes with --update and a CORPUS on this machine; name both, or leave it out.")
    with nullcontext(SilentProgress()) if quiet else console_progress(sys.stderr) as progress:
        # The slow imports wait until the command line has been read and the first line has been written.
        progress.note(_intention(arguments))
        from indexer.build import build_index

        update = partial(build_index, source, arguments["out"], options=options, progress=progress, **settings)
        if watch:
            _watch(source, arguments["out"], update, progress, output)
            return
        report = update()
    emit(output, report.to_json(), report.to_text())


def _watch(corpus: Path, out: Path, update: Callable[[], BuildReport], progress: Progress, output: str) -> None:
    """Publish version after version, each a line of JSON or a report, until somebody says stop."""
    from indexer.watch import watch

    try:
        for report in watch(corpus, out, update, progress):
            if output == "json":
                emit_line(report.to_json())
            else:
                emit(output, None, report.to_text())
    except KeyboardInterrupt:
        progress.note(f"watching {corpus} has ended; {out} stays as it is")


def _intention(arguments: Mapping[str, Any]) -> str:
    """Return what the command will do, as one line."""
    vectors = [arguments[name] for name in ("image_embeddings", "text_embeddings") if arguments[name] is not None]
    what = " and ".join(map(str, vectors)) or str(arguments["corpus"])
    encoder = arguments["encoder"] or (None if arguments["update"] or vectors else DEFAULT_ENCODER)
    how = f" with encoder {named(encoder, arguments['device'])}" if encoder else ""
    how += f" cut to {arguments['dim']} dimensions" if arguments["dim"] and encoder else ""
    return printable(f"{'updating' if arguments['update'] else 'building'} {arguments['out']} from {what}{how}")


CONFIG_NAMES = (
    "encoder",
    "device",
    "gpus",
    "precision",
    "backend",
    "prompt",
    "dim",
    "vector_dtype",
    "update",
    "allow_shrink",
    "portable",
    "words_columns",
    "ann",
    "min_ann_recall",
    "memory_bytes",
    "max_rejected",
    "max_pixels",
    "max_file_bytes",
    "batch_size",
    "decode_workers",
    "decode_in",
    "shard_cost",
    "seed",
    "executor",
    "address",
    "ray_workers",
    "cache",
)
VECTOR_NAMES = ("pairs", "image_ids", "text_ids", "image_metadata", "text_metadata", "normalize")
COLUMN_NAMES = (
    "image",
    "text",
    "id",
    "split_column",
    "root",
    "layout",
    "delimiter",
    "quoting",
    "allow_urls",
    "allow_private",
)


def _split(arguments: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Return the source, its options (None where none was given) and the settings of the build."""
    # What was not named is left to the defaults, or on an update to the version before.
    new = not arguments["update"]
    settings = {name: arguments[name] for name in CONFIG_NAMES if _named(name) or (new and _is_user_default(name))}
    corpus, images, texts = arguments["corpus"], arguments["image_embeddings"], arguments["text_embeddings"]
    if corpus is None and images is None and texts is None:
        raise click.UsageError("Missing CORPUS; name a folder or table, or --image-embeddings.")
    if corpus is not None and (images or texts):
        raise click.UsageError(f"Give the corpus {str(corpus)!r} or ready-made embeddings, not both.")
    if isinstance(corpus, Path):
        _refuse(("cache",), f"keeps the copy of a remote corpus, and {str(corpus)!r} is here")
    if corpus is not None:
        _refuse(VECTOR_NAMES, "goes with ready-made embeddings, not with a corpus")
        return corpus, _source_options(arguments), settings
    _refuse(
        (*COLUMN_NAMES, "metadata", "split", "exclude", "frames", "cache"),
        "goes with a corpus, not with ready-made embeddings",
    )
    for side, vectors in (("image", images), ("text", texts)):
        if vectors is None:
            _refuse((f"{side}_ids", f"{side}_metadata"), f"needs --{side}-embeddings beside it")
    return _embeddings(arguments), None, settings


def _named(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def _is_user_default(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.DEFAULT_MAP


def _refuse(names: tuple[str, ...], why: str) -> None:
    for name in names:
        if _named(name):
            raise click.UsageError(f"--{name.replace('_', '-')} {why}; leave it out.")


def _source_options(arguments: dict[str, Any]) -> Any:
    from indexer.corpus import SourceOptions

    options = SourceOptions(
        **column_options(arguments),
        metadata=arguments["metadata"] or None,
        splits=arguments["split"],
        exclude=arguments["exclude"],
        frames=arguments["frames"],
    )
    return None if options == SourceOptions() else options


def _embeddings(arguments: dict[str, Any]) -> Any:
    from indexer.corpus import EmbeddingFiles, EmbeddingOptions, EmbeddingSource

    def files(side: str) -> EmbeddingFiles | None:
        vectors, ids, table = (arguments[f"{side}_{what}"] for what in ("embeddings", "ids", "metadata"))
        return None if vectors is None else EmbeddingFiles(vectors=vectors, ids=ids, table=table)

    return EmbeddingSource(
        EmbeddingOptions(
            images=files("image"), texts=files("text"), pairs=arguments["pairs"], normalize=arguments["normalize"]
        )
    )


def main() -> None:
    """Run `build-index` as a program."""
    run(build)
