"""Text from a shop's tables, made fit for a language model.

Whatever stands in a text (markup, entities, control characters, ten megabytes of one review),
cleaning ends quickly and never raises: one bad row must not stop a night.
"""

import re
import string
import unicodedata
from collections.abc import Sequence

import polars as pl
from selectolax.lexbor import LexborHTMLParser

RAW_FACTOR = 4  # characters read for each one kept, since markup may outweigh the text in it
MARKUP_PASSES = 3  # texts that were escaped again and again: "&amp;lt;p&amp;gt;"

_CLOSERS = ")]}"
_SEPARATORS = " \t\n.,;:!?|/\\-–—·•"

# Surrogates, controls that are not white space, soft hyphen, zero-width space, byte-order mark.
_UNWANTED = re.compile("[\ud800-\udfff\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\ufeff]")

# A name of one letter makes a tag only with ">" or an attribute after it: not "if a<b and b>c".
_SURELY = r"(?=\s*/?>|\s+[\w:-]+\s*=)"
# Inside a line these part no words: "un<b>believ</b>able". All others do.
_INLINE_TAG = re.compile(
    r"</?(?:a|abbr|acronym|b|big|bdi|bdo|cite|code|del|dfn|em|font|i|ins|kbd|mark|nobr|q|s|samp"
    rf"|small|span|strike|strong|sub|sup|tt|u|var|wbr){_SURELY}[^<>]*>",
    re.IGNORECASE,
)
# "I <3 this", "a < b" and "x<y and y>z" are no markup, though a browser would swallow the last.
_NO_TAG = re.compile(
    rf"<(?!/?(?:p{_SURELY}|(?:address|area|article|aside|audio|base|blockquote|body|br|button"
    r"|canvas|caption|center|col|colgroup|datalist|dd|details|dialog|dir|div|dl|dt|embed|fieldset"
    r"|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|img|input"
    r"|label|legend|li|link|main|map|meta|nav|noscript|object|ol|optgroup|option|param|path"
    r"|picture|pre|script|section|select|source|style|summary|svg|table|tbody|td|template|textarea"
    r"|tfoot|th|thead|time|title|tr|track|ul|video|[a-z]\w{0,9}:\w+)(?=[\s/>]))[^<>]*>"
    r"|!--|!doctype\b|\?xml\b)",
    re.IGNORECASE,
)
# What is left of a tag where a long text was cut, up to an image written into its attribute.
_CUT_TAG = re.compile(r"</?(?:[a-z]\w{0,20}(?:\s+[\w:-]+(?:\s*=[^<>]*)?)?)?\s*$", re.IGNORECASE)


class TemplateError(ValueError):
    """A text template that cannot be filled from the columns there are."""


def clean_text(text: str | None, *, max_characters: int = 5000) -> str:
    r"""Plain text on one line: no markup, entities decoded, NFC, single spaces.

    Reads the first `RAW_FACTOR * max_characters` characters only, so the time has a bound
    whatever the text. Contents of script and style are dropped, and so are lone surrogates,
    control characters and invisible fillers. Never raises for a string, and gives ``""`` for
    None. Cleaning a clean text changes nothing unless it holds ``<`` or ``&``.

    >>> clean_text("<p>Soft&nbsp;&amp; <b>warm</b></p><p>I &lt;3 it\x00</p><script>x()</script>")
    'Soft & warm I <3 it'
    >>> clean_text("pays off if a<b and b>c")
    'pays off if a<b and b>c'
    """
    if not text:
        return ""
    raw = text[: RAW_FACTOR * max_characters]
    if len(raw) < len(text):
        raw = _CUT_TAG.sub("", raw)
    raw = _UNWANTED.sub("", raw)
    for _ in range(MARKUP_PASSES):
        stripped = _strip_markup(raw) if "<" in raw or "&" in raw else raw
        if stripped == raw:
            break
        raw = stripped
    plain = " ".join(unicodedata.normalize("NFC", _UNWANTED.sub("", raw)).split())
    return plain[:max_characters].rstrip()


def item_texts(items: pl.DataFrame, *, template: str, max_characters: int = 5000) -> list[str]:
    """One text for each row of `items`, in their order, filled from the columns in `template`.

    Every value is cleaned first. The words and marks before a field go with it, so an empty
    field leaves nothing behind; those after the last field stay only where it has a value. A row
    without any value gives ``""``.

    Raises:
        TemplateError: if `template` is malformed, or names no column or an unknown one.

    >>> items = pl.DataFrame({"title": ["Lipstick"], "brand": [None], "category": ["Makeup"]})
    >>> item_texts(items, template="{title}. {brand}. {category}")
    ['Lipstick. Makeup']
    """
    literals, fields, tail = _parse_template(template, columns=items.columns)
    columns = [_clean_column(items[field], max_characters=max_characters) for field in fields]
    return [
        _fill(literals, row, tail)[:max_characters].rstrip() for row in zip(*columns, strict=True)
    ]


def review_texts(reviews: pl.DataFrame, *, max_characters: int = 5000) -> list[str]:
    """One text for each row of `reviews`, in their order: its title and its text, cleaned.

    >>> review_texts(pl.DataFrame({"title": ["Great!", None], "text": ["Would buy again.", ""]}))
    ['Great! Would buy again.', '']
    """
    return item_texts(reviews, template="{title}. {text}", max_characters=max_characters)


def _strip_markup(text: str) -> str:
    tree = LexborHTMLParser(_NO_TAG.sub("&lt;", _INLINE_TAG.sub("", text)))
    tree.strip_tags(["script", "style"], recursive=True)
    # The root and not the body: a page of frames has none.
    return tree.root.text(separator=" ") if tree.root else ""


def _parse_template(template: str, *, columns: Sequence[str]) -> tuple[list[str], list[str], str]:
    """The literal before each field, the fields, and the literal after the last one."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise TemplateError(f"Cannot read the text template {template!r}: {error}.") from error
    literals, fields, tail = [], [], ""
    for literal, field, spec, conversion in parts:
        tail += literal
        if field is None:
            continue
        if field not in columns or spec or conversion:
            raise TemplateError(
                f"The text template {template!r} asks for {{{field}}}, which is not the plain name "
                f"of a column. There are: {', '.join(columns)}."
            )
        literals.append(tail)
        fields.append(field)
        tail = ""
    if not fields:
        raise TemplateError(
            f"The text template {template!r} names no column, so all texts would be the same. "
            f"Write a name in braces; there are: {', '.join(columns)}."
        )
    return literals, fields, tail


def _clean_column(column: pl.Series, *, max_characters: int) -> list[str]:
    if column.dtype.is_float():
        column = column.fill_nan(None)
    return [clean_text(text, max_characters=max_characters) for text in column.cast(pl.String)]


def _fill(literals: Sequence[str], values: Sequence[str], tail: str) -> str:
    text, skipped = "", False
    for literal, value in zip(literals, values, strict=True):
        if value:
            if skipped:
                literal = literal.lstrip(_CLOSERS if text else _CLOSERS + _SEPARATORS)
            if text.endswith((".", "!", "?", "…")):
                literal = literal.lstrip(".")
            text += literal + value
        skipped = not value
    return text if skipped else text + tail
