"""Compiling in a second process on the first run."""

import subprocess

from dosemover.comparison import warm_up


def test_nothing_is_started_where_kernels_are_compiled(monkeypatch):
    monkeypatch.setattr(warm_up, "kernels_are_compiled", lambda: True)
    assert not warm_up.start_compilation()
    warm_up.finish_compilation()


def test_the_first_run_compiles_beside_and_waits(monkeypatch):
    started = []

    class Process:
        def __init__(self, command, **options):
            started.append(command)

        def wait(self):
            started.append("waited")

    monkeypatch.setattr(warm_up, "kernels_are_compiled", lambda: False)
    monkeypatch.setattr(warm_up, "available_cores", lambda: 2)
    monkeypatch.setattr(subprocess, "Popen", Process)
    assert warm_up.start_compilation()
    warm_up.finish_compilation()
    assert started[0][-1] == "dosemover.comparison.warm_up"
    assert started[1:] == ["waited"]


def test_the_small_pair_runs():
    warm_up.compile_transport()
