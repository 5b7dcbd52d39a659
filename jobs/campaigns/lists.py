"""The lists of all campaigns of one night: chosen from its tables, then written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl

from jobs.campaigns.feedback import sent_lists, sent_messages
from jobs.campaigns.files import list_path, write_list
from jobs.campaigns.selection import WATERFALL, Selection, select_lists
from jobs.config import Config
from jobs.console import log
from jobs.erasing.tombstones import Tombstones
from jobs.errors import NightrankError


@dataclass(frozen=True)
class Written:
    """The list of one campaign: its CSV and number of lines, or why there is none."""

    campaign: str
    path: Path
    lines: int
    refused: NightrankError | None


class Lists:
    """Chooses while the night's file is written, so that it holds the waterfalls; writes after."""

    def __init__(self, config: Config, *, home: Path, root: Path) -> None:
        self.config = config
        self.home = home
        self.root = root
        self.selections: list[Selection] = []

    def select(self, scores: duckdb.DuckDBPyConnection) -> pl.DataFrame:
        """Choose the lines of every campaign; the waterfalls of all."""
        kind = scores.sql("select user_id from users limit 0").pl().schema["user_id"]
        self.selections = select_lists(
            scores,
            self.config,
            root=self.root,
            now=datetime.now(UTC).replace(tzinfo=None),
            sent=sent_messages(self.home, kind),
            erased=Tombstones.of(self.home),
        )
        waterfalls = [selection.waterfall for selection in self.selections]
        return pl.concat([pl.DataFrame(schema=WATERFALL), *waterfalls])

    def write(self, run_id: str, *, at: datetime) -> list[Written]:
        """Write the files of every campaign that was not refused; see `write_list`."""
        written = []
        for selection in self.selections:
            name = selection.campaign.name
            path, lines, refused = list_path(self.home, name, run_id), 0, selection.refused
            if refused is None:
                try:
                    sent = sent_lists(self.home, name)
                    second = at.replace(microsecond=0)
                    lines = write_list(
                        selection, home=self.home, run_id=run_id, at=second, sent=sent
                    )
                except NightrankError as error:
                    refused = error
            written.append(Written(name, path, lines, refused))
            if refused is None:
                log.info("campaign", name=name, lines=lines)
            else:
                log.error("campaign has no list", name=name)
        return written


def raise_refused(written: Sequence[Written]) -> None:
    """Raise what refused lists, if anything did, as one error of the first one's class."""
    refused = [(made.campaign, made.refused) for made in written if made.refused is not None]
    if refused:
        lines = [f"campaign {name!r} has no list: {error}" for name, error in refused]
        raise type(refused[0][1])("\n".join(["the night's tables are published, but", *lines]))
