"""When nothing fits: queries for what an index lacks, told from queries for what it has, by cosine and by probability.

A floor is set where 90 % of the queries for what is there are answered, that is have a hit among the first ten that
reaches it; the figure is the share of the queries for what is not there that are answered as well.

CLIP: real ViT-B/32 vectors, each caption asked with its image in the index and without. Hard: the other photographs of
the kind stay. Easy: 500 unrelated images without captions. The calibration is fitted by `build_index` on the images of
four folds and asked with the captions of the fifth.

`lite`: the dev photographs of Flickr8k, with a calibration of their own. A class is asked for with all images there,
and without those of which a caption names it; half of the queries are phrases of one to three words around
its name in captions of the other photographs, half are captions. Unrelated: names and definitions of
ImageNet classes no caption has a word of, but for names that a build itself fits with. The signals were chosen on the
train photographs.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import Figure, need_data, record

from encoders import load_encoder
from indexer import EmbeddingSource, build_index
from indexer.corpus import EmbeddingFiles, EmbeddingOptions, SourceOptions
from indexer.stand_in_queries import everyday_things
from searcher import Searcher
from storage.hit_calibration import HitCalibration, Judged
from storage.lexical.inverted_index import idf
from storage.lexical.terms import terms
from storage.partners import Partners

K, COVERAGE, FOLDS, RESAMPLES = 10, 0.9, 5, 2000
CLASSES = {
    "dog": r"dogs?|pupp(?:y|ies)",
    "horse": "horses?",
    "bicycle": r"bik(?:e|es|er|ers|ing)|bicycles?|bicyclists?|cyclists?",
    "snow": r"snow\w*|ski\w*|sled\w*",
    "beach": r"beach\w*|ocean|sea|sand\w*|shore",
    "pool": r"pool|swim\w*",
    "surfer": r"surf\w*",
    "motorcycle": r"motor\w*|dirt bikes?",
    "skateboard": r"skateboard\w*|skater",
    "soccer": "soccer|football",
    "basketball": "basketball",
    "baseball": "baseball|bat",
    "tennis": "tennis",
    "boat": r"boats?|kayak\w*|canoe\w*|raft\w*",
    "car": "cars?|vehicles?|trucks?",
    "mountain": r"mountain\w*|cliff|climb\w*|rock\w*|hik\w*",
    "swing": r"swing\w*",
    "baby": r"bab(?:y|ies)|toddlers?|infants?",
    "girl": "girls?",
    "bird": "birds?|ducks?|geese|goose|seagulls?",
    "tree": "trees?|woods|forest",
    "street": "streets?|roads?|city|sidewalk",
    "grass": r"grass\w*|lawn|field",
    "hat": "hats?|caps?|helmets?",
    "crowd": "crowds?|audience|parade",
    "water": r"water|lake|river|splash\w*|waves?|puddle|fountain",
}
_FEWEST, _PER_CLASS, _UNRELATED = 5, 16, 250
_NO_ENDS = frozenset(["a", "an", "the", "of", "in", "and", "is", "are", "on", "his", "her", "with", "to", "two", "at"])

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """Vectors in memory, as a collection of an index."""

    vectors: Values

    @property
    def rows(self) -> int:
        return len(self.vectors)

    def gather_float32(self, row_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.vectors[row_ids].astype(np.float16).astype(np.float32)


@dataclass(frozen=True)
class Corpus:
    """Images, texts, and of each text the image that it is of."""

    images: Values
    texts: Values
    image_of: NDArray[np.int64]
    captioned: bool = True
    captions: Sequence[str] = ()

    @cached_property
    def judged(self) -> tuple[Judged, Values]:
        partners = Partners(self.image_of, np.arange(len(self.image_of)), len(self.images)) if self.captioned else None
        judged = Judged(Rows(self.images), Rows(self.texts), partners)
        return judged, judged.background()

    @cached_property
    def told(self) -> tuple[list[list[frozenset[str]]], Counter[str]]:
        """The terms of the captions of each image, and of how many images each term is."""
        told: list[list[frozenset[str]]] = [[] for _ in self.images]
        for caption, image in zip(self.captions, self.image_of, strict=True):
            told[image].append(frozenset(terms(caption)))
        return told, Counter(term for one in told for term in frozenset().union(*one))

    def coverage(self, text: str, rows: NDArray[np.int64], own: int) -> Values:
        """Return the share of the idf of a text's terms that images have, the caption left out that the text is."""
        told, images = self.told
        weights = {term: float(idf(max(images[term], 1), len(told))) for term in terms(text)}
        left_out = frozenset(terms(self.captions[own])) if own >= 0 else None
        held = []
        for row in rows.tolist():
            captions = list(told[row])
            if left_out is not None and self.image_of[own] == row:
                captions.remove(left_out)
            held.append(sum(weights[term] for term in frozenset().union(*captions) & weights.keys()))
        return np.array(held, dtype=np.float32) / max(sum(weights.values()), 1e-6)

    def best(
        self, query: Values, calibration: HitCalibration, without: Any = (), own: int = -1, text: str | None = None
    ) -> tuple[float, float]:
        """Return the largest cosine and the largest probability of the first ten, with images left out."""
        judged, background = self.judged
        cosines = self.images @ query
        cosines[np.asarray(without, dtype=np.int64)] = -np.inf
        rows = np.argsort(-cosines, kind="stable")[:K]
        signals = judged.signals(query, rows, cosines[rows], background, own)
        coverage = self.coverage(text, rows, own) if text is not None and self.captioned else None
        return float(cosines[rows[0]]), float(calibration.probability(signals, coverage).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default="dev", choices=["train", "dev"], help="The photographs of `lite`.")
    split = parser.parse_args().split
    data = need_data()
    with tempfile.TemporaryDirectory() as scratch:
        figures = clip(data / "clip_vit_b32", Path(scratch)) + lite(data / "flickr8k", Path(scratch), split)
    notes = (
        "Share of queries for what is absent that are still answered where 90 % of those for what is present are; "
        f"one of the first {K} hits answers. Intervals: 95 %, bootstrap over photographs (CLIP) or queries (lite). "
        "The signals were chosen on `lite` and train photographs; the CLIP vectors were looked at too, being the only "
        "ones of that encoder, but every curve is asked with photographs that it was not fitted on."
    )
    record("nothing_fits", figures, notes)


def clip(folder: Path, scratch: Path) -> list[Figure]:
    images, texts, others = (
        np.load(folder / f"{name}.npy") for name in ("flickr8k_images", "flickr8k_captions", "distractor_images")
    )
    lines = (folder / "flickr8k_captions.jsonl").read_text(encoding="utf-8").splitlines()
    image_of = np.array([json.loads(line)["image_row"] for line in lines])
    whole = Corpus(images, texts, image_of)
    fold_of = np.random.default_rng(0).permutation(len(images)) % FOLDS
    hard, easy = np.zeros((len(texts), 2, 2)), np.zeros((len(texts), 2, 2))
    for fold in range(FOLDS):
        kept = np.flatnonzero(fold_of != fold)
        mine = np.isin(image_of, kept)
        fitted = build(scratch / f"clip{fold}", images[kept], texts[mine], np.searchsorted(kept, image_of[mine]))
        with Searcher.open(fitted) as searcher:
            calibration = searcher.manifest.calibrations["text_to_image"]
        for row in np.flatnonzero(~mine):
            query, image = texts[row], image_of[row]
            unrelated = Corpus(np.concatenate([images[[image]], others]), texts, image_of, captioned=False)
            hard[row] = [whole.best(query, calibration, own=row), whole.best(query, calibration, [image], row)]
            easy[row] = [unrelated.best(query, calibration), unrelated.best(query, calibration, [0])]
    return [
        *compared("CLIP, related", hard, "<= 2/3 of cosine's", image_of),
        *compared("CLIP, unrelated, no captions", easy, "<= .05", image_of),
    ]


def lite(folder: Path, scratch: Path, split: str) -> list[Figure]:
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    encoder = load_encoder("lite", device="cpu")
    mine = [row for row in rows if row["split"] == split]
    captions = [caption.lower() for row in mine for caption in row["captions"]]
    image_of = np.repeat(np.arange(len(mine)), [len(row["captions"]) for row in mine])
    images = encoder.encode_images([folder / row["image"] for row in mine])
    texts = encoder.encode_texts(captions)
    index = encoded(scratch / "lite", folder, mine)
    other = [caption.lower() for row in rows if row["split"] != split for caption in row["captions"]]
    phrases, sentences = asked(other, captions, image_of)
    short, long = encoder.encode_texts([phrase for phrase, _ in phrases]), texts[[row for row, _ in sentences]]
    names, definitions = unrelated({word for caption in (*other, *captions) for word in words(caption)})
    foreign = encoder.encode_texts([*names, *definitions])
    with Searcher.open(index) as searcher:
        calibration = searcher.manifest.calibrations["text_to_image"]
        costs = latency(searcher, short)
    figures = []
    for told, captioned in (("with captions", True), ("images alone", False)):
        corpus = Corpus(images, texts, image_of, captioned=captioned, captions=captions)
        found = {
            "one to three words": [
                tuple(corpus.best(query, calibration, left_out, text=phrase) for left_out in ((), gone))
                for query, (phrase, gone) in zip(short, phrases, strict=True)
            ],
            "sentences": [
                tuple(corpus.best(query, calibration, left_out, row, captions[row]) for left_out in ((), gone))
                for query, (row, gone) in zip(long, sentences, strict=True)
            ],
        }
        both = np.concatenate([np.array(found["one to three words"]), np.array(found["sentences"])])
        for kind, values in found.items():
            figures += compared(f"lite, {told}, absent classes, {kind}", np.array(values))
        figures += compared(f"lite, {told}, absent classes", both, "<= 2/3 of cosine's")
        asked_for = zip(foreign, (*names, *definitions), strict=True)
        strange = np.array([corpus.best(query, calibration, text=text) for query, text in asked_for])
        halves = {"names": strange[: len(names)], "definitions": strange[len(names) :]}
        for half, values in halves.items():
            figures += compared(f"lite, {told}, unrelated, {half}", (both[:, 0], values))
        figures += compared(f"lite, {told}, unrelated", (both[:, 0], strange), "<= .05")
    return [*figures, *range_recall(scratch, images, texts, image_of), *costs]


def build(out: Path, images: Values, texts: Values, image_of: NDArray[np.int64], **settings: Any) -> Path:
    """Build an index of ready-made vectors with their pairs."""
    out.mkdir(parents=True)
    np.save(out / "images.npy", images)
    np.save(out / "texts.npy", texts)
    pairs = "".join(f"{image},{text}\n" for text, image in enumerate(image_of.tolist()))
    (out / "pairs.csv").write_text(f"image_row,text_row\n{pairs}", encoding="utf-8")
    options = EmbeddingOptions(
        images=EmbeddingFiles(vectors=out / "images.npy"),
        texts=EmbeddingFiles(vectors=out / "texts.npy"),
        pairs=out / "pairs.csv",
    )
    build_index(EmbeddingSource(options), out / "index", **settings)
    return out / "index"


def encoded(scratch: Path, folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Build an index of photographs with their captions by `lite`, as a user would."""
    scratch.mkdir(parents=True)
    lines = [
        json.dumps({"image": row["image"], "caption": [caption.lower() for caption in row["captions"]]}) for row in rows
    ]
    (scratch / "photographs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    build_index(
        scratch / "photographs.jsonl",
        scratch / "index",
        encoder="lite",
        precision="fp32",
        options=SourceOptions(root=folder),
    )
    return scratch / "index"


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text)


def asked(
    other: Sequence[str], captions: Sequence[str], image_of: NDArray[np.int64]
) -> tuple[list[tuple[str, NDArray[np.int64]]], list[tuple[int, NDArray[np.int64]]]]:
    """Return phrases and rows of captions that ask for a class, each with the images of which a caption names it."""
    rng = np.random.default_rng(0)
    phrases, sentences = [], []
    for pattern in CLASSES.values():
        named = re.compile(rf"\b(?:{pattern})\b")
        having = np.flatnonzero([named.search(caption) is not None for caption in captions])
        gone = np.unique(image_of[having])
        if not _FEWEST <= len(gone) <= image_of.max() / 2:
            continue
        told = sorted({phrase for caption in other if named.search(caption) for phrase in around(named, caption)})
        chosen = rng.permutation(told)[:_PER_CLASS].tolist()
        phrases += [(phrase, gone) for phrase in chosen]
        sentences += [(int(row), gone) for row in rng.permutation(having)[: len(chosen)]]
    return phrases, sentences


def around(named: re.Pattern[str], caption: str) -> list[str]:
    """Return the name of a class in a caption with none, one and two of the words before it."""
    told = words(caption)
    place = next((place for place, word in enumerate(told) if named.fullmatch(word)), None)
    if place is None:
        return []
    starts = [place]
    while len(starts) < 3 and starts[-1] > 0 and told[starts[-1] - 1] not in _NO_ENDS:
        starts.append(starts[-1] - 1)
    return [" ".join(told[start : place + 1]) for start in starts]


def unrelated(known: set[str]) -> tuple[list[str], list[str]]:
    """Return names of one to three words, and definitions, of ImageNet classes that no caption has a word of."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    fitted_with = set(everyday_things())
    pairs = []
    for number in range(1000):
        name = info.index_to_description(number, detailed=False).split(",")[0].strip().lower()
        meaning = info.index_to_description(number, detailed=True).split(": ", 1)[-1]
        if len(name.split()) <= 3 and not known & set(words(name)) and name not in fitted_with:
            pairs.append((name, meaning))
    chosen = np.random.default_rng(0).permutation(len(pairs))
    names = [pairs[place][0] for place in chosen[:_UNRELATED]]
    return names, [pairs[place][1] for place in chosen[_UNRELATED : 2 * _UNRELATED]] or [one for _, one in pairs[:50]]


def compared(label: str, values: Any, wanted: str = "", clusters: NDArray[np.int64] | None = None) -> list[Figure]:
    """Return the figures of a protocol.

    Args:
        label: What it is called.
        values: (n, 2, 2): of each query, present and absent, its best cosine and probability; or two arrays (n, 2),
            where those for what is absent are others than those for what is present.
        wanted: What was asked for.
        clusters: (n,) what is drawn together by the bootstrap; None for each query alone.
    """
    present, absent = (values[:, 0], values[:, 1]) if isinstance(values, np.ndarray) else values
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        if clusters is None:
            here = rng.integers(0, len(present), len(present))
            gone = here if len(absent) == len(present) else rng.integers(0, len(absent), len(absent))
        else:
            counts = np.bincount(rng.integers(0, clusters.max() + 1, clusters.max() + 1), minlength=clusters.max() + 1)
            here = gone = np.repeat(np.arange(len(clusters)), counts[clusters])
        draws.append([answered(present[here, column], absent[gone, column]) for column in (0, 1)])
    cosine, ours = (answered(present[:, column], absent[:, column]) for column in (0, 1))
    ratios = [one[1] / max(one[0], 1e-9) for one in draws]
    half = (present[:, 1] >= 0.5).mean(), (absent[:, 1] >= 0.5).mean()
    return [
        Figure(f"{label}: queries", f"{len(present)} and {len(absent)}"),
        Figure(f"{label}: by cosine", told(cosine, [one[0] for one in draws])),
        Figure(f"{label}: by probability", told(ours, [one[1] for one in draws]), wanted),
        Figure(f"{label}: the second over the first", told(ours / max(cosine, 1e-9), ratios)),
        Figure(f"{label}: at 0.5, present and absent answered", f"{half[0]:.3f} and {half[1]:.3f}"),
    ]


def answered(present: NDArray[Any], absent: NDArray[Any]) -> float:
    return float((absent >= np.quantile(present, 1 - COVERAGE)).mean())


def told(value: float, draws: Sequence[float]) -> str:
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def range_recall(scratch: Path, images: Values, texts: Values, image_of: NDArray[np.int64]) -> list[Figure]:
    """Share of the exact hits above a floor, among the first hundred, that an approximate search returns."""
    index = build(scratch / "range", images, texts, image_of, ann="ivf-pq4")
    queries = texts[:: max(1, len(texts) // 500)]
    figures = []
    with Searcher.open(index) as searcher:
        floors: Mapping[str, dict[str, float]] = {
            "min_probability 0.5": {"min_probability": 0.5},
            "min_score 0.3": {"min_score": 0.3},
        }
        for name, floor in floors.items():
            exact = searcher.text_to_image(queries, 100, exact=True, **floor)  # type: ignore[arg-type]
            found = searcher.text_to_image(queries, 100, **floor)  # type: ignore[arg-type]
            kept = sum(len({*one.item_ids} & {*other.item_ids}) for one, other in zip(exact, found, strict=True))
            share = kept / max(1, sum(map(len, exact)))
            figures.append(Figure(f"range recall of {name}, ann_recall 0.95, k 100, ivf-pq4", round(share, 4)))
    return figures


def latency(searcher: Searcher, queries: Values) -> list[Figure]:
    """Median milliseconds of a search by vector, and of what its probabilities take."""
    judged = searcher._probabilities.judged
    spent: list[float] = []

    def timed(*arguments: Any) -> Any:
        started = time.perf_counter()
        found = judged(*arguments)
        spent.append(time.perf_counter() - started)
        return found

    searcher._probabilities.judged = timed  # type: ignore[method-assign]
    whole = [seconds(lambda query=query: searcher.text_to_image(query, K)) for query in queries]
    share = float(np.median(np.array(spent) / np.array(whole)))
    encoder = load_encoder("lite", device="cpu")
    texts = [seconds(lambda number=number: encoder.encode_texts([f"a dog {number}"])) for number in range(50)]
    with_text = float(np.median(spent) / (np.median(whole) + np.median(texts)))
    return [
        Figure("a search of 1,000 images by vector, 10 hits", round(float(np.median(whole)) * 1e3, 3), unit="ms"),
        Figure("of which probabilities", round(float(np.median(spent)) * 1e3, 3), unit="ms"),
        Figure("their share of a search by vector", round(share, 3), "<= 0.1"),
        Figure("their share of a search by text, encoded by torch", round(with_text, 3), "<= 0.1"),
    ]


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
