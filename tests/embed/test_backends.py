"""Every backend against sentence-transformers itself, on prose of this project."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from embed import Encoder, EncoderError, load_encoder
from embed.batches import PIECE
from embed.loading import minilm_folder
from embed.trial import Vectors, compare, count_tokens, fidelity, ratio

MINILM = "packaged/all-MiniLM-L6-v2"
TOKENS = 64
DOCS = Path(__file__).resolve().parents[2] / "docs" / "decisions"
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs the extra openvino"
)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    lines = (line for path in sorted(DOCS.glob("*.md")) for line in path.read_text().splitlines())
    found = [line.lstrip("-# ") for line in lines if line.strip("-|# ")][:120]
    return ["", "a", *found, found[7]]


@pytest.fixture(scope="module")
def plain(texts: list[str]) -> Vectors:
    """What plain use of the library gives."""
    model = SentenceTransformer(str(minilm_folder()), device="cpu")
    model.max_seq_length = TOKENS
    vectors: Vectors = model.encode(texts, batch_size=32, normalize_embeddings=True)
    return vectors


@pytest.fixture(scope="module")
def on_torch() -> Encoder:
    return load_encoder(MINILM, backend="torch", max_tokens=TOKENS)


@pytest.fixture(scope="module")
def on_openvino() -> Encoder:
    return load_encoder(MINILM, backend="openvino", max_tokens=TOKENS)


@pytest.fixture(scope="module")
def calibrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def int8(texts: list[str], calibrations: Path) -> Encoder:
    return load_encoder(
        MINILM, precision="int8", max_tokens=TOKENS, calibrations=calibrations, sample=lambda: texts
    )


def check_same(encoder: Encoder, texts: list[str], plain: Vectors) -> None:
    vectors = encoder.encode(texts)
    assert fidelity(vectors, plain).least > 1 - 1e-6
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors.tobytes() == encoder.encode(texts).tobytes()
    order = np.random.default_rng(0).permutation(len(texts))
    mixed = encoder.encode([texts[row] for row in order])
    np.testing.assert_allclose(mixed, vectors[order], atol=1e-6)


def test_torch_is_sentence_transformers(
    on_torch: Encoder, texts: list[str], plain: Vectors
) -> None:
    check_same(on_torch, texts, plain)


@needs_openvino
def test_openvino_is_sentence_transformers(
    on_openvino: Encoder, texts: list[str], plain: Vectors
) -> None:
    check_same(on_openvino, texts, plain)


@needs_openvino
def test_openvino_gives_the_same_bits_for_any_number_of_threads(
    on_openvino: Encoder, texts: list[str]
) -> None:
    before = torch.get_num_threads()
    vectors = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            encoder = load_encoder(MINILM, backend="openvino", max_tokens=TOKENS, batch_tokens=256)
            vectors.append(encoder.encode(texts).tobytes())
        finally:
            torch.set_num_threads(before)
    assert vectors[0] == vectors[1]


@needs_openvino
def test_int8_is_near(int8: Encoder, texts: list[str], plain: Vectors) -> None:
    found = fidelity(int8.encode(texts), plain)
    assert found.mean > 0.99
    assert found.least > 0.9
    assert found.overlap > 0.8


@needs_openvino
def test_int8_is_calibrated_once(int8: Encoder, texts: list[str], calibrations: Path) -> None:
    def never() -> list[str]:
        raise AssertionError

    again = load_encoder(
        MINILM, precision="int8", max_tokens=TOKENS, calibrations=calibrations, sample=never
    )
    assert again.fingerprint == int8.fingerprint
    assert again.encode(texts).tobytes() == int8.encode(texts).tobytes()


@needs_openvino
def test_int8_without_a_whole_calibration_is_refused(
    int8: Encoder, calibrations: Path, tmp_path: Path
) -> None:
    none_yet = load_encoder(MINILM, precision="int8", max_tokens=TOKENS, calibrations=tmp_path)
    assert none_yet.fingerprint != int8.fingerprint
    with pytest.raises(EncoderError, match=f"no whole calibration in {tmp_path}"):
        none_yet.encode(["a text"])
    with pytest.raises(EncoderError, match="needs a folder"):
        load_encoder(MINILM, precision="int8")
    (kept,) = calibrations.iterdir()
    weights = kept / "model.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(EncoderError, match=f"{kept} is damaged: remove the folder"):
            load_encoder(MINILM, precision="int8", max_tokens=TOKENS, calibrations=calibrations)
    finally:
        weights.write_bytes(whole)


@needs_openvino
def test_a_prompt_is_read_by_openvino(texts: list[str]) -> None:
    both = [
        load_encoder(MINILM, backend=backend, max_tokens=TOKENS, prompt="query: ")
        for backend in ("torch", "openvino")
    ]
    ours, theirs = (encoder.encode(texts[:9]) for encoder in both)
    assert fidelity(theirs, ours).least > 1 - 1e-6


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precisions_are_near_and_other_vectors(
    precision: str, on_torch: Encoder, texts: list[str], plain: Vectors
) -> None:
    half = load_encoder(MINILM, backend="torch", max_tokens=TOKENS, precision=precision)
    assert half.fingerprint != on_torch.fingerprint
    vectors = half.encode(texts[:20])
    assert vectors.dtype == np.float32
    assert fidelity(vectors, plain[:20]).mean > 0.999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_several_devices_give_the_vectors_of_one(static_encoder: Encoder) -> None:
    texts = [f"item number {i}" for i in range(2 * PIECE + 5)]  # three batches for two processes
    several = load_encoder("packaged/wordllama", device="cpu,cpu")
    assert several.device == "cpu,cpu"
    assert several.fingerprint == static_encoder.fingerprint
    assert several.encode(texts).tobytes() == static_encoder.encode(texts).tobytes()


@needs_openvino
def test_fingerprints_tell_backend_and_precision(
    on_torch: Encoder, on_openvino: Encoder, int8: Encoder
) -> None:
    others = [
        load_encoder(MINILM, backend="torch", precision=precision, max_tokens=TOKENS)
        for precision in ("float16", "bfloat16")
    ]
    assert len({e.fingerprint for e in (on_torch, on_openvino, int8, *others)}) == 5


@needs_openvino
def test_auto_takes_openvino_where_it_can(on_openvino: Encoder, static_encoder: Encoder) -> None:
    assert load_encoder(MINILM, max_tokens=TOKENS).fingerprint == on_openvino.fingerprint
    stays = load_encoder("packaged/wordllama", backend="torch").fingerprint
    assert static_encoder.fingerprint == stays
    with pytest.raises(EncoderError, match="takes transformers on the CPU"):
        load_encoder("packaged/wordllama", backend="openvino")


def test_without_openvino_auto_is_torch_and_asking_is_refused(
    on_torch: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else find(name, *a)
    )
    assert load_encoder(MINILM, max_tokens=TOKENS).fingerprint == on_torch.fingerprint
    for asked in ({"backend": "openvino"}, {"precision": "int8"}):
        with pytest.raises(
            EncoderError, match=r"not installed: pip install 'nightrank\[openvino\]"
        ):
            load_encoder(MINILM, **asked)


@pytest.mark.parametrize(("backend", "precision"), [("torch", "int8"), ("openvino", "float16")])
def test_precisions_that_a_backend_has_not_are_refused(backend: str, precision: str) -> None:
    with pytest.raises(EncoderError, match=f"{precision}.*{backend} computes in float32 or"):
        load_encoder(MINILM, backend=backend, precision=precision)


def test_vectors_of_before_stay_valid() -> None:
    """Torch in float32 has the fingerprint that it had before there were backends."""
    encoder = load_encoder("packaged/wordllama")
    assert encoder.fingerprint == "e9637459b6a9b3f7b15ab5016195d8c7"


def test_fidelity_against_known_answers() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 5))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    same = fidelity(unit, unit)
    assert (round(same.mean, 6), round(same.least, 6), same.overlap) == (1, 1, 1)
    turned = unit.copy()
    turned[3] *= -1
    found = fidelity(turned, unit)
    assert found.least == pytest.approx(-1)
    assert found.mean == pytest.approx(28 / 30)
    assert 0.5 < found.overlap < 1


def test_ways_take_turns(on_torch: Encoder) -> None:
    turns = []

    def way(name: str) -> Vectors:
        turns.append(name)
        return np.ones((1, 2), dtype=np.float32)

    trials = compare({n: lambda _, n=n: way(n) for n in "ab"}, ["text"], rounds=2)
    assert turns == list("ababab")
    assert [len(trial.seconds) for trial in trials.values()] == [2, 2]
    assert ratio(trials["a"].seconds, trials["a"].seconds) == 1
    assert count_tokens(["red lipstick", "red"], on_torch) == 4 + 3
