"""Boosters in LightGBM's text form."""

import re
from collections.abc import Sequence


def added(texts: Sequence[str]) -> str:
    """One booster whose score is the sum of those of several, one after the other.

    Args:
        texts: of boosters of one output each, grown on the same features.
    """
    first, *more = texts
    if not more:
        return first
    header, *_ = first.split("\nTree=")
    bodies = [body for text in texts for body in _trees(text)]
    trees = [f"Tree={n}\n{body}" for n, body in enumerate(bodies)]
    sizes = " ".join(str(len(tree.encode())) for tree in trees)
    header = re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", header, flags=re.MULTILINE)
    parameters = first.partition("\nparameters:")[2]
    return f"{header}\n{''.join(trees)}end of trees\n\nparameters:{parameters}"


def _trees(text: str) -> list[str]:
    """What stands below the number of each tree, with the empty lines that end it."""
    _, *trees = text.partition("\nend of trees")[0].split("\nTree=")
    return [tree.partition("\n")[2].rstrip("\n") + "\n\n\n" for tree in trees]
