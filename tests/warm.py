"""Processes that have imported everything when they begin: forks of one that has, also for commands in a shell script."""

import json
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigembed.cli import entry

PROCESSES = multiprocessing.get_context("forkserver")
# What every run imports; what numba's first call imports.
PROCESSES.set_forkserver_preload(
    [
        "bigembed.trainer",
        "bigembed.inference",
        "bigembed.commands.train",
        "torch.distributed.run",
        "pandas",
        "numba.np.linalg",
        "numba.np.npyimpl",
        "numba.typed.typedset",
        "numba.experimental.jitclass",
    ]
)

# A program that hands its name, its arguments, its folder, its environment and its three files to a fork, and ends as that does.
ASK = """#!{python} -SE
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as door:
    door.connect({door!r})
    socket.send_fds(door, [b"."], [0, 1, 2])
    door.sendall(json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    code = door.makefile().readline()
sys.exit(int(code))
"""


@contextmanager
def warm_commands(folder: Path) -> Iterator[Path]:
    """A folder for $PATH with programs ``bigembed`` and ``torchrun`` that take no time to start; ``folder`` is empty."""
    path, programs = folder / "door", folder / "bin"
    programs.mkdir()
    for name in ("bigembed", "torchrun"):
        (programs / name).write_text(ASK.format(python=sys.executable, door=str(path), name=name))
        (programs / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()
        server = threading.Thread(target=_serve, args=(door,))
        server.start()
        try:
            yield programs
        finally:
            door.shutdown(socket.SHUT_RDWR)  # ends accept
            server.join()


def _serve(door: socket.socket) -> None:
    while True:
        try:
            caller, _ = door.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(caller,)).start()


def _answer(caller: socket.socket) -> None:
    with caller:
        process = PROCESSES.Process(target=_command, args=(caller,))
        process.start()
        process.join()
        code = process.exitcode or 0
        caller.sendall(b"%d\n" % (code if code >= 0 else 128 - code))


def _command(caller: socket.socket) -> None:
    _, files, _, _ = socket.recv_fds(caller, 1, 3)
    name, arguments, folder, variables = json.loads(caller.makefile().readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", 1)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [name, *arguments]
    if name == "bigembed":
        entry()
    from torch.distributed.run import main

    main()
