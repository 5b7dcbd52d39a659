"""Nights in processes of their own that can be killed, without seconds of imports for each."""

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nights import AS_OF, SHOP

from embed import Encoder
from jobs import cli, models, nightly, publish, vectors
from jobs.errors import InputMissing, NothingToDo, exit_code
from jobs.ledger import Ledger, to_resume
from jobs.nightly import Night
from jobs.shop import Shop, make_shop
from jobs.stages import Stages
from jobs.workers import at_work

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 20  # texts encoded between two commits

# Few trees, candidates and generators: what a night that trains, tests and scores can do without.
QUICK = (
    SHOP[: SHOP.index("[candidates]")]
    + """
[candidates]
nearest = 10
cooccurrence = 10
popular = 10
history = 5
per_user = 15

[[predict]]
behaviour = "click"
horizon_days = 14
repeats = true

[training]
retrain_after_days = 0
windows = 2
max_rounds = 5
dimensions = 4

[scoring]
users_per_shard = 150
reasons_per_user = 3

[[campaign]]
name = "summer"
behaviour = "click"
items_per_user = 3
min_probability = 0.001
"""
)
# Two shards of a shop of which a night is a matter of a second or, where it trains, three.
TINY = QUICK.replace("retrain_after_days = 0\n", "").replace(
    "users_per_shard = 150", "users_per_shard = 50"
)

_context = multiprocessing.get_context("forkserver")


def tiny_shop() -> Shop:
    """See `TINY`."""
    return make_shop(users=100, items=30, days=120, end=AS_OF.date(), seed=1)


def _server() -> None:
    """One process that has everything imported and no thread started, to be forked."""
    _context.set_forkserver_preload(["warm"])
    # Small frames are faster without threads.
    one_thread = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with patch.dict(os.environ, one_thread, PYTHONPATH=f"{ROOT}:{ROOT / 'tests' / 'support'}"):
        forkserver.ensure_running()


def start(function: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Call a function of this module in a process of its own."""
    _server()
    process = _context.Process(target=function, args=arguments)
    process.start()
    return process


def done(function: Callable[..., None], *arguments: object) -> int:
    """The exit code of a process; negative, that of the signal that ended it."""
    process = start(function, *arguments)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def told(words: list[str], out: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """What the command line says and how it ends, see `command`."""
    code = done(partial(command, **options), words, out)
    said = [Path(f"{out}.{name}").read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(words, code, *said)


def do_night(
    night: Night,
    run_id: str,
    encoded: Path,
    passed: Path | None = None,
    kill_at: str | None = None,
    *,
    full: bool = False,
) -> None:
    """Begin a run, or go on with it where it is not published.

    Args:
        night: when and where.
        run_id: what the run is called.
        encoded: gets a line with the number of texts before each batch is encoded.
        passed: names of the boundaries where a process was killed. This one is killed at the
            first other one, whose name is added. They are after each step, and before and after
            what is written outside the folder of the run.
        kill_at: the process is killed at this one.
        full: see `jobs.nightly.begin`.
    """
    import warm

    nightly.encoder_of = lambda *_: warm.ENCODER  # loaded once, by the server
    _small_batches(encoded)
    if passed is not None:
        _kill_at_boundaries(passed)
    if kill_at is not None:
        _at_boundaries(lambda boundary: boundary == kill_at and _send(signal.SIGKILL))
    try:
        ledger = to_resume(night.home, run_id, night.config)
        night = replace(night, stages=Stages(ledger.measured()))
    except InputMissing:
        shutil.rmtree(night.home / "runs" / run_id, ignore_errors=True)
        ledger = nightly.begin(night, run_id, full=full)
    except NothingToDo:
        return
    nightly.run(night, ledger, override="nobody: five trees know little", again=True)


def try_night(night: Night, run_id: str, said: Path) -> None:
    """As `do_night`, with the exit code of what stops it; its message goes into a file."""
    try:
        do_night(night, run_id, said.with_suffix(".encoded"))
    except Exception as error:
        said.write_text(str(error))
        sys.exit(exit_code(error))


def bounded_night(night: Night, run_id: str, said: Path, memory: int, seconds: int) -> None:
    """As `try_night`, with so many bytes that may be allocated and seconds of computing."""
    for limit, bound in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CPU, seconds)):
        resource.setrlimit(limit, (bound, bound))
    try_night(night, run_id, said)


def command(
    words: list[str],
    out: Path,
    *,
    signal_at: str | None = None,
    workers_killed_at: str | None = None,
    largest_file: int | None = None,
    terminal: bool = False,
) -> None:
    """The command line, its output in `out.stdout` and `out.stderr`.

    Args:
        words: after the command's name.
        out: path of the files without their suffix.
        signal_at: the process gets a SIGTERM when the first step that this pattern matches is
            noted: which of several shards is the first to be done, nobody knows.
        workers_killed_at: likewise, those that score for it get a SIGKILL.
        largest_file: bytes; a write beyond them fails as one on a full disk does.
        terminal: whether standard error is one.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{out}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    if terminal:
        _on_a_terminal()
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = ["nightrank", *words]

    def act(boundary: str) -> None:
        nonlocal signal_at
        if fnmatch(boundary, f"after {signal_at}"):
            signal_at = None
            _send(signal.SIGTERM)
        if fnmatch(boundary, f"after {workers_killed_at}"):
            _kill_workers()

    _at_boundaries(act)
    cli.main()


def _kill_workers() -> None:
    for pid in at_work:
        os.kill(pid, signal.SIGKILL)


def _on_a_terminal() -> None:
    """Let standard error be a terminal, which a child shows where it was: what `script` does."""
    shown, (screen, terminal) = os.dup(2), os.openpty()
    pid = os.fork()
    if pid == 0:  # the command
        os.dup2(terminal, 2)
        for handle in (screen, terminal):
            os.close(handle)
        return
    os.close(terminal)
    with contextlib.suppress(OSError):  # how a terminal tells that nobody is left
        while told := os.read(screen, 4096):
            os.write(shown, told)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _small_batches(encoded: Path) -> None:
    embed, encode = vectors.embed_texts, Encoder.encode

    def counted(self: Encoder, texts: list[str]) -> Any:
        with encoded.open("a") as file:
            file.write(f"{len(texts)}\n")
        return encode(self, texts)

    Encoder.encode = counted  # type: ignore[method-assign]
    vectors.embed_texts = lambda *a, **options: embed(*a, chunk=CHUNK, **options)


def _kill_at_boundaries(passed: Path) -> None:
    known = set(passed.read_text().splitlines()) if passed.exists() else set()

    def at(boundary: str) -> None:
        if boundary not in known:
            with passed.open("a") as file:
                file.write(f"{boundary}\n")
            _send(signal.SIGKILL)

    _at_boundaries(at)


def _at_boundaries(told: Callable[[str], object]) -> None:
    for owner, name in ((publish, "build"), (publish, "make_current"), (models, "save")):
        _around(owner, name, lambda moment, *_, name=name: told(f"{moment} {name}"))
    _around(
        Ledger, "note", lambda moment, _, step, *__: moment == "after" and told(f"after {step}")
    )


def _around(owner: Any, name: str, told: Callable[..., object]) -> None:
    """Let `told` know before and after each call of a function, with its first arguments."""
    function = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        told("before", *arguments)
        result = function(*arguments, **options)
        told("after", *arguments)
        return result

    setattr(owner, name, wrapped)


def _send(number: int) -> None:
    os.kill(os.getpid(), number)
