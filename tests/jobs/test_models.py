"""What kept models are looked up by."""

from pathlib import Path

import pytest
from nights import write_night

from jobs.models import fingerprint


@pytest.mark.parametrize(
    ("section", "changed", "same"),
    [
        ("encoder", {"batch_tokens": 64, "device": "cuda"}, True),
        ("scoring", {"threads": 1}, True),
        ("training", {"l2": 1.0}, False),
        ("candidates", {"nearest": 7}, False),
    ],
)
def test_only_what_shapes_a_model_makes_it_another(
    tmp_path: Path, section: str, changed: dict[str, object], same: bool
) -> None:
    config = write_night(tmp_path).config
    part = getattr(config, section).model_copy(update=changed)
    other = config.model_copy(update={section: part})
    assert (fingerprint(other, "an encoder") == fingerprint(config, "an encoder")) is same


def test_vectors_of_another_making_make_another_model(tmp_path: Path) -> None:
    config = write_night(tmp_path).config
    assert fingerprint(config, "one encoder") != fingerprint(config, "another")
