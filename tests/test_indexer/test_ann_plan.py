from __future__ import annotations

import faiss
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ann.plan import minimum_rows, plan_ann, pq_width
from indexer.errors import BuildError
from storage.schema import ANN_KINDS, AnnKind

CODED = [kind for kind in ANN_KINDS if kind != "flat"]


@pytest.mark.parametrize(
    ("rows", "dim", "kind"),
    [
        (0, 512, "flat"),
        (50, 512, "flat"),
        (19_000, 512, "flat"),
        (20_000, 512, "ivf-pq4"),
        (1_000_000, 512, "ivf-pq4"),
        (60_000, 64, "flat"),
        (200_000, 64, "ivf-pq4"),
    ],
)
def test_auto_compares_everything_while_that_is_quick(rows: int, dim: int, kind: AnnKind) -> None:
    assert plan_ann("auto", rows, dim).kind == kind


@pytest.mark.parametrize(
    ("kind", "factory"),
    [
        ("ivf-flat", "IVF1024,SQfp16"),
        ("ivf-pq", "OPQ64,IVF1024,PQ64x8np"),
        ("ivf-pq4", "OPQ256,IVF16384,PQ256x4fsr"),
        ("ivf-rabitq", "IVF1024,RaBitQfs"),
        ("hnsw", "HNSW32_SQfp16"),
    ],
)
def test_each_kind_has_its_factory(kind: AnnKind, factory: str) -> None:
    assert plan_ann(kind, 1_000_000, 512).factory == factory


@given(kind=st.sampled_from(CODED), rows=st.integers(256, 10**9), dim=st.integers(1, 2048))
def test_every_plan_can_be_trained(kind: AnnKind, rows: int, dim: int) -> None:
    plan = plan_ann(kind, rows, dim, seed=5)
    assert plan.seed == 5
    if kind == "hnsw":
        assert (plan.nlist, plan.train_rows) == (0, 0)
    else:
        assert 1 <= plan.nlist <= plan.train_rows <= rows
        assert plan.nlist * 30 <= rows
    if dim <= 64 and rows < 10**6:
        assert faiss.index_factory(dim, plan.factory, faiss.METRIC_INNER_PRODUCT).d == dim


@pytest.mark.parametrize(
    ("dim", "width4", "width8"),
    [(512, 2, 8), (260, 2, 5), (256, 1, 8), (64, 1, 8), (30, 2, 6), (31, 1, 1), (45, 1, 5), (1, 1, 1)],
)
def test_a_code_covers_a_divisor_of_the_dim(dim: int, width4: int, width8: int) -> None:
    assert (pq_width("ivf-pq4", dim), pq_width("ivf-pq", dim)) == (width4, width8)


@pytest.mark.parametrize("kind", CODED)
def test_too_few_rows_say_how_many_are_needed(kind: AnnKind) -> None:
    need = minimum_rows(kind)
    assert plan_ann(kind, need, 64).kind == kind
    if need > 1:
        with pytest.raises(BuildError, match=f"'{kind}' needs at least {need} vectors to train.* has {need - 1}; use"):
            plan_ann(kind, need - 1, 64)


@pytest.mark.parametrize("kind", ["auto", *ANN_KINDS])
def test_an_empty_collection_is_flat(kind: AnnKind) -> None:
    assert plan_ann(kind, 0, 64).kind == "flat"


def test_an_unknown_kind_names_those_that_there_are() -> None:
    with pytest.raises(BuildError, match="unknown kind of index 'ivfpq'; give one of auto, flat, ivf-flat"):
        plan_ann("ivfpq", 1000, 64)  # type: ignore[arg-type]


@pytest.mark.parametrize("nlist", [0, -1, 1001])
def test_a_number_of_lists_out_of_range_is_refused(nlist: int) -> None:
    with pytest.raises(BuildError, match=f"nlist is {nlist}; give 1 to 1000 for 1000 vectors"):
        plan_ann("ivf-pq4", 1000, 64, nlist=nlist)


def test_a_number_of_lists_can_be_given() -> None:
    assert plan_ann("ivf-pq4", 1000, 64, nlist=100).factory == "OPQ64,IVF100,PQ64x4fsr"
