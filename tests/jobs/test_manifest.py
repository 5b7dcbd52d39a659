import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.manifest import MANIFEST, Damaged, exchange, read, seal, sha256, verify, whole

ABOUT = {"as_of": "2025-06-01T00:00:00", "rows": {"predictions": 12}, "behaviours": ["größe"]}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed")
    (folder / "a.bin").write_bytes(b"")
    (folder / "b.txt").write_bytes(b"abc")
    seal(folder, **ABOUT)
    return folder


def test_the_digests_are_those_of_the_standard(sealed: Path) -> None:
    """The examples of FIPS 180-2: the empty message and "abc"."""
    assert sha256(sealed / "a.bin").startswith("e3b0c44298fc1c149afbf4c8996fb924")
    assert sha256(sealed / "b.txt").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert read(sealed / MANIFEST) == verify(sealed / MANIFEST) == ABOUT
    assert sorted(path.name for path in sealed.iterdir()) == ["a.bin", "b.txt", MANIFEST]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_bit_flipped_anywhere_in_a_manifest_is_noticed(
    sealed: Path, tmp_path: Path, place: int, bit: int
) -> None:
    content = bytearray((sealed / MANIFEST).read_bytes())
    content[place % len(content)] ^= 1 << bit
    for name in ("a.bin", "b.txt"):
        (tmp_path / name).write_bytes((sealed / name).read_bytes())
    (tmp_path / MANIFEST).write_bytes(content)
    try:
        found = verify(tmp_path / MANIFEST)
    except Damaged:
        return
    # \u00f6 and \u00F6 are one letter: nothing that is told has changed.
    assert json.loads(content) == json.loads((sealed / MANIFEST).read_bytes())
    assert found == ABOUT


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"sha256": []}', '{"about": {}}'])
def test_what_is_no_manifest_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / MANIFEST
    path.write_text(content)
    with pytest.raises(Damaged, match=MANIFEST):
        read(path)
    path.unlink()
    with pytest.raises(Damaged, match=f"{MANIFEST} is missing"):
        read(path)


def test_a_changed_and_a_missing_file_are_named(sealed: Path, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"abd")
    (tmp_path / "a.bin").write_bytes(b"")
    (tmp_path / MANIFEST).write_bytes((sealed / MANIFEST).read_bytes())
    with pytest.raises(Damaged, match=r"b\.txt is damaged"):
        verify(tmp_path / MANIFEST)
    assert read(tmp_path / MANIFEST) == ABOUT
    (tmp_path / "a.bin").unlink()
    with pytest.raises(Damaged, match=r"a\.bin is missing"):
        verify(tmp_path / MANIFEST)


def test_an_exchange_that_was_cut_short_leaves_a_file_that_is_known(tmp_path: Path) -> None:
    file, building, path = tmp_path / "b.txt", tmp_path / ".b.txt.building", tmp_path / MANIFEST
    file.write_bytes(b"abc")
    seal(tmp_path, **ABOUT)
    building.write_bytes(b"abd")
    exchange(path, building, file, more=1)
    assert file.read_bytes() == b"abd"
    before = {"b.txt": hashlib.sha256(b"abc").hexdigest()}
    assert verify(path) == whole(path) == ABOUT | {"more": 1, "before": before}
    file.write_bytes(b"abc")  # as before the rename
    with pytest.raises(Damaged, match=r"b\.txt is damaged"):
        verify(path)
    assert whole(path)["more"] == 1
    file.write_bytes(b"abe")
    with pytest.raises(Damaged, match=r"b\.txt is damaged"):
        whole(path)
