"""Opens a corpus of any kind: by the layout that is named, else by suffix, by the names in a folder, by content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from storage.arguments import check_arguments

from ..errors import SourceError
from .file_pattern import is_pattern as is_file_pattern
from .file_pattern import is_there, matching_files
from .item import LAYOUTS, Source, SourceOptions, is_utf8, one_line, open_registered, printable, registered_layouts
from .layouts.captioned import CaptionedSource, DataSet
from .layouts.coco import coco_data, is_coco
from .layouts.flickr import flickr_data, flickr_files, flickr_lists, is_flickr
from .layouts.folder import TABLE_SUFFIXES, FolderSource
from .layouts.karpathy import is_karpathy, karpathy_data
from .layouts.lines import LinesSource, open_bytes
from .layouts.precomp import precomp_data, precomp_splits
from .layouts.walk import kept_paths
from .tables.json_file import read_json
from .tables.table import TableSource, table_suffix
from .tables.table_folder import PARQUET_SUFFIX, PartTables, SplitTables, parquet_parts, split_tables
from .webdataset.shard import TAR_SUFFIX, holds_shards, is_packed, is_shard_pattern
from .webdataset.webdataset import WebDataset

# What the .json members of shards cannot name.
SHARD_REFUSED = ("image", "id", "delimiter", "quoting", "root")
COLUMN_OPTIONS = ("image", "text", "id", "metadata", "split_column", "delimiter", "quoting")


def open_source(corpus: Path, options: SourceOptions | None = None) -> Source:
    """The corpus at `corpus`, checked and ready to be read.

    A folder is a data set when it holds the files of one (Karpathy JSON, Flickr tokens, COCO captions, precomputed
    captions with ids, one table a split, tar or Parquet shards), otherwise a folder of images; a file is what its
    suffix says, and a `.json`, `.txt` or `.csv` with the layout of a data set is that. A pattern such as
    `{000..009}.tar` or `*.parquet` names several shards. `options.layout` overrides all of it.

    Raises:
        SourceError: Nothing is there, it is of no known kind, or it does not fit `options`.
    """
    check_arguments(open_source, locals(), SourceError)
    chosen = options or SourceOptions()
    # Registered layouts are looked up only for a name that is not built in.
    if chosen.layout not in LAYOUTS and chosen.layout not in (registered := registered_layouts()):
        layouts = (*LAYOUTS, *registered)
        raise SourceError(f"layout {chosen.layout!r} is unknown; choose one of {', '.join(layouts)}")
    if not is_there(corpus):
        if is_shard_pattern(corpus) and chosen.layout in ("auto", "webdataset"):
            shards = _open_shards(corpus, chosen)
            _check_urls(shards, chosen)
            return shards
        if is_file_pattern(corpus, (PARQUET_SUFFIX,)) and chosen.layout in ("auto", "table"):
            root, files = matching_files(corpus, "Parquet file")
            parts = PartTables(corpus, root, kept_paths(root, files, chosen.exclude), chosen)
            _check_urls(parts, chosen)
            return parts
        raise SourceError(_not_there(corpus))
    if chosen.root is not None and not chosen.root.is_dir():
        raise SourceError(f"the root of the image paths {str(chosen.root)!r} is no folder")
    source = _open_folder(corpus, chosen) if corpus.is_dir() else _open_file(corpus, chosen)
    _check_urls(source, chosen)
    _check_exclude(source, chosen)
    _check_frames(source, chosen)
    return source


def _open_folder(corpus: Path, options: SourceOptions) -> Source:
    parts = parquet_parts(corpus, options.exclude) if options.layout == "table" else []
    if options.layout == "lines" or (options.layout == "table" and not parts):
        raise SourceError(f"layout {options.layout!r} needs a file, but {str(corpus)!r} is a folder; name the file")
    if options.layout not in LAYOUTS:
        _refuse(options, (*COLUMN_OPTIONS, "root"), f"a folder of layout {options.layout!r}", corpus)
        return open_registered(options.layout, corpus, options)
    for layout in _layouts_to_try(corpus, options):
        source = _FOLDERS[layout].open(corpus, options)
        if source is not None:
            return source
    if parts := parts or (parquet_parts(corpus, options.exclude) if options.layout == "auto" else []):
        return PartTables(corpus, corpus, parts, options)
    if options.layout not in ("auto", "folder"):
        raise SourceError(f"folder {str(corpus)!r} holds no files of layout {options.layout!r}; name the file itself")
    _refuse(options, ("splits", *COLUMN_OPTIONS, "root"), "a folder of images", corpus)
    return FolderSource(corpus, options.exclude, options.frames)


def _layouts_to_try(corpus: Path, options: SourceOptions) -> list[str]:
    """The named layout, or those of which a file with a telling name is in the folder."""
    if options.layout != "auto":
        return [options.layout] if options.layout in _FOLDERS else []
    try:
        names = [path.name.lower() for path in corpus.iterdir()]
    except OSError as error:
        raise SourceError(f"folder {str(corpus)!r} cannot be read: {error.strerror}") from error
    return [
        layout
        for layout, kind in _FOLDERS.items()
        if any(fnmatchcase(name, pattern) for pattern in kind.names for name in names)
    ]


def _captioned(data: DataSet, corpus: Path, options: SourceOptions) -> Source:
    _refuse(options, COLUMN_OPTIONS, data.name, corpus)
    return CaptionedSource(data, options)


def _karpathy_in(corpus: Path, options: SourceOptions) -> Source | None:
    path = _only(corpus.glob("dataset_*.json"), corpus)
    return _captioned(_json_data(path), corpus, options) if path else None


def _flickr_in(corpus: Path, options: SourceOptions) -> Source | None:
    files = flickr_files(corpus)
    return _captioned(flickr_data(corpus, files), corpus, options) if files else None


def _coco_in(corpus: Path, options: SourceOptions) -> Source | None:
    path = _only([*corpus.glob("captions_*.json"), *corpus.glob("annotations/captions_*.json")], corpus)
    return _captioned(_json_data(path), corpus, options) if path else None


def _precomp_in(corpus: Path, options: SourceOptions) -> Source | None:
    if options.layout == "auto" and not precomp_splits(corpus):
        return None
    return _captioned(precomp_data(corpus, options.splits), corpus, options)


def _split_tables_in(corpus: Path, options: SourceOptions) -> Source | None:
    return None if options.layout == "auto" and not split_tables(corpus) else SplitTables(corpus, options)


def _shards_in(corpus: Path, options: SourceOptions) -> Source | None:
    return (
        None
        if options.layout == "auto" and not holds_shards(corpus, options.exclude)
        else _open_shards(corpus, options)
    )


@dataclass(frozen=True)
class _FolderLayout:
    """One layout of a folder.

    Attributes:
        names: Patterns of names, in lower case, one of which is in every folder of this layout.
        open: Returns the corpus, or None where the files turn out to be others.
    """

    names: tuple[str, ...]
    open: Callable[[Path, SourceOptions], Source | None]


# In the order in which they are tried.
_FOLDERS: Mapping[str, _FolderLayout] = {
    "karpathy": _FolderLayout(("dataset_*.json",), _karpathy_in),
    "flickr": _FolderLayout(("*.token", "*.token.txt", "results.csv", "captions.txt", "*_karpathy.txt"), _flickr_in),
    "coco": _FolderLayout(("captions_*.json", "annotations"), _coco_in),
    "precomp": _FolderLayout(("*_caps.txt",), _precomp_in),
    "split-tables": _FolderLayout(("train.csv", "val.csv", "dev.csv", "test.csv"), _split_tables_in),
    "webdataset": _FolderLayout((f"*{TAR_SUFFIX}",), _shards_in),
}


def _open_shards(corpus: Path, options: SourceOptions) -> Source:
    _refuse(options, SHARD_REFUSED, "a webdataset", corpus)
    return WebDataset(corpus, options)


def _open_file(corpus: Path, options: SourceOptions) -> Source:
    layout = options.layout
    if not is_utf8(str(corpus)):
        raise SourceError(f"the path {printable(str(corpus))!r} is not UTF-8, which the readers need; rename the file")
    if layout in ("folder", "precomp", "split-tables") or layout not in LAYOUTS:
        raise SourceError(f"layout {layout!r} needs a folder, but {str(corpus)!r} is a file")
    if layout in ("karpathy", "coco") or (layout == "auto" and _is_json_object(corpus)):
        return _captioned(_json_data(corpus), corpus, options)
    if layout == "flickr" or (layout == "auto" and _looks_like_flickr(corpus, options)):
        lists = flickr_lists(corpus.parent) if "_karpathy" not in corpus.name else ()
        _refuse(options, COLUMN_OPTIONS, f"Flickr captions {corpus.name}", corpus)
        return CaptionedSource(flickr_data(corpus.parent, (corpus, *(one for one in lists if one != corpus))), options)
    if layout == "table" or (layout == "auto" and table_suffix(corpus)):
        return TableSource(corpus, options)
    if layout == "webdataset" or (layout == "auto" and corpus.suffix.lower() == TAR_SUFFIX):
        return _open_shards(corpus, options)
    if is_packed(corpus):
        raise SourceError(f"{str(corpus)!r} is compressed, and shards are read in place; unpack it to .tar first")
    if layout == "lines" or corpus.name.lower().endswith((".txt", ".txt.gz")):
        _refuse(options, ("splits", *COLUMN_OPTIONS, "root"), "a text file of lines", corpus)
        return LinesSource(corpus)
    known = ", ".join((*TABLE_SUFFIXES, ".txt", ".token", ".tar"))
    raise SourceError(f"{str(corpus)!r} is of no known kind; expected a folder or a file of {known} (also .gz)")


def _refuse(options: SourceOptions, names: Iterable[str], what: str, corpus: Path) -> None:
    """Refuse options that would have no effect: who names a column expects that it is read."""
    for name in names:
        value = getattr(options, name)
        if value != getattr(SourceOptions(), name):
            shown = ", ".join(map(repr, value)) if isinstance(value, tuple) else repr(str(value))
            word = name.removesuffix("s") if name == "splits" else name.replace("_", " ")
            word = "column" if name in ("image", "text", "id", "metadata") else word
            raise SourceError(f"{what} has no {word} {shown}; leave it out, or name a table file instead of {corpus}")


def _check_urls(source: Source, options: SourceOptions) -> None:
    if options.allow_private and not options.allow_urls:
        raise SourceError("--allow-private says where URLs may lead, and none is fetched; give --allow-urls beside it")
    if options.allow_urls and not isinstance(source, TableSource | SplitTables | PartTables):
        raise SourceError(f"{source.name} names no images by URL; leave --allow-urls out, or name a table")


def _check_exclude(source: Source, options: SourceOptions) -> None:
    if options.exclude and not isinstance(source, FolderSource | WebDataset | PartTables):
        raise SourceError(
            f"--exclude {options.exclude[0]!r} leaves out files of a folder that is walked, and {source.name} says "
            "itself which images it has; leave it out"
        )


def _check_frames(source: Source, options: SourceOptions) -> None:
    if options.frames is not None and not isinstance(source, FolderSource):
        raise SourceError(
            f"--frames {options.frames} is for films in a folder, and {source.name} is none; leave it out"
        )


def _looks_like_flickr(corpus: Path, options: SourceOptions) -> bool:
    """A `.csv` counts only in the form that Flickr30K has, which no table of ours reads: names, numbers, comments."""
    if corpus.suffix.lower() == ".csv":
        return options.image is None and options.text is None and _starts_with(corpus, b"image_name|")
    return is_flickr(corpus)


def _json_data(path: Path) -> DataSet:
    value: dict[str, Any] = read_json(path, dict)
    if is_karpathy(value):
        return karpathy_data(path, value)
    if is_coco(value):
        return coco_data(path, value)
    keys = ", ".join(list(value)[:10])
    raise SourceError(
        f"{str(path)!r} is neither Karpathy's layout (images with sentences) nor COCO's (images and annotations); "
        f"its keys: {keys}. A table is written as .jsonl, one object a line"
    )


def _is_json_object(path: Path) -> bool:
    return table_suffix(path) == ".json" and _starts_with(path, b"{")


def _starts_with(path: Path, start: bytes) -> bool:
    try:
        with open_bytes(path) as file:
            return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start)
    except (OSError, EOFError) as error:
        raise SourceError(f"{str(path)!r} cannot be read: {one_line(error)}") from error


def _only(paths: Iterable[Path], corpus: Path) -> Path | None:
    matches = sorted(paths)
    if len(matches) > 1:
        names = ", ".join(path.name for path in matches)
        raise SourceError(f"folder {str(corpus)!r} holds several data sets ({names}); name the one to index")
    return matches[0] if matches else None


def _not_there(corpus: Path) -> str:
    try:
        names = [path.name for path in corpus.parent.iterdir()]
    except (OSError, ValueError):  # no folder, or none that can be read or be called so
        names = []
    close = get_close_matches(corpus.name, names, n=1)
    hint = f"did you mean {str(corpus.parent / close[0])!r}?" if close else "name a folder of images or a table file"
    return f"there is no corpus at {str(corpus)!r}; {hint}"
