"""Somebody is erased from campaign lists that are not whole."""

import re
from pathlib import Path

import pytest
from campaign_nights import RUN, shop

from jobs.erasing.lists import names_of
from jobs.manifest import Damaged


@pytest.mark.parametrize("content", ["{", "[]", '{"sha256": {}}'])
def test_a_damaged_manifest_of_a_list_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "campaigns" / "c0" / f"{RUN}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(Damaged, match=re.escape(str(path))):
        names_of(tmp_path, shop({}), "1")
