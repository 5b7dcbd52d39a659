"""What the HTML pages share: templates, sections, cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import isnan
from pathlib import Path

import polars as pl
from markupsafe import Markup

from jobs import charts
from jobs.figures import Figure


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        says: a sentence or two before all else.
        figures: plots.
        tables: rows by caption; a table without rows is left out.
    """

    title: str
    says: str = ""
    figures: Sequence[Figure] = ()
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)


def render(template: str, *, sections: Sequence[Section], **content: object) -> str:
    """A page from a template beside this file; whatever it is given is text, never markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    plots = [plot for section in sections for plot in section.figures]
    drawn = dict(zip(map(id, plots), charts.drawn([plot.chart for plot in plots]), strict=True))

    def svg(plot: Figure) -> Markup:
        return Markup(drawn[id(plot)])  # Vega has escaped its texts

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "heading": heading, "svg": svg}
    return environment.get_template(template).render(content, sections=sections)


def write(path: Path, text: str) -> Path:
    """Write a page by one rename; its path."""
    building = path.with_name(f".{path.name}.building")
    building.write_text(text, encoding="utf-8")
    return building.replace(path)


def heading(name: str) -> Markup:
    """The name of a column, which may go on in the next line after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def cell(value: object) -> str:
    """A cell: counts and what is above a thousand in full, other numbers to four digits.

    >>> [cell(value) for value in (12345.0, 4321.5, 0.00123456, float("nan"), None, "all", True)]
    ['12,345', '4,322', '0.001235', '–', '–', 'all', 'yes']
    >>> cell(datetime(2025, 6, 1)), cell(datetime(2025, 6, 1, 4, 30))
    ('2025-06-01', '2025-06-01 04:30')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if isnan(value):
        return "–"
    whole = float(value).is_integer() or abs(value) >= 1000
    return f"{value:,.0f}" if whole else f"{value:.4g}"
