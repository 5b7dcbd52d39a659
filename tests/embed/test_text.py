import doctest
import html
import unicodedata
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embed.text
from embed import TemplateError, clean_text, item_texts, review_texts

# Any code point, lone surrogates among them.
anything = st.text(st.characters(exclude_categories=[]), max_size=200)
markup = st.lists(
    st.sampled_from(
        ["<", ">", "&", "<p>", "</p>", "<b", "<script>", "&lt;", "&amp;", "&#0;", "<!--"]
    )
    | st.text(max_size=5)
).map("".join)


def test_doctests_hold() -> None:
    result = doctest.testmod(embed.text)
    assert result.attempted == 5
    assert result.failed == 0


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (None, ""),
        ("", ""),
        (" \n\t\u00a0\u2003 ", ""),
        ("one\r\n two\t\tthree\u00a0four", "one two three four"),
        # Not markup.
        ("I <3 this", "I <3 this"),
        ("a < b && c > d", "a < b && c > d"),
        ("x<y and y>z", "x<y and y>z"),
        ("rated <expected> by me, i<b", "rated <expected> by me, i<b"),
        ("pays if a<b and b>c, or p<p or p>q", "pays if a<b and b>c, or p<p or p>q"),
        ("AT&T", "AT&T"),
        ("ends with <", "ends with <"),
        ("never <closed", "never <closed"),
        # Markup.
        ("<p>one</p><p>two</p>", "one two"),
        ("one<br>two<BR/>three", "one two three"),
        ("<ul><li>one</li><li>two</li></ul>", "one two"),
        ("un<b>believ</b>able H<sub>2</sub>O", "unbelievable H2O"),
        ('<p class="x">one</p ><P>two</p><script async src="x">y</script><b />', "one two"),
        ('<a href="x?a=1&b=2">link</a>, then', "link, then"),
        ("a<script>if (a<b) { alert('<p>') }</script>z", "a z"),
        ("<style>p > a { color: red }</style>shown", "shown"),
        ("<!-- hidden <b>words</b> -->shown", "shown"),
        ("<!DOCTYPE html><html><head><title>T</title></head><body>B</body></html>", "T B"),
        ("<?xml version='1.0'?><o:p>office</o:p>", "office"),
        ("<frameset><frame></frameset>", ""),
        # Entities, also those escaped twice.
        ("Tom &amp; Jerry &eacute; &#233; &#x1F600;", "Tom & Jerry é é 😀"),
        ("&lt;p&gt;one&lt;/p&gt;&lt;p&gt;two&lt;/p&gt;", "one two"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        # Characters no model should meet.
        ("nul\x00 bell\x07 del\x7f", "nul bell del"),
        ("lone \ud83d surrogate \ude00", "lone surrogate"),
        ("so\u00adft zero\u200bwidth \ufeffmark", "soft zerowidth mark"),
        ("&#1;&shy;x", "x"),
        ("e\u0301", "é"),
        # What joins letters and emoji has a meaning and stays.
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
    ],
)
def test_clean_text(raw: str | None, clean: str) -> None:
    assert clean_text(raw) == clean


def test_clean_text_caps_after_cleaning() -> None:
    assert clean_text("<p>abc</p> <p>def</p>", max_characters=5) == "abc d"
    assert clean_text("abc def", max_characters=4) == "abc"


def test_hostile_texts_are_cleaned_to_what_is_in_reach() -> None:
    assert clean_text("word " * 2_000_000) == ("word " * 1000).rstrip()
    assert clean_text("x" * 10_000_000) == "x" * 5000
    for before in ("deep", "deep ", "deep  ", "deep   ", "deep    "):  # cut at each place of a tag
        assert clean_text(before + "<div>" * 200_000) == "deep"
        assert clean_text(before + "</div >" * 200_000) == "deep"
    assert clean_text('shown <img src="data:image/png;base64,' + "A" * 1_000_000 + '">') == "shown"
    assert clean_text("<b>x" * 200_000)[:5000] == "x" * 5000
    assert clean_text("< " * 1_000_000) == ("< " * 2500).rstrip()
    assert clean_text("&amp;" * 1_000_000) == "&" * 4000
    assert clean_text("\x00" * 1_000_000) == ""
    assert clean_text("\ud800" * 1_000_000) == ""
    assert len(clean_text("a" + "\u0301\u0323" * 1_000_000)) == 5000


@given(anything | markup, st.integers(1, 50))
def test_clean_text_never_raises_and_is_fit_for_a_model(raw: str, cap: int) -> None:
    text = clean_text(raw, max_characters=cap)
    assert len(text) <= cap
    assert text == " ".join(text.split())
    assert unicodedata.is_normalized("NFC", text)
    assert not {unicodedata.category(char) for char in text} & {"Cc", "Cs"}
    text.encode("utf-8")


@given(anything.filter(lambda text: not set("<&") & set(text)), st.integers(1, 300))
def test_cleaning_again_changes_nothing_without_markup(raw: str, cap: int) -> None:
    once = clean_text(raw, max_characters=cap)
    assert clean_text(once, max_characters=cap) == once


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=100))
def test_escaped_text_without_markup_comes_back(text: str) -> None:
    """Escaping a plain text and cleaning it is the identity where the text holds no markup."""
    plain = text.replace("<", "").replace("&", "")
    assert clean_text(html.escape(plain)) == plain


FIELDS = "{title}. {brand}. {category}. {description}"


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        (FIELDS, ["Lipstick", "Acme", "Makeup", "Lasts."], "Lipstick. Acme. Makeup. Lasts."),
        (FIELDS, ["Lipstick", None, "Makeup", None], "Lipstick. Makeup"),
        (FIELDS, ["Lipstick", " ", "Makeup", "<br>"], "Lipstick. Makeup"),
        (FIELDS, [None, "Acme", None, "Lasts."], "Acme. Lasts."),
        (FIELDS, ["Really?", "Acme", "Good.", "Yes"], "Really? Acme. Good. Yes"),
        (FIELDS, [None, None, None, None], ""),
        (FIELDS, ["<p></p>", "\x00", " ", ""], ""),
        ("{title}.", ["Lipstick", None, None, None], "Lipstick."),
        ("{title}. {category}.", ["Lipstick", None, None, None], "Lipstick"),
        ("{title} ({brand}), {category}", ["A", "B", "C", None], "A (B), C"),
        ("{title} ({brand}), {category}", ["A", None, "C", None], "A, C"),
        ("{title} ({brand})", ["A", None, None, None], "A"),
        ("{title} - {brand}", [None, "B", None, None], "B"),
        ("Product: {title}. Brand: {brand}", [None, "B", None, None], "Brand: B"),
        ("{title} {title}", ["A", None, None, None], "A A"),
        ("{{{title}}}", ["A", None, None, None], "{A}"),
    ],
)
def test_item_texts_fill_a_template(template: str, row: list[str | None], text: str) -> None:
    schema = dict.fromkeys(["title", "brand", "category", "description"], pl.String)
    items = pl.DataFrame([row], schema=schema, orient="row")
    assert item_texts(items, template=template) == [text]


def test_item_texts_follow_the_rows_and_the_cap() -> None:
    items = pl.DataFrame({"title": ["one", None, "three"], "price": [1.5, 2.0, float("nan")]})
    assert item_texts(items, template="{title}: {price}") == ["one: 1.5", "2.0", "three"]
    assert item_texts(items, template="{title}: {price}", max_characters=4) == [
        "one:",
        "2.0",
        "thre",
    ]
    assert item_texts(items.clear(), template="{title}") == []


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{title}. {brnad}", r"\{brnad\}.*There are: title, brand"),
        ("{title.x}", r"\{title.x\}"),
        ("{}", r"\{\}"),
        ("{title:>10}", r"\{title\}"),
        ("{title!r}", r"\{title\}"),
        ("{title", "Cannot read"),
        ("always the same", "names no column"),
    ],
)
def test_templates_that_cannot_be_filled(template: str, complaint: str) -> None:
    items = pl.DataFrame({"title": ["a"], "brand": ["b"]})
    with pytest.raises(TemplateError, match=complaint):
        item_texts(items, template=template)


def test_review_texts_join_title_and_text() -> None:
    reviews = pl.DataFrame(
        {
            "title": ["Great", "Great!", None, "Only a title", None],
            "text": ["<p>a", "b", "c", "", None],
        }
    )
    assert review_texts(reviews) == ["Great. a", "Great! b", "c", "Only a title", ""]
    assert review_texts(reviews, max_characters=5) == ["Great", "Great", "c", "Only", ""]


@pytest.mark.realdata
def test_real_item_texts_hold_no_markup(shared_data: Path) -> None:
    items = pl.read_parquet(shared_data / "amazon18-scientific" / "items.parquet")
    texts = item_texts(items, template="{title}. {description}", max_characters=2000)
    assert len(texts) == items.height
    assert not [text for text in texts if "<br" in text or "<p>" in text or "&amp;" in text]
    assert max(map(len, texts)) <= 2000
    plain = items.filter(
        ~pl.col("title").str.contains("[<&]") & ~pl.col("title").str.contains(r"[^\x20-\x7e]")
    )
    assert plain.height > 1000
    oracle = plain["title"].str.replace_all(" +", " ").str.strip_chars().to_list()
    assert item_texts(plain, template="{title}") == oracle
