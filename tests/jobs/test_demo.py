from pathlib import Path

from nights import AS_OF

from jobs.config import load_config
from jobs.demo import AS_OF as DEMO_DAY
from jobs.demo import write_demo
from jobs.ingest import read_inputs


def test_the_demo_writes_sources_that_its_configuration_reads(tmp_path: Path) -> None:
    config = write_demo(tmp_path, users=250, items=120, seed=3)
    effective = load_config(config)
    inputs = read_inputs(
        effective.model_copy(
            update={"sources": effective.sources.model_copy(update={"max_quarantined_share": 0.2})}
        ),
        as_of=AS_OF,
        root=config.parent,
    )
    assert AS_OF.date() == DEMO_DAY
    assert 200 < len(inputs.users) <= 250
    assert 100 < len(inputs.items) <= 120
    assert len(inputs.events) > 1000
    assert set(inputs.quarantine.get_column("source")) == {"items", "users", "events", "reviews"}
