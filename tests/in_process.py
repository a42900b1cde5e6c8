"""Run the command line inside the process of the tests: nothing is imported again, so a call costs what it does.

In: what a process would get (arguments, environment, working directory).  Out: what it would leave (exit code, output).
Whatever a command changes for its whole process is put back.  Signals, pipes under stdout, and what is imported when
are the business of real processes: the fixture `localmel_process`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

from localmel.cli import main


def run_in_process(
    arguments: Sequence[str], *, environment: Mapping[str, str], cwd: Path | None = None, seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run `localmel ARGUMENTS`; raises subprocess.TimeoutExpired when it took more than `seconds`."""
    command = ["localmel", *arguments]
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        started = time.monotonic()
        with _as_a_process(command, environment, cwd), _descriptors(stdout.fileno(), stderr.fileno()):
            code = _exit_code()
        took = time.monotonic() - started
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    if took > seconds:
        raise subprocess.TimeoutExpired(command, seconds, *texts)
    return subprocess.CompletedProcess(command, code, *texts)


def _exit_code() -> int:
    """Run what `sys.argv` says; an error that a process would not survive is printed as Python prints it."""
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # noqa: BLE001  # as at the end of any program
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _as_a_process(command: list[str], environment: Mapping[str, str], cwd: Path | None) -> Iterator[None]:
    """Arguments, environment and working directory are the command's while it runs; torch's threads are put back."""
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", command),
    ):
        torch = sys.modules.get("torch")
        threads = torch.get_num_threads() if torch else 0
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(threads)


@contextlib.contextmanager
def _descriptors(stdout: int, stderr: int) -> Iterator[None]:
    """Descriptors 0, 1 and 2, which the processes of a command inherit, and Python's streams over them."""
    kept = [os.dup(number) for number in range(3)]
    streams = sys.stdin, sys.stdout, sys.stderr
    for stream in streams[1:]:
        stream.flush()
    nowhere = os.open(os.devnull, os.O_RDONLY)
    try:
        for number, source in enumerate((nowhere, stdout, stderr)):
            os.dup2(source, number)
        # Not closed afterwards: a logger that is set up meanwhile keeps them, as it keeps those of a test.
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(nowhere)
