import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed import Encoder, VectorCache, clean_text, embed_texts, load_encoder, review_texts
from embed.cache import hash_texts, keep_only

ROOT = Path(__file__).resolve().parents[2]
WORDS = [f"item number {i} {'with many words ' * (i % 5)}" for i in range(20)]


def opened(folder: Path, encoder: Encoder) -> VectorCache:
    return VectorCache(folder, fingerprint=encoder.fingerprint, dimension=encoder.dimension)


def shards(folder: Path, encoder: Encoder) -> list[Path]:
    return sorted((folder / encoder.fingerprint).iterdir())


def test_each_distinct_text_is_encoded_once(static_encoder: Encoder, tmp_path: Path) -> None:
    texts = ["lipstick", "", "drill", "lipstick", "  \n", "mascara", "drill", "lipstick"]
    first = embed_texts(texts, encoder=static_encoder, cache=opened(tmp_path, static_encoder))
    assert (first.encoded, first.cached, first.empty) == (3, 0, 2)
    assert first.vectors.dtype == np.float32
    assert first.vectors.shape == (8, 256)
    for row, text in enumerate(texts):
        expected = static_encoder.encode([text])[0] if text.strip() else np.zeros(256)
        np.testing.assert_allclose(first.vectors[row], expected, atol=1e-6)

    again = embed_texts(texts, encoder=static_encoder, cache=opened(tmp_path, static_encoder))
    assert (again.encoded, again.cached, again.empty) == (0, 3, 2)
    assert again.vectors.tobytes() == first.vectors.tobytes()

    more = embed_texts(
        ["drill", "saw"], encoder=static_encoder, cache=opened(tmp_path, static_encoder)
    )
    assert (more.encoded, more.cached, more.empty) == (1, 1, 0)
    assert more.vectors[0].tobytes() == first.vectors[2].tobytes()


def test_order_of_texts_does_not_matter(static_encoder: Encoder, tmp_path: Path) -> None:
    cache = opened(tmp_path, static_encoder)
    first = embed_texts(WORDS, encoder=static_encoder, cache=cache, chunk=3).vectors
    order = np.random.default_rng(0).permutation(len(WORDS))
    mixed = embed_texts([WORDS[i] for i in order], encoder=static_encoder, cache=cache)
    assert mixed.encoded == 0
    assert np.array_equal(mixed.vectors, first[order])
    np.testing.assert_allclose(first, static_encoder.encode(WORDS), atol=1e-6)


def test_nothing_to_embed(static_encoder: Encoder, tmp_path: Path) -> None:
    cache = opened(tmp_path, static_encoder)
    assert embed_texts([], encoder=static_encoder, cache=cache).vectors.shape == (0, 256)
    only_empty = embed_texts(["", " "], encoder=static_encoder, cache=cache)
    assert (only_empty.encoded, only_empty.cached, only_empty.empty) == (0, 0, 2)
    assert not only_empty.vectors.any()
    assert shards(tmp_path, static_encoder) == []


def test_new_texts_are_committed_by_chunk_the_longest_first(
    static_encoder: Encoder, tmp_path: Path
) -> None:
    cache, sizes, lengths = opened(tmp_path, static_encoder), [], []

    def watch(size: int) -> None:
        sizes.append(size)
        lengths.append(len(cache))

    embed_texts(WORDS, encoder=static_encoder, cache=cache, chunk=8, on_progress=watch)
    assert sizes == [8, 8, 4]
    assert lengths == [8, 16, 20]  # told after the commit
    first = set(np.load(shards(tmp_path, static_encoder)[0] / "hashes.npy").tolist())
    assert first == set(hash_texts(sorted(WORDS, key=len, reverse=True)[:8]).tolist())


def test_an_interrupted_run_keeps_its_chunks(static_encoder: Encoder, tmp_path: Path) -> None:
    def interrupt(size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_texts(
            WORDS,
            encoder=static_encoder,
            cache=opened(tmp_path, static_encoder),
            chunk=8,
            on_progress=interrupt,
        )
    rest = embed_texts(WORDS, encoder=static_encoder, cache=opened(tmp_path, static_encoder))
    assert (rest.encoded, rest.cached) == (12, 8)


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from embed.cache import VectorCache, hash_texts
cache = VectorCache(Path(sys.argv[1]), fingerprint="f", dimension=2)
cache.add(hash_texts(["whole"]), np.ones((1, 2), dtype=np.float32))
Path.rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
cache.add(hash_texts(["half"]), np.ones((1, 2), dtype=np.float32))
"""


def test_a_killed_writer_leaves_no_half_shard(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)], cwd=ROOT, check=False
    )
    assert run.returncode == -signal.SIGKILL
    leftovers = list((tmp_path / "f").glob(".new-*"))
    assert len(leftovers) == 1

    cache = VectorCache(tmp_path, fingerprint="f", dimension=2)
    assert cache.find(hash_texts(["whole", "half"])).tolist() == [0, -1]
    assert leftovers[0].exists()  # so young that its writer may be alive

    hours_ago = time.time() - 2 * 3600
    os.utime(leftovers[0], (hours_ago, hours_ago))
    assert len(VectorCache(tmp_path, fingerprint="f", dimension=2)) == 1
    assert not leftovers[0].exists()


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def flip_digest(path: Path) -> None:
    text = path.read_text()
    at = text.index('": "') + 4
    path.write_text(text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :])


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("vectors.npy", flip_last_bit),
        ("hashes.npy", flip_last_bit),
        ("vectors.npy", lambda path: path.write_bytes(path.read_bytes()[:-100])),
        ("vectors.npy", lambda path: path.write_bytes(b"")),
        ("vectors.npy", Path.unlink),
        ("manifest.json", Path.unlink),
        ("manifest.json", flip_digest),
        ("manifest.json", lambda path: path.write_text("")),
        ("manifest.json", lambda path: path.write_text("[]")),
        ("manifest.json", lambda path: path.write_text("{}")),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe")),
    ],
)
def test_a_damaged_shard_is_encoded_again(
    file: str,
    damage: Callable[[Path], object],
    static_encoder: Encoder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = opened(tmp_path, static_encoder)
    first = embed_texts(WORDS, encoder=static_encoder, cache=cache, chunk=8).vectors.copy()
    victim = shards(tmp_path, static_encoder)[1]
    damage(victim / file)

    with caplog.at_level(logging.WARNING):
        cache = opened(tmp_path, static_encoder)
    assert len(cache) == 12
    assert not victim.exists()
    assert [str(victim) in record.getMessage() for record in caplog.records] == [True]

    again = embed_texts(WORDS, encoder=static_encoder, cache=cache, chunk=8)
    assert (again.encoded, again.cached) == (8, 12)
    assert again.vectors.tobytes() == first.tobytes()
    assert len(opened(tmp_path, static_encoder)) == 20


def test_a_shard_of_another_dimension_is_not_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = VectorCache(tmp_path, fingerprint="f", dimension=2)
    cache.add(hash_texts(["a"]), np.ones((1, 2), dtype=np.float32))
    assert len(VectorCache(tmp_path, fingerprint="f", dimension=3)) == 0
    assert "damaged" in caplog.text


def test_foreign_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "f" / "notes").mkdir(parents=True)
    (tmp_path / "f" / "notes" / "read.me").write_text("mine")
    assert len(VectorCache(tmp_path, fingerprint="f", dimension=2)) == 0
    assert (tmp_path / "f" / "notes" / "read.me").read_text() == "mine"


def test_encoders_do_not_share_vectors(static_encoder: Encoder, tmp_path: Path) -> None:
    prompted = load_encoder("packaged/wordllama", prompt="query: ")
    plain = embed_texts(WORDS, encoder=static_encoder, cache=opened(tmp_path, static_encoder))
    other = embed_texts(WORDS, encoder=prompted, cache=opened(tmp_path, prompted))
    assert (plain.encoded, other.encoded) == (20, 20)
    assert not np.array_equal(plain.vectors, other.vectors)
    with pytest.raises(ValueError, match=prompted.fingerprint):
        embed_texts(WORDS, encoder=prompted, cache=opened(tmp_path, static_encoder))


def test_two_processes_may_add_at_once(tmp_path: Path) -> None:
    one = VectorCache(tmp_path, fingerprint="f", dimension=2)
    two = VectorCache(tmp_path, fingerprint="f", dimension=2)
    one.add(hash_texts(["a", "both"]), np.array([[1, 1], [2, 2]], dtype=np.float32))
    two.add(hash_texts(["both", "b"]), np.array([[2, 2], [3, 3]], dtype=np.float32))
    assert two.find(hash_texts(["a"])).tolist() == [-1]
    cache = VectorCache(tmp_path, fingerprint="f", dimension=2)
    found = cache.take(cache.find(hash_texts(["b", "both", "a", "none"])))
    assert found.tolist() == [[3, 3], [2, 2], [1, 1], [0, 0]]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, fingerprint="f", dimension=2)
    for vectors in (
        np.ones((1, 3), dtype=np.float32),
        np.ones((2, 2), dtype=np.float32),
        np.ones((1, 2)),
    ):
        with pytest.raises(ValueError, match="takes float32"):
            cache.add(hash_texts(["a"]), vectors)
    assert list((tmp_path / "f").iterdir()) == []


# Few distinct bytes at the ends, so that digests share prefixes and end in NUL.
digests = st.binary(min_size=1, max_size=2).map(lambda end: b"\x00\xff" * 7 + end.rjust(2, b"\x00"))
padded = st.binary(min_size=0, max_size=2).map(lambda start: start.ljust(16, b"\x00"))


@given(
    st.lists(st.lists(digests | padded, min_size=1, max_size=5), max_size=4),
    st.lists(digests | padded),
)
def test_look_up_agrees_with_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, added: list[list[bytes]], asked: list[bytes]
) -> None:
    cache = VectorCache(tmp_path_factory.mktemp("cache"), fingerprint="f", dimension=1)
    known: dict[bytes, float] = {}
    for part in added:
        new = [key for key in dict.fromkeys(part) if key not in known]
        if new:
            values = np.arange(len(known) + 1, len(known) + 1 + len(new), dtype=np.float32)
            cache.add(np.array(new, dtype="S16"), values[:, None])
            known.update(zip(new, values.tolist(), strict=True))
    keys = asked + list(known)
    found = cache.take(cache.find(np.array(keys, dtype="S16")))
    assert found[:, 0].tolist() == [known.get(key, 0.0) for key in keys]


def test_hostile_texts_become_vectors_of_their_clean_selves(
    static_encoder: Encoder, tmp_path: Path
) -> None:
    hostile = [
        "lipstick " * 1_200_000,
        "red lipstick" + "<div>" * 200_000,
        "<b>red</b>\x00 lip\ud800stick",
        "\x00\ud800<br>",
    ]
    texts = [clean_text(text) for text in hostile]
    cache = opened(tmp_path, static_encoder)
    found = embed_texts(texts, encoder=static_encoder, cache=cache)
    assert (found.encoded, found.empty) == (2, 1)
    expected = static_encoder.encode([("lipstick " * 600)[:5000].strip(), "red lipstick"])
    np.testing.assert_allclose(found.vectors[:2], expected, atol=1e-6)
    assert np.array_equal(found.vectors[1], found.vectors[2])
    assert not found.vectors[3].any()


@pytest.mark.realdata
def test_real_reviews_find_the_reviews_of_like_things(
    static_encoder: Encoder, shared_data: Path, tmp_path: Path
) -> None:
    file = shared_data / "musical-instruments-reviews" / "reviews.parquet"
    reviews = pl.read_parquet(file).rename({"summary": "title", "review_text": "text"})
    texts = review_texts(reviews)
    cache = opened(tmp_path, static_encoder)
    found = embed_texts(texts, encoder=static_encoder, cache=cache)
    distinct = len({text for text in texts if text})
    assert (found.encoded, found.cached) == (distinct, 0)
    assert embed_texts(texts, encoder=static_encoder, cache=cache).encoded == 0

    [query] = static_encoder.encode(["This capo holds the strings of my guitar tightly."])
    nearest = [texts[row].lower() for row in np.argsort(-(found.vectors @ query))[:20]]
    share = sum("capo" in text.lower() for text in texts) / len(texts)
    assert sum("capo" in text for text in nearest) / 20 > 10 * share


def test_only_vectors_of_the_named_texts_are_kept(static_encoder: Encoder, tmp_path: Path) -> None:
    for part in (WORDS[:8], WORDS[8:12], WORDS[12:]):
        embed_texts(part, encoder=static_encoder, cache=opened(tmp_path, static_encoder))
    first, second, third = shards(tmp_path, static_encoder)
    (third / "vectors.npy").write_bytes(b"damaged")
    (third.parent / ".new-000003-killed").mkdir()
    stays = WORDS[:3] + WORDS[8:12]
    before = opened_only(tmp_path, static_encoder)
    kept = before.take(before.find(hash_texts(stays)))
    for shard in (first, second):
        os.utime(shard, (1e9, 1e9))
    assert keep_only(tmp_path, [*stays, "never seen"]) == 5
    renewed, untouched = shards(tmp_path, static_encoder)
    assert (renewed.name[:7], untouched) == (first.name[:7], second)
    assert renewed.name != first.name
    assert {shard.stat().st_mtime for shard in (renewed, untouched)} == {1e9}
    after = opened(tmp_path, static_encoder)
    assert len(after) == len(stays)
    assert (after.find(hash_texts(WORDS[3:8] + WORDS[12:])) < 0).all()
    np.testing.assert_array_equal(after.take(after.find(hash_texts(stays))), kept)
    assert keep_only(tmp_path, []) == len(stays)
    assert shards(tmp_path, static_encoder) == []


def test_texts_that_are_forgotten_are_encoded_anew(static_encoder: Encoder, tmp_path: Path) -> None:
    for part in (WORDS[:8], WORDS[8:12], WORDS[12:]):
        embed_texts(part, encoder=static_encoder, cache=opened(tmp_path, static_encoder))
    first, _, third = shards(tmp_path, static_encoder)
    cache = opened(tmp_path, static_encoder)
    assert cache.forget([*WORDS[6:12], "never seen"]) == 6
    assert len(cache) == 14
    renewed, untouched = shards(tmp_path, static_encoder)
    assert (renewed.name[:7], untouched) == (first.name[:7], third)
    anew = embed_texts(WORDS, encoder=static_encoder, cache=cache)
    assert (anew.encoded, anew.cached) == (6, 14)
    np.testing.assert_array_equal(anew.vectors, static_encoder.encode(WORDS))


def test_vectors_of_other_texts_are_set_apart(static_encoder: Encoder, tmp_path: Path) -> None:
    for part in (WORDS[:8], WORDS[8:12], WORDS[12:]):
        embed_texts(part, encoder=static_encoder, cache=opened(tmp_path, static_encoder))
    mixed, unused, used = shards(tmp_path, static_encoder)
    for shard in (mixed, unused, used):
        os.utime(shard, (1e9, 1e9))
    cache = opened(tmp_path, static_encoder)
    before = cache.take(cache.find(hash_texts(WORDS)))
    for shard in (mixed, unused, used):
        os.utime(shard, (1e9, 1e9))
    stays = [*WORDS[:5], *WORDS[12:], "never seen"]
    assert cache.set_apart(stays) == 3
    renewed, *others = shards(tmp_path, static_encoder)
    apart = others.pop()
    assert (renewed.name[:7], others) == (mixed.name[:7], [unused, used])
    assert {shard.stat().st_mtime for shard in (renewed, unused, used)} == {1e9}
    assert apart.stat().st_mtime > 1e9
    for one in (cache, opened_only(tmp_path, static_encoder)):
        assert len(one) == len(WORDS)
        np.testing.assert_array_equal(one.take(one.find(hash_texts(WORDS))), before)
    held = np.load(apart / "hashes.npy")
    assert sorted(held) == sorted(hash_texts(WORDS[5:8]))
    assert cache.set_apart(stays) == 0
    assert shards(tmp_path, static_encoder) == [renewed, unused, used, apart]


def opened_only(folder: Path, encoder: Encoder) -> VectorCache:
    return VectorCache(
        folder, fingerprint=encoder.fingerprint, dimension=encoder.dimension, writable=False
    )
