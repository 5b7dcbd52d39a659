import numpy as np
import polars as pl
import pytest

from benchmarks.sentiment import figures


def test_figures_by_hand() -> None:
    reviews = pl.DataFrame(
        {"recommend": [False, True, True, True], "sentiment_label": [0, 1, 2, 2]}
    )
    found = {
        name: (n, value) for name, n, value in figures(reviews, np.array([0.2, 0.7, 0.9, 0.1]))
    }
    assert found["share of positive among positive and negative"] == (3, pytest.approx(2 / 3))
    # 0.9 is above 0.2, 0.1 is not
    assert found["AUC, positive against negative"] == (3, 0.5)
    assert found["accuracy, likewise, cut at 1/2"] == (3, pytest.approx(2 / 3))
    # the mean is 0.475: one of one negative and one of two positives are right
    assert found["balanced accuracy, likewise, cut at the mean"] == (3, pytest.approx(0.75))
    assert found["AUC, positive against neutral"] == (3, 0.5)
    assert found["AUC, neutral against negative"] == (2, 1.0)
    # ranks 1, 2, 3.5, 3.5 and 2, 3, 4, 1: deviations' product 0.5 over the root of 4.5 times 5
    assert found["Spearman with the label"] == (4, pytest.approx(0.5 / np.sqrt(4.5 * 5)))
    assert found["AUC of the rating itself"] == (4, pytest.approx(2 / 3))
