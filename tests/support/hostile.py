"""Sources that no shop should send; run as a script, reads them all in one process."""

import gzip
import json
import re
import resource
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import polars as pl

ITEMS = b"item_id,title,price,available,created_at\nb,Boots,10,1,\na,,,,2024-01-01\n"
EVENTS = b"user_id,item_id,ts,behaviour,value\nu1,a,2024-02-01,view,\n"
REVIEWS = b"user_id,item_id,ts,text,title,rating\nu2,b,2024-03-01,nice,,5\n"
OBJECT = b'{"user_id": "u1", "item_id": "a", "ts": "2024-02-01", "behaviour": "view"}\n'
MB = 1_000_000
AS_OF = datetime(2024, 6, 1)


def bomb(head: bytes, chunk: bytes, times: int) -> bytes:
    """A gzip that repeats a chunk, as members of one file."""
    return gzip.compress(head) + gzip.compress(chunk) * times


def event(**changes: object) -> bytes:
    return json.dumps(json.loads(OBJECT) | changes).encode() + b"\n"


def parquet(folder: Path, rows: int = 9999) -> bytes:
    columns = {"user_id": [f"u{n}" for n in range(rows)], "item_id": "a"}
    frame = pl.DataFrame(columns | {"ts": datetime(2024, 2, 1), "behaviour": "view"})
    frame.write_parquet(folder / "whole")
    return (folder / "whole").read_bytes()


# One source of a shop that is otherwise sound: its file's name and content.
CORPUS: dict[str, tuple[str, bytes | Callable[[Path], bytes]]] = {
    # Text.
    "a review of 1 MB": (
        "reviews.csv",
        REVIEWS + b"u3,a,2024-03-01," + b"word " * 200_000 + b",,\n",
    ),
    "a review of 10 MB": (
        "reviews.csv",
        REVIEWS + b"u3,a,2024-03-01," + b"word " * (2 * MB) + b",,\nu4,a,2024-03-01,fine,,\n",
    ),
    "nested tags": ("reviews.csv", REVIEWS + b"u3,a,2024-03-01," + b"<div>" * 200_000 + b",,\n"),
    "lone surrogates": (
        "reviews.ndjson",
        OBJECT + event(text="x \ud83d y") + event(user_id="u\udc00"),
    ),
    "surrogate bytes": ("reviews.csv", REVIEWS + b"u3,a,2024-03-01,x\xed\xa0\xbdy,,\n"),
    "NUL bytes": ("reviews.csv", REVIEWS + b"u3,a,2024-03-01,x\0y,,\n"),
    # Encodings.
    "UTF-16": ("events.csv", EVENTS.decode().encode("utf-16")),
    "UTF-16 without a mark": ("events.csv", EVENTS.decode().encode("utf-16-le")),
    "Latin-1": ("reviews.csv", REVIEWS + "u3,a,2024-03-01,café,,\n".encode("latin-1") * 2),
    "a header in Latin-1": ("reviews.csv", "café,".encode("latin-1") + REVIEWS),
    "nothing but NUL": ("events.csv", b"\0" * 100_000),
    # Numbers and times.
    "not finite": (
        "events.csv",
        EVENTS + b"".join(b"u1,a,2024-02-02,view,%s\n" % v for v in (b"NaN", b"-inf", b"1e999")),
    ),
    "times that are none": (
        "events.csv",
        EVENTS
        + b"".join(
            b"u1,a,%s,view,\n" % ts
            for ts in (b"0000-00-00", b"2024-02-30", b"infinity", b"99999-01-01", b"now", b"1e9")
        ),
    ),
    # Bombs: a few MB that unpack to 4 GB.
    "a bomb of rows": ("events.csv.gz", bomb(EVENTS, b"u1,a,2024-02-01,view,\n" * 450_000, 400)),
    "a bomb of one line": ("events.csv.gz", bomb(EVENTS, b"x" * 10 * MB, 400)),
    "a bomb of NUL": ("events.ndjson.gz", bomb(b"", b"\0" * 10 * MB, 400)),
    "a bomb of blank lines": ("events.ndjson.gz", bomb(OBJECT, b"\n" * 10 * MB, 400)),
    # Half written, damaged.
    "a cut CSV": ("events.csv", EVENTS + b"u2,a,2024-02-0"),
    "a cut gzip": ("events.csv.gz", gzip.compress(EVENTS * 1000)[:-20]),
    "a cut Parquet": ("events.parquet", lambda folder: parquet(folder)[:-100]),
    "a Parquet of no bytes": ("events.parquet", b""),
    "a gzip that is none": ("events.csv.gz", b"user_id,item_id"),
    "no bytes": ("events.csv", b""),
    "no rows": ("events.csv", EVENTS.split(b"\n")[0] + b"\n"),
    # Lines.
    "a line of 40 MB": ("events.ndjson", OBJECT + event(x="y" * 40 * MB) + event(user_id="u2")),
    "a quote open to the end": (
        "events.csv",
        EVENTS + b'u2,"a\n' + b"u3,a,2024-02-01,view,\n" * 99,
    ),
    "a quote open over a million lines": (
        "events.csv",
        EVENTS + b'u2,"a\n' + b"u3,a,2024-02-01,view,\n" * MB + b'u4,"a",2024-02-01,view,\n',
    ),
    "line breaks in cells": (
        "reviews.csv",
        REVIEWS + b'u3,a,2024-03-01,"\n\ntwo\r\n\nlines\n",,\n\n',
    ),
    "line ends of two kinds": ("events.csv", EVENTS + b"u2,a,2024-02-01,view,\r\n"),
    "NDJSON with line ends of two kinds": ("events.ndjson", OBJECT + event(value=2)[:-1] + b"\r\n"),
    # Columns.
    "columns in another order, one added": (
        "events.csv",
        b"ts,new,behaviour,item_id,user_id\n2024-02-01,x,view,a,u1\n",
    ),
    "a column missing": ("events.csv", b"user_id,item_id,behaviour\nu1,a,view\n"),
    "a column twice": (
        "events.csv",
        b"user_id,User_ID,item_id,ts,behaviour\nu1,u2,a,2024-02-01,view\n",
    ),
    "columns without a name": (
        "events.csv",
        b",user_id,item_id,ts,behaviour,\n0,u1,a,2024-02-01,view,\n",
    ),
    "a header over two lines": ("events.csv", b'user_id,"x\ny",item_id,ts,behaviour\n'),
    "ten thousand keys": ("events.ndjson", event(**{f"k{n}": n for n in range(10_000)}, **{"": 1})),
    "a deep object": ("events.ndjson", OBJECT + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"\n"),
    # Rows.
    "late and twice": (
        "events.csv",
        EVENTS + b"u1,a,2024-01-01,view,\n" + EVENTS.split(b"\n")[1] + b"\nu1,a,2024-06-01,view,\n",
    ),
    "one user's million events": (
        "events.csv",
        EVENTS + b"".join(b"u1,b,2024-02-01 00:00:00.%06d,view,\n" % n for n in range(MB)),
    ),
}


def write(folder: Path, name: str) -> dict[str, str]:
    """Write a case's files; the file of each source."""
    folder.mkdir(parents=True)
    file, content = CORPUS[name]
    (folder / file).write_bytes(content if isinstance(content, bytes) else content(folder))
    files = {file.split(".")[0]: file}
    for source, sound in {"items": ITEMS, "events": EVENTS, "reviews": REVIEWS}.items():
        if source not in files:
            files[source] = f"{source}.csv"
            (folder / files[source]).write_bytes(sound)
    return files


def outcome(folder: Path, name: str) -> dict[str, object]:
    """What reading a case gives: error and message, or counts, quarantine and texts."""
    from embed import review_texts
    from jobs.config import Config
    from jobs.errors import NightrankError
    from jobs.ingest import read_inputs

    config = Config(
        name="shop",
        sources={**write(folder, name), "max_quarantined_share": 1},
        events={"weights": {"view": 1}},
        predict=[{"behaviour": "view", "horizon_days": 7}],
    )
    try:
        inputs = read_inputs(config, as_of=AS_OF, root=folder)
    except NightrankError as error:
        return {"error": type(error).__name__, "message": str(error)}
    counts = inputs.report.select("source", "read", "kept", "quarantined", "later")
    return {
        "counts": {source: rest for source, *rest in counts.iter_rows()},
        "ignored": dict(inputs.report.select("source", "ignored_columns").iter_rows()),
        "quarantine": inputs.quarantine.select("source", "rule", "row", "value").rows(),
        "texts": [text[:40] for text in review_texts(inputs.reviews)],
    }


def touched() -> int:
    """The most bytes of memory that this process has had.

    What `resource` tells of it begins with the memory of the process that started it.
    """
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024


if __name__ == "__main__":
    for limit, bound in zip((resource.RLIMIT_DATA, resource.RLIMIT_CPU), sys.argv[2:], strict=True):
        resource.setrlimit(limit, (int(bound), int(bound)))
    for number, name in enumerate(CORPUS):
        found = outcome(Path(sys.argv[1]) / str(number), name)
        print(json.dumps({"name": name, "peak": touched()} | found), flush=True)
