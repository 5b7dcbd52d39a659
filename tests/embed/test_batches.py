import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed import Encoder, load_encoder
from embed.batches import PIECE, cuts, token_batches

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 5000))
def test_cuts_keep_the_budget_and_lose_nothing(lengths: list[int], budget: int) -> None:
    descending = np.array(sorted(lengths, reverse=True))
    found = list(cuts(descending, budget))
    assert [row for cut in found for row in range(cut.start, cut.stop)] == list(range(len(lengths)))
    for cut in found:
        size = cut.stop - cut.start
        (length,) = set(descending[cut])
        assert size == 1 or size * length <= budget
        # One more would not have fitted, so there are no more batches than needed.
        others = set(descending[cut.stop : cut.stop + 1]) - {length}
        assert cut.stop == len(lengths) or others or (size + 1) * length > budget


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load_encoder("packaged/all-MiniLM-L6-v2", backend="torch", max_tokens=64)


def test_batches_hold_every_text_once_as_the_tokenizer_reads_it(minilm: Encoder) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(["word"] * int(n)) for n in rng.integers(1, 90, 2 * PIECE + 90)]
    seen = []
    # All of them first: what a tokenizer does to one call, it may do to another at the same time.
    for rows, features in list(token_batches(texts, minilm._model, prompt="", budget=1000)):
        ids, mask = features["input_ids"], features["attention_mask"]
        assert ids.shape == mask.shape
        assert ids.numel() <= 1000
        assert mask.sum(dim=1).max() == ids.shape[1]  # no column of padding alone
        seen += rows.tolist()
        alone = minilm._model.tokenizer(texts[rows[0]], truncation=True, max_length=64)["input_ids"]
        assert ids[0][mask[0].bool()].tolist() == alone
    assert sorted(seen) == list(range(len(texts)))


def test_a_text_beyond_the_budget_stands_alone(minilm: Encoder) -> None:
    texts = ["word " * 60, "word " * 60, "word"]
    batches = list(token_batches(texts, minilm._model, prompt="", budget=10))
    assert [len(rows) for rows, _ in batches] == [1, 1, 1]


@pytest.mark.parametrize(("backend", "apart"), [("openvino", 0.0), ("torch", 1e-6)])
def test_a_vector_is_of_its_text_alone(backend: str, apart: float) -> None:
    """With torch but for the last bits: its matrix product has several kernels."""
    encoder = load_encoder("packaged/all-MiniLM-L6-v2", backend=backend, max_tokens=32)
    words = np.array(["amber", "brisk", "cedar", "dusky", "early", "unwieldiness"])
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, n)) for n in rng.integers(1, 40, 80)]
    together = encoder.encode(texts)
    for size in (1, 3, 30):
        parts = [encoder.encode(texts[start : start + size]) for start in range(0, 80, size)]
        np.testing.assert_allclose(np.vstack(parts), together, rtol=0, atol=apart)


def test_the_budget_moves_the_last_bits_only(minilm: Encoder) -> None:
    texts = [f"{'very ' * (i % 40)}good item {i}" for i in range(60)]
    small = load_encoder(
        "packaged/all-MiniLM-L6-v2", backend="torch", max_tokens=64, batch_tokens=70
    )
    assert small.fingerprint == minilm.fingerprint
    np.testing.assert_allclose(small.encode(texts), minilm.encode(texts), rtol=0, atol=1e-6)
