"""Reading a configuration; run as a script, this file rewrites the tables of docs/config.md."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from jobs.config import Config, load_config, to_toml
from jobs.config_errors import allowed
from jobs.config_inputs import source_format
from jobs.errors import ConfigError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "config.md"
START, END = "<!-- keys: written by tests/jobs/test_config.py -->", "<!-- end of keys -->"

MINIMAL = """
name = "shop"
[sources]
items = "items.parquet"
events = "events/*.csv.gz"
[events]
weights = { view = 1, buy = 5.5 }
[[predict]]
behaviour = "buy"
horizon_days = 14
"""


def load(folder: Path, text: str) -> Config:
    (folder / "shop.toml").write_text(text, encoding="utf-8")
    return load_config(folder / "shop.toml")


def refused(folder: Path, text: str) -> list[str]:
    """The lines of the error, each of which must begin with the file's name."""
    with pytest.raises(ConfigError) as error:
        load(folder, text)
    assert error.value.exit_code == 2
    prefix = f"{folder / 'shop.toml'}: "
    lines = str(error.value).split("\n")
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


def test_defaults_are_those_that_are_documented(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.name == "shop"
    assert config.sources.max_quarantined_share == 0.05
    assert config.events.weights == {"view": 1.0, "buy": 5.5}
    assert config.items.text == "{title}. {brand}. {category}. {description}"
    assert (config.items.max_characters, config.reviews.max_characters) == (2000, 5000)
    assert config.encoder.model == "packaged/all-MiniLM-L6-v2"
    assert config.candidates.budgets == {
        "nearest": 60,
        "reviews": 40,
        "cooccurrence": 60,
        "popular": 60,
        "history": 50,
    }
    assert config.candidates.per_user == 200
    assert (config.profile.half_life_days, config.candidates.popular_half_life_days) == (90, 30)
    assert [(p.behaviour, p.horizon_days, p.repeats) for p in config.predict] == [
        ("buy", 14, False)
    ]
    assert config.prediction("buy").horizon_days == 14
    assert (config.training.windows, config.training.negative_share) == (3, 0.2)
    assert (config.scoring.users_per_shard, config.scoring.threads) == (1000, 0)
    assert config.scoring.reasons_per_user == 5
    assert config.campaign == []


def test_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTRANK__SCORING__USERS_PER_SHARD", "500")
    monkeypatch.setenv("NIGHTRANK__PREDICT", '[{"behaviour": "view", "horizon_days": 3}]')
    monkeypatch.setenv("NIGHTRANK__SOURCES__ATTACH__SHOP", "shop.duckdb")
    config = load(tmp_path, MINIMAL + "[scoring]\nusers_per_shard = 7\nthreads = 2\n")
    assert (config.scoring.users_per_shard, config.scoring.threads) == (500, 2)
    assert [(p.behaviour, p.horizon_days) for p in config.predict] == [("view", 3)]
    assert config.sources.attach == {"shop": "shop.duckdb"}
    assert config.sources.items == "items.parquet"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SCORING__THREADS", "-1", "scoring.threads = '-1': .* (allowed: >= 0)"),
        ("SCORING__TREADS", "1", "unknown key scoring.treads; .*nearest.* is scoring.threads"),
        ("SCORING__MEMORY", "4GB", "scoring.memory = '4GB'"),
        ("SCORNG__THREADS", "1", "unknown key scorng; the nearest known key is scoring"),
        ("PREDICT", "[", "predict"),
    ],
)
def test_a_bad_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(f"NIGHTRANK__{variable}", value)
    with pytest.raises(ConfigError) as error:
        load(tmp_path, MINIMAL)
    message = str(error.value)
    origin = "environment" if variable == "PREDICT" else f"NIGHTRANK__{variable}"
    assert message.startswith(f"{origin}: ")
    pattern = expected.replace("(", r"\(").replace(")", r"\)")
    assert re.search(pattern, message)


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("training.negative_share", "1.5", ["= 1.5", "allowed: > 0, <= 1", "Share of the pairs"]),
        ("training.negative_share", "0", ["= 0", "> 0, <= 1"]),
        ("training.windows", "0", ["= 0", ">= 1"]),
        ("training.seed", '"x"', ["= 'x'", "valid integer"]),
        ("training.baselines", '["bart"]', ["baselines[0] = 'bart'", "popularity, logistic, no_"]),
        ("encoder.device", '"gpu"', ["= 'gpu'", "'auto', 'cpu' or 'cuda'"]),
        ("profile.half_life_days", "inf", ["= inf", "finite"]),
        ("sources.max_quarantined_share", "1.01", ["= 1.01", ">= 0, <= 1"]),
        ("candidates.per_user", "0", ["= 0", ">= 1"]),
        ("items.attributes", '["a b"]', ["items.attributes[0] = 'a b'", "[A-Za-z_]"]),
        ("items.attributes", '["price"]', ["= ['price']", "column of the contract"]),
        ("items.text", '"{titel}"', ["= '{titel}' names 'titel'", "{title}, {description}"]),
        ("items.text", '"{title"', ["no template"]),
        ("items.text", '"no field"', ["names no column"]),
        ("users.attributes", '["age"]', ["needs sources.users"]),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(
    tmp_path: Path, key: str, value: str, parts: list[str]
) -> None:
    section, name = key.split(".")
    header = f"[{section}]\n"
    text = MINIMAL if header in MINIMAL else MINIMAL + header
    (line,) = refused(tmp_path, text.replace(header, f"{header}{name} = {value}\n"))
    assert line.startswith(key)
    assert not [part for part in parts if part not in line]


def test_weights_must_be_positive(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, MINIMAL.replace("view = 1", "view = 0"))
    assert line.startswith("events.weights.view = 0: Input should be greater than 0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[scoring]\nuser_per_shard = 1", "unknown key scoring.user_per_shard; the nearest known "
         "key is scoring.users_per_shard (given 1)"),
        ("[scoring]\nhorizon_days = 9", "unknown key scoring.horizon_days; the nearest known key "
         "is predict.horizon_days (given 9)"),
        ("[scoring]\nzzz = 1", "unknown key scoring.zzz; the nearest known key is scoring."),
        ("[trainig]\nseed = 1", "unknown key trainig; the nearest known key is training"),
        ("[[campaigns]]\nname = 'x'", "unknown key campaigns; the nearest known key is campaign"),
        ("_env_file = 'x'", "unknown key "),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_the_nearest_known(
    tmp_path: Path, text: str, expected: str
) -> None:
    text = f"{text}\n{MINIMAL}" if text.startswith("_") else f"{MINIMAL}\n{text}"
    (line,) = refused(tmp_path, text)
    assert line.startswith(expected)


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = MINIMAL.replace('items = "items.parquet"', "item = 3").replace("14", "0")
    lines = refused(tmp_path, text)
    assert [line.split(" ")[0] for line in lines] == [
        "sources.items",
        "unknown",
        "predict[0].horizon_days",
    ]
    assert lines[0].startswith("sources.items is missing. Items:")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('events = "events/*.csv.gz"', "", ["sources: give events",
          "predict[0].behaviour = 'buy' has nothing to learn from"]),
        ('"buy"', '"by"', ["predict[0].behaviour = 'by' is not one of events.weights (view, buy)"]),
        ("weights = { view = 1, buy = 5.5 }", "",
         ["events.weights is missing", "predict[0].behaviour = 'buy' is not one of"]),
        ("weights = {", 'impressions = "view"\nweights = {',
         ["events.impressions = 'view' has a weight: what is only shown is no wish"]),
        ("[[predict]]", '[[predict]]\nbehaviour = "buy"\nhorizon_days = 1\n[[predict]]',
         ["predict[1].behaviour = 'buy' is predicted twice"]),
        ('"items.parquet"', '"items.xlsx"', ["sources.items = 'items.xlsx': is neither SQL"]),
        ('name = "shop"', 'name = "../shop"', ["name = '../shop': "]),
    ],
)  # fmt: skip
def test_what_does_not_fit_together(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    assert old in MINIMAL
    lines = refused(tmp_path, MINIMAL.replace(old, new))
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True))


def test_predict_is_required(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, MINIMAL.split("[[predict]]")[0])
    assert line.startswith("predict is missing. Give one or more [[predict]]")


def test_campaigns_are_checked(tmp_path: Path) -> None:
    campaign = '[[campaign]]\nname = "{}"\nbehaviour = "{}"\n'
    text = MINIMAL + campaign.format("spring", "buy") + campaign.format("Spring", "view")
    lines = refused(tmp_path, text + 'require_consent = false\ncool_off_after = "sleep"\n')
    assert [line.split(" ", 1)[0] for line in lines] == [
        "campaign[0]",
        "campaign[1].name",
        "campaign[1].behaviour",
        "campaign[1].cool_off_after",
    ]
    assert "require_consent = false" in lines[0]
    assert "neither sources.users is given" in lines[0]
    (line,) = refused(tmp_path, MINIMAL + campaign.format("a/b", "buy"))
    assert line.startswith("campaign[0].name = 'a/b': ")


def test_consent_needs_users_or_the_statement_that_none_is_needed(tmp_path: Path) -> None:
    campaign = '[[campaign]]\nname = "spring"\nbehaviour = "buy"\n'
    config = load(tmp_path, MINIMAL + campaign + "require_consent = false\n")
    assert not config.campaign[0].require_consent
    with_users = MINIMAL.replace("[sources]", '[sources]\nusers = "users.ndjson"')
    assert load(tmp_path, with_users + campaign).campaign[0].require_consent


def test_syntax_errors_name_the_line(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, 'name = "shop"\nsources =\n')
    assert "is not TOML" in line
    assert "line 2" in line


def test_a_scale_of_ratings_goes_from_worst_to_best(tmp_path: Path) -> None:
    text = MINIMAL + "[reviews]\nrating_scale = "
    assert load(tmp_path, text + "[1, 5]\n").reviews.rating_scale == (1.0, 5.0)
    (line,) = refused(tmp_path, text + "[5, 1]\n")
    assert "reviews.rating_scale" in line
    assert "the first is the worst, the second the best" in line


def test_unreadable_files_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.toml: cannot be read"):
        load_config(tmp_path / "nope.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(ConfigError, match=r"latin\.toml: is not TOML.*utf-8"):
        load_config(tmp_path / "latin.toml")


def test_to_toml_reads_back_as_the_same(tmp_path: Path) -> None:
    text = MINIMAL.replace("[sources]", '[sources]\nattach = { db = "x.duckdb" }').replace(
        '"items.parquet"',
        '"""\n-- items \\"all\\"\nselect \'é€😀\\u007f\' as item_id\nfrom db.items"""',
    )
    text += '[encoder]\nprompt = "passage: "\n[[campaign]]\nname = "x"\nbehaviour = "buy"\n'
    config = load(tmp_path, text + "require_consent = false\n")
    again = load(tmp_path, to_toml(config))
    assert again == config
    assert again.sources.items.startswith("-- items \"all\"\nselect 'é€😀\x7f'")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/b.parquet", "parquet"),
        ("*.CSV", "csv"),
        ("x.tsv.gz", "csv"),
        ("x.ndjson.zst", "ndjson"),
        ("x.jsonl", "ndjson"),
        ("select 1", "sql"),
        ("  /* a\nb */ -- c\n FROM 'x.csv'", "sql"),
        ("With t as (select 1) from t", "sql"),
        ("(select 1)", "sql"),
        ("selected.parquet", "parquet"),
        ("x.parquet.gz", None),
        ("x.json", None),
        ("insert into t select 1", None),
    ],
)
def test_source_format(source: str, expected: str | None) -> None:
    assert source_format(source) == expected


def test_importing_the_config_needs_no_heavy_package() -> None:
    code = "import sys, jobs.config; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=DOCS.parents[1],
    )
    heavy = {"polars", "duckdb", "numpy", "dataframely", "torch", "pyarrow"}
    assert not heavy & set(done.stdout.split())


def test_docs_list_every_key_as_it_is() -> None:
    written = DOCS.read_text(encoding="utf-8").split(START)[1].split(END)[0].strip()
    assert written == "\n".join(reference(Config)).strip(), "run this file to rewrite the tables"


def reference(model: type[BaseModel], title: str = "Top level") -> Iterator[str]:
    """Markdown tables of every key: default, allowed values and meaning, one per section."""
    sections = []
    yield f"\n### {title}\n"
    if title != "Top level":
        yield f"{model.__doc__}\n"
    yield "| key | default | allowed | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        inner = [a for a in (field.annotation, *get_args(field.annotation)) if is_section(a)]
        if inner:
            is_list = field.annotation is not inner[0]
            sections.append((inner[0], f"[[{name}]]" if is_list else f"[{name}]"))
        else:
            default = "required" if field.is_required() else f"`{toml(field.default)}`"
            bounds = allowed(field)
            meaning = field.description or ""
            yield f"| `{name}` | {default} | {f'`{bounds}`' if bounds else ''} | {meaning} |"
    for section, header in sections:
        yield from reference(section, header)


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def toml(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    before, rest = DOCS.read_text(encoding="utf-8").split(START)
    tables = "\n".join(reference(Config)).strip()
    DOCS.write_text(f"{before}{START}\n\n{tables}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
