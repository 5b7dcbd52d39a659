"""Pages as a parser and as a browser see them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
from selectolax.lexbor import LexborHTMLParser, LexborNode

_MEASURE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
    needed: document.documentElement.scrollWidth,
    inner: innerWidth,
    requests: performance.getEntriesByType("resource").map(entry => entry.name),
    rights: [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().right),
}), "*"))</script></body>"""
# A browser's own window is never narrower than 500 pixels; a frame is.
_FRAME = """<!doctype html><title>nothing</title><body style="margin: 0">
<script>addEventListener("message", event => { document.title = event.data })</script>
<iframe src="measured.html" style="width: {width}px; height: 900px; border: 0"></iframe>"""


def cells(table: LexborNode) -> pl.DataFrame:
    """The texts of a table of the page."""
    names = [cell.text() for cell in table.css("th")]
    rows = [[cell.text() for cell in row.css("td")] for row in table.css("tbody tr")]
    return pl.DataFrame(rows, names, orient="row")


def tables_of(page: LexborHTMLParser) -> dict[str, pl.DataFrame]:
    """The texts of all tables by their titles."""
    return {table.attributes["data-title"] or "": cells(table) for table in page.css("table")}


def outside(text: str) -> list[str]:
    """Whatever in a page may ask for something that is not in it, and ids that it has twice."""
    page = LexborHTMLParser(text)
    found = [
        node.tag for node in page.css("script, link, iframe, img, image, object, embed") if node.tag
    ]
    found += re.findall(r'(?:href|src)="(?!#)[^"]*"|url\((?!#)', text)
    ids = [node.attributes["id"] or "" for node in page.css("[id]")]
    return found + [name for name in set(ids) if ids.count(name) > 1]


def look(browser: str, page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open the page in a browser that may do nothing on its own account."""
    return subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
            *options, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


def seen(browser: str, page: Path, folder: Path) -> LexborHTMLParser:
    """The page as a browser has it, which complains of nothing: no script, no request refused."""
    said = look(browser, page, folder, "--dump-dom", "--enable-logging=stderr")
    assert "CONSOLE" not in said.stderr
    return LexborHTMLParser(said.stdout)


def measured(browser: str, text: str, folder: Path, *, width: int) -> dict[str, Any]:
    """Widths of window, page and plots, and what was asked for where nothing forbids it."""
    free = re.sub("<meta http-equiv[^>]*>", "", text)
    (folder / "measured.html").write_text(free.replace("</body>", _MEASURE), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(_FRAME.replace("{width}", str(width)), encoding="utf-8")
    waits = ("--window-size=1500,1000", "--virtual-time-budget=5000")
    said = look(browser, frame, folder, "--dump-dom", *waits)
    found: dict[str, Any] = json.loads(LexborHTMLParser(said.stdout).css_first("title").text())
    return found
