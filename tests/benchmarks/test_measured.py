import os
import time

import numpy as np

from benchmarks.measured import Clock, in_child

MIB = 2**20


def test_the_peak_is_that_of_its_part() -> None:
    clock = Clock()
    with clock("large"):
        np.ones(200 * MIB, dtype=np.uint8).sum()
    with clock("small"):
        np.ones(MIB, dtype=np.uint8).sum()
    assert clock.peak_mib["large"] > clock.peak_mib["small"] + 150


def test_parts_of_one_name_add_up_and_sleep_is_no_work() -> None:
    clock = Clock()
    for _ in range(2):
        with clock("sleep"):
            time.sleep(0.2)
    assert clock.wall["sleep"] >= 0.4
    assert clock.seconds["sleep"] < 0.2


def test_a_child_is_another_process() -> None:
    assert in_child(os.getpid) != os.getpid()
