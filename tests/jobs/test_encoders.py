"""`nightrank doctor --encoder` on a small shop."""

import importlib.util
from pathlib import Path

import pytest
from nights import write_night

from jobs import encoders
from jobs.errors import DataRefused
from jobs.nightly import Night, read
from jobs.plan import plan
from jobs.vectors import encoder_of

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs the extra openvino"
)


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "TEXTS", 40)
    monkeypatch.setattr(encoders, "ROUNDS", 1)


def with_encoder(night: Night, **changes: object) -> Night:
    options = night.config.encoder.model_copy(update=changes)
    return Night(
        config=night.config.model_copy(update={"encoder": options}),
        as_of=night.as_of,
        root=night.root,
        home=night.home,
    )


def test_a_static_model_has_torch_alone(tmp_path: Path) -> None:
    figures, kept_out = encoders.measure(write_night(tmp_path))
    assert figures.select("backend", "precision").rows() == [("torch", "float32")]
    row = figures.row(0, named=True)
    assert row["tokens_per_second"] > row["texts_per_second"] > 0
    assert (round(row["mean_cosine"], 6), row["overlap"]) == (1, 1)
    assert [line.split(" is not measured: ")[0] for line in kept_out] == [
        "openvino float32",
        "openvino int8",
    ]
    said = encoders.recommend(figures)
    assert said == 'recommended: backend = "torch", precision = "float32".'


@needs_openvino
def test_what_is_calibrated_by_the_doctor_is_what_a_night_uses(tmp_path: Path) -> None:
    night = with_encoder(write_night(tmp_path), model="packaged/all-MiniLM-L6-v2", max_tokens=16)
    int8 = with_encoder(night, precision="int8")
    before = encoder_of(int8.config, night.home)
    figures, kept_out = encoders.measure(night)
    assert kept_out == []
    assert figures.get_column("precision").to_list() == ["float32", "float32", "int8"]
    assert figures.get_column("mean_cosine")[1] > 1 - 1e-6
    assert figures.get_column("mean_cosine")[2] > 0.98
    assert "recommended: backend" in encoders.recommend(figures)
    kept = encoder_of(int8.config, night.home)
    assert before.fingerprint != kept.fingerprint
    assert encoder_of(int8.config, night.home, read(int8)).fingerprint == kept.fingerprint
    # A dry run counts what is to encode, and there is no vector yet.
    assert plan(int8).texts.get_column("cached").sum() == 0


def test_too_few_texts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "FEWEST_TEXTS", 10**6)
    with pytest.raises(DataRefused, match="measuring encoders needs 1000000"):
        encoders.measure(write_night(tmp_path))
