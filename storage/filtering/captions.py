"""What a condition on `caption` means for an image: it has one caption in its row, and others in the texts it is paired
with.

Each comparison that names `caption` holds for an image when it holds for any of its captions, and its negation (`not`,
`<>`, `not like`, `is distinct from`) when it holds for none. An image without captions has one that is NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Tree = dict[str, Any]

_NEGATED_COMPARISONS = {"COMPARE_NOTEQUAL": "COMPARE_EQUAL", "COMPARE_DISTINCT_FROM": "COMPARE_NOT_DISTINCT_FROM"}
_NEGATED_FUNCTIONS = {"!~~": "~~", "!~~*": "~~*", "not_like_escape": "like_escape", "not_ilike_escape": "ilike_escape"}

# Of every caption of every image, its own and those of its texts, with the image's other columns.
_EVERY_CAPTION = """SELECT images.* REPLACE (texts.caption AS caption)
FROM pairs JOIN images ON images.row_id = pairs.image_row JOIN texts ON texts.row_id = pairs.text_row
UNION ALL SELECT * FROM images WHERE caption IS NOT NULL OR row_id NOT IN (SELECT image_row FROM pairs)"""


def names_caption(tree: Any) -> bool:
    """Whether an expression uses the column `caption`."""
    pending = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if value.get("class") == "COLUMN_REF" and value["column_names"][0].lower() == "caption":
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False


def any_caption_sql(tree: Tree, columns: Sequence[str], text: Callable[[Tree], str]) -> str:
    """Return a statement that gives `row_id` of the images that a predicate on any of their captions lets through.

    Args:
        tree: The predicate, as DuckDB's parser gives it.
        columns: Names of the columns of images.
        text: From a tree to SQL.
    """
    prefix = "condition"
    while any(name.lower().startswith(prefix) for name in columns):
        prefix += "_"
    conditions: list[Tree] = []
    whole = _split(tree, conditions, prefix)
    values = ", ".join(f"CAST({text(one)} AS BOOLEAN) AS {prefix}{n}" for n, one in enumerate(conditions))
    held = ", ".join(f"{_any(f'{prefix}{n}')} AS {prefix}{n}" for n in range(len(conditions)))
    return (
        f"SELECT images.row_id FROM images JOIN (SELECT row_id AS {prefix}, {held} FROM (SELECT row_id, {values} "
        f"FROM ({_EVERY_CAPTION}) AS images) GROUP BY row_id) ON {prefix} = images.row_id WHERE {text(whole)}"
    )


def _any(name: str) -> str:
    """True where it holds for any caption, unknown where it may, false where it holds for none."""
    return f"CASE WHEN bool_or({name}) THEN true WHEN bool_or({name} IS NULL) THEN NULL ELSE false END"


def _split(node: Tree, conditions: list[Tree], prefix: str) -> Tree:
    """Return the expression with a column in place of each condition that names `caption`, and collect those."""
    if node["class"] == "CONJUNCTION" or node["type"] == "OPERATOR_NOT":
        return {**node, "children": [_split(part, conditions, prefix) for part in node["children"]]}
    if not names_caption(node):
        return node
    positive, negated = _positive(node)
    column = {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": [f"{prefix}{len(conditions)}"]}
    conditions.append(positive)
    return {"class": "OPERATOR", "type": "OPERATOR_NOT", "alias": "", "children": [column]} if negated else column


def _positive(node: Tree) -> tuple[Tree, bool]:
    """Return a condition without the negation that is its own operator, and whether it had one."""
    if node["type"] in _NEGATED_COMPARISONS:
        return {**node, "type": _NEGATED_COMPARISONS[node["type"]]}, True
    name = node.get("function_name", "")
    if name in _NEGATED_FUNCTIONS:
        plain = _NEGATED_FUNCTIONS[name]
        return {**node, "function_name": plain, "qualified_name": {"path": [plain]}}, True
    return node, False
