"""Finding out what a corpus is."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import SourceError
from .item import LAYOUTS, Source, SourceOptions, is_utf8, one_line, open_registered, printable, registered_layouts
from .layouts.captioned import CaptionedSource, DataSet
from .layouts.coco import coco_data, is_coco
from .layouts.flickr import flickr_data, flickr_files, flickr_lists, is_flickr
from .layouts.folder import TABLE_SUFFIXES, FolderSource
from .layouts.karpathy import is_karpathy, karpathy_data
from .layouts.lines import LinesSource, open_bytes
from .layouts.precomp import precomp_data, precomp_splits
from .tables.json_file import read_json
from .tables.split_tables import SplitTables, split_tables
from .tables.table import TableSource, table_suffix
from .webdataset.shard_list import TAR_SUFFIX, holds_shards, is_packed, is_pattern
from .webdataset.webdataset import WebDataset

# What the .json members of shards cannot name.
SHARD_REFUSED = ("image", "id", "delimiter", "root")
COLUMN_OPTIONS = ("image", "text", "id", "metadata", "split_column", "delimiter")


def open_source(corpus: Path, options: SourceOptions | None = None) -> Source:
    """The corpus at `corpus`, checked and ready to be read.

    A folder is a data set when it holds the files of one (Karpathy JSON, Flickr tokens, COCO captions, precomputed
    captions with ids, one table a split, tar shards), otherwise a folder of pictures; a file is what its suffix says,
    and a `.json`, `.txt` or `.csv` with the layout of a data set is that. A pattern such as `{000..009}.tar` names
    several shards. `options.layout` overrides all of it.

    Raises:
        SourceError: Nothing is there, it is of no known kind, or it does not fit `options`.
    """
    chosen = options or SourceOptions()
    # Registered layouts are looked up only for a name that is not built in.
    if chosen.layout not in LAYOUTS and chosen.layout not in (registered := registered_layouts()):
        layouts = (*LAYOUTS, *registered)
        raise SourceError(f"layout {chosen.layout!r} is unknown; choose one of {', '.join(layouts)}")
    if not corpus.exists():
        if is_pattern(corpus) and chosen.layout in ("auto", "webdataset"):
            shards = _open_shards(corpus, chosen)
            _check_urls(shards, chosen)
            return shards
        raise SourceError(_not_there(corpus))
    if chosen.root is not None and not chosen.root.is_dir():
        raise SourceError(f"the root of the image paths {str(chosen.root)!r} is no folder")
    source = _open_folder(corpus, chosen) if corpus.is_dir() else _open_file(corpus, chosen)
    _check_urls(source, chosen)
    return source


def _open_folder(corpus: Path, options: SourceOptions) -> Source:
    if options.layout in ("table", "lines"):
        raise SourceError(f"layout {options.layout!r} needs a file, but {str(corpus)!r} is a folder; name the file")
    if options.layout not in LAYOUTS:
        _refuse(options, (*COLUMN_OPTIONS, "root"), f"a folder of layout {options.layout!r}", corpus)
        return open_registered(options.layout, corpus, options)
    if options.layout == "webdataset":
        return _open_shards(corpus, options)
    if options.layout != "folder":
        data = _data_set_in(corpus, options)
        if data is not None:
            _refuse(options, COLUMN_OPTIONS, data.name, corpus)
            return CaptionedSource(data, options)
    if options.layout == "split-tables" or (options.layout == "auto" and split_tables(corpus)):
        return SplitTables(corpus, options)
    if options.layout == "auto" and holds_shards(corpus):
        return _open_shards(corpus, options)
    if options.layout not in ("auto", "folder"):
        raise SourceError(f"folder {str(corpus)!r} holds no files of layout {options.layout!r}; name the file itself")
    _refuse(options, ("splits", *COLUMN_OPTIONS, "root"), "a folder of pictures", corpus)
    return FolderSource(corpus)


def _open_shards(corpus: Path, options: SourceOptions) -> Source:
    _refuse(options, SHARD_REFUSED, "a webdataset", corpus)
    return WebDataset(corpus, options)


def _data_set_in(corpus: Path, options: SourceOptions) -> DataSet | None:
    wanted = options.layout
    if wanted in ("auto", "karpathy") and (path := _only(corpus.glob("dataset_*.json"), corpus)):
        return _json_data(path)
    if wanted in ("auto", "flickr") and (files := flickr_files(corpus)):
        return flickr_data(corpus, files)
    if wanted in ("auto", "coco"):
        found = [*corpus.glob("captions_*.json"), *corpus.glob("annotations/captions_*.json")]
        if path := _only(found, corpus):
            return _json_data(path)
    if wanted == "precomp" or (wanted == "auto" and precomp_splits(corpus)):
        return precomp_data(corpus, options.splits)
    return None


def _open_file(corpus: Path, options: SourceOptions) -> Source:
    wanted = options.layout
    if not is_utf8(str(corpus)):
        raise SourceError(f"the path {printable(str(corpus))!r} is not UTF-8, which the readers need; rename the file")
    if wanted in ("folder", "precomp", "split-tables") or wanted not in LAYOUTS:
        raise SourceError(f"layout {wanted!r} needs a folder, but {str(corpus)!r} is a file")
    if wanted in ("karpathy", "coco") or (wanted == "auto" and _is_json_object(corpus)):
        data = _json_data(corpus)
        _refuse(options, COLUMN_OPTIONS, data.name, corpus)
        return CaptionedSource(data, options)
    if wanted == "flickr" or (wanted == "auto" and _looks_like_flickr(corpus, options)):
        lists = flickr_lists(corpus.parent) if "_karpathy" not in corpus.name else ()
        _refuse(options, COLUMN_OPTIONS, f"Flickr captions {corpus.name}", corpus)
        return CaptionedSource(flickr_data(corpus.parent, (corpus, *(one for one in lists if one != corpus))), options)
    if wanted == "table" or (wanted == "auto" and table_suffix(corpus)):
        return TableSource(corpus, options)
    if wanted == "webdataset" or (wanted == "auto" and corpus.suffix.lower() == TAR_SUFFIX):
        return _open_shards(corpus, options)
    if is_packed(corpus):
        raise SourceError(f"{str(corpus)!r} is compressed, and shards are read in place; unpack it to .tar first")
    if wanted == "lines" or corpus.name.lower().endswith((".txt", ".txt.gz")):
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
    if options.allow_urls and not isinstance(source, TableSource | SplitTables):
        raise SourceError(f"{source.name} names no pictures by URL; leave --allow-urls out, or name a table")


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
    found = sorted(paths)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise SourceError(f"folder {str(corpus)!r} holds several data sets ({names}); name the one to index")
    return found[0] if found else None


def _not_there(corpus: Path) -> str:
    names = [path.name for path in corpus.parent.iterdir()] if corpus.parent.is_dir() else []
    close = get_close_matches(corpus.name, names, n=1)
    hint = f"did you mean {str(corpus.parent / close[0])!r}?" if close else "name a folder of pictures or a table file"
    return f"there is no corpus at {str(corpus)!r}; {hint}"
