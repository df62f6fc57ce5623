"""The one command. What is heavy is imported by the command that needs it, after the arguments have been checked."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from bigembed import __version__
from bigembed.cores import world_size
from bigembed.errors import UserError, of_the_disk

COMMANDS = {
    "train": "train a job: bigembed train [experiment=NAME] [key=value …] [-m]; bigembed train resume=RUN; grow=RUN",
    "plan": "where tables would lie on a cluster: bigembed plan [key=value …] plan=h100 plan.world_size=64 [out=FILE]",
    "evaluate": "the figures of a run, on its own data or other: bigembed evaluate run=RUN [data.path=PATH]",
    "predict": "labels with probabilities: bigembed predict run=RUN [input=FILE] [output=FILE]",
    "recommend": "the best items of users, or neighbours of items: bigembed recommend run=RUN [users=FILE] [k=10] [output=FILE]",
    "export": "vectors with their words: bigembed export run=RUN format=word2vec out=FILE",
    "vectors": "what a file of vectors holds: bigembed vectors path=FILE [words=[fox,dog]] [out=FILE format=word2vec-binary]",
    "coverage": "which words a file of vectors has, before training: bigembed coverage [key=value …] tables.NAME.pretrained.path=FILE",
    "compare": "what texts mean to several runs or files: bigembed compare of=[RUN,FILE] texts=['a text','another one']",
    "inspect": "what the data puts into a table, and who shares rows: bigembed inspect run=RUN; bigembed inspect [key=value …]",
    "explain": "the rows of a word, or the values of a row: bigembed explain run=RUN word=WORD; bigembed explain run=RUN row=ROW",
    "advise": "which kind of table, how large: bigembed advise [key=value …] memory_mib=512; with sweep=DIR it is measured",
}
ON_RANKS = ("train", "evaluate")  # what torchrun may start


def entry() -> NoReturn:
    """Run ``bigembed`` as a process: unloading torch and TorchRec would take a second in which nothing happens."""
    try:
        code: object = main()
    except SystemExit as end:
        code = end.code
    with suppress(OSError):  # the reader of a pipe may be gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``bigembed`` with ``arguments`` (default: those of the process) and return its exit code.

    0 is success, 2 something that the user can mend, 128 + n an end by signal n.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Read when torch loads: threads that spin starve the loader; in huge pages random rows miss the TLB less.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for name in ("stdout", "stderr"):  # closed by the caller: Python has None there
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()  # a reader that went away shows here, not when Python ends
        return code
    except UserError as error:
        print(f"bigembed: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `bigembed predict … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        mendable = of_the_disk(error)
        if mendable is None:
            raise
        print(f"bigembed: {mendable}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bigembed: stopped", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"bigembed {__version__}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        raise UserError(f"there is no command '{command}'; the commands: {', '.join(COMMANDS)}")
    if any(argument in ("--help", "-h") for argument in rest):
        print(import_module("bigembed.config.options").command_help(command, COMMANDS[command]))
        return 0
    if world_size() > 1 and command not in ON_RANKS:
        raise UserError(f"{command} is the work of one process; start it without torchrun")
    return import_module(f"bigembed.commands.{command}").main(rest)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "bigembed trains embeddings with very large vocabularies, on one CPU or many GPUs.",
            "",
            "usage: bigembed COMMAND [key=value …]",
            "",
            *lines,
            "",
            "bigembed COMMAND --help lists what the command takes.",
        ]
    )
