"""A night as a Dagster job: dagster dev -f dagster_job.py.

The first try runs, later ones resume what the first left. The line of JSON that a run ends with
becomes the op's metadata.
"""

import json
import subprocess

from dagster import (
    Definitions,
    Failure,
    OpExecutionContext,
    RetryPolicy,
    ScheduleDefinition,
    job,
    op,
)

WHERE = ["shop.toml", "--home", "home"]
PUBLISHED, NOTHING_TO_DO = 0, 99


def nightrank(*words: str) -> dict[str, object]:
    """Run the command and read the last line of its standard output."""
    done = subprocess.run(
        ["nightrank", *words], cwd="/srv/nightrank", stdout=subprocess.PIPE, text=True, check=False
    )
    lines = done.stdout.splitlines() or ["{}"]
    return {**json.loads(lines[-1]), "exit_code": done.returncode}


@op(retry_policy=RetryPolicy(max_retries=2, delay=600))
def night(context: OpExecutionContext) -> None:
    """One night of the shop."""
    end = nightrank("resume", *WHERE) if context.retry_number else {"exit_code": NOTHING_TO_DO}
    if end["exit_code"] == NOTHING_TO_DO:
        end = nightrank("run", *WHERE, "--root", "/srv/shop")
    context.add_output_metadata({name: str(value) for name, value in end.items()})
    if end["exit_code"] not in (PUBLISHED, NOTHING_TO_DO):
        raise Failure(f"exit code {end['exit_code']}: see docs/runbook.md")


@job
def nightly() -> None:
    """The job."""
    night()


defs = Definitions(
    jobs=[nightly],
    schedules=[ScheduleDefinition(job=nightly, cron_schedule="0 2 * * *")],
)
