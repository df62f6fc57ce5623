"""Real processes for tests of several ranks: a function is run on each, as torchrun would start it."""

import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warm import PROCESSES

from bigembed.cli import entry


def run_ranks(
    function: Callable[..., Any], world: int, *arguments: Any, hosts: int = 1, seconds: float = 120
) -> list[Any]:
    """Call ``function(*arguments)`` on ``world`` ranks spread over simulated hosts; return the results by rank.

    Fails with the first rank's traceback, or when a rank is not done after ``seconds``.
    """
    port = free_port()
    pipes, started = [], []
    for rank in range(world):
        here, there = PROCESSES.Pipe(duplex=False)
        variables = environment(rank, world, hosts, port)
        process = PROCESSES.Process(target=_child, args=(there, variables, function, arguments))
        process.start()
        there.close()
        pipes.append(here)
        started.append(process)
    try:
        results = [_received(pipe, rank, seconds) for rank, pipe in enumerate(pipes)]
    finally:
        for process in started:
            process.join(5)
            process.kill()
    failed = [text for kind, text in results if kind == "error"]
    # A rank that lost another one says so; the first cause is in the one that does not.
    failed.sort(key=lambda text: "peer" in text or "no answer" in text or "died" in text)
    assert not failed, failed[0]
    return [value for _, value in results]


def environment(rank: int, world: int, hosts: int, port: int) -> dict[str, str]:
    """Return what torchrun tells a rank."""
    local = world // hosts
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank % local),
        "LOCAL_WORLD_SIZE": str(local),
        "GROUP_RANK": str(rank // local),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _received(pipe: Any, rank: int, seconds: float) -> tuple[str, Any]:
    if not pipe.poll(seconds):
        return "error", f"rank {rank} gave no answer within {seconds} s"
    try:
        return pipe.recv()
    except EOFError:
        return "error", f"rank {rank} died without an answer"


def _child(pipe: Any, variables: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(variables)
    try:
        result = ("value", function(*arguments))
    except BaseException:
        result = ("error", f"rank {variables['RANK']}:\n{traceback.format_exc()}")
    pipe.send(result)
    pipe.close()
    sys.stdout.flush()
    os._exit(0)


def run_commands(
    commands: list[list[str]], log: Path, patch: Callable[[int], None] | None = None, seconds: float = 100
) -> tuple[list[int], list[str]]:
    """Run one command of bigembed a rank, each in a process that ends by itself; return exit codes and what they said.

    ``patch(rank)`` is called on every rank beforehand.
    """
    port, started = free_port(), []
    logs = [log.with_name(f"{log.name}.{rank}") for rank in range(len(commands))]
    for rank, arguments in enumerate(commands):
        variables = environment(rank, len(commands), 1, port)
        process = PROCESSES.Process(target=_command, args=(variables, arguments, logs[rank], patch))
        process.start()
        started.append(process)
    for process in started:
        process.join(seconds)
        process.kill()
        process.join()
    return [int(process.exitcode or 0) for process in started], [path.read_text() for path in logs]


def _command(variables: dict[str, str], arguments: list[str], log: Path, patch: Callable[[int], None] | None) -> None:
    os.environ.update(variables)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    if patch is not None:
        patch(int(variables["RANK"]))
    sys.argv = ["bigembed", *arguments]
    entry()
