"""`zmqbroker submit`: what it does with its options."""

import argparse
import os
import stat
import uuid
from typing import Any

from zmqbroker import wire
from zmqbroker.client.client import Client
from zmqbroker.client.futures import OnProgress, TaskFuture, failed
from zmqbroker.commands import finishing, result_files, streams
from zmqbroker.commands.failed_inputs import FailedInputs
from zmqbroker.commands.lines import NEWLINE, NULL, Input
from zmqbroker.commands.output import Output
from zmqbroker.commands.progress import Progress
from zmqbroker.commands.refused import Refusals
from zmqbroker.commands.report import Report, Resuming
from zmqbroker.commands.reported import Reported
from zmqbroker.commands.submission import How, Send, Source, Submission, Words, connect
from zmqbroker.commands.submit_options import add_submit_options
from zmqbroker.commands.takers import Item, Taker, Takers
from zmqbroker.wire.json_body import read_json, write_json

__all__ = ["add_submit_options", "submit"]

OF_TASKS = (  # the options that are Client.submit's too
    "tries",
    "timeout",
    "delay",
    "priority",
    "queue",
    "group",
    "expires",
    "retry_delay",
    "retry_factor",
    "retry_most",
    "durable",
    "detach",
    "keep",
)
NOT_TOGETHER = (  # options, those that go with none of them, and why
    (("results", "output"), ("detach",), "there are no results then"),
    (("results", "output"), ("keep_lines", "unordered"), "nothing is printed then"),
    (("results",), ("output",), "each says where results go"),
    (("halt",), ("detach",), "nobody hears of failures then"),
    (("json_lines",), ("whole",), "it takes lines"),
)
WAITED_FOR, LEFT = Words("tasks done", "cancelled"), Words("tasks accepted", "cancelled")


def submit(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Submit tasks and have taken what becomes of them; return the exit status."""
    inputs = Input(options.files or [streams.STDIN_NAME], options.whole, NULL if options.null else NEWLINE)
    fields = {name: value for name in OF_TASKS if (value := getattr(options, name)) is not None}
    try:
        _check(options, inputs)
        wire.check_fields(fields)
        inputs.check()
        results = _results(options, inputs)
        client = connect(options)
        source, takers = _arrange(options, inputs, results)
    except OSError as error:
        parser.error(finishing.describe(error))
    except (ValueError, streams.OutputError) as error:
        parser.error(str(error))
    shown = os.isatty(streams.STDERR) and not options.quiet
    progress = Progress(shown, source.total() if shown else None)
    if options.report is not None and not options.detach:
        fields["worker"] = True
    how = How(
        ordered=not (options.unordered or options.results or options.output),
        window=options.window,
        words=LEFT if options.detach else WAITED_FOR,
        text=write_json if options.json_lines and not options.detach else None,
        halt=options.halt,
        look=lambda future: client.outcome(future.key or ""),
        keeps_bodies=options.failed_to is not None,
        refusals=Refusals(),
    )
    send = _send_with(client, fields, options.key_prefix, options.json_lines)
    submission = Submission(send, source, takers, how, progress)
    status = finishing.run(parser.prog, client, submission, progress, options.give_up)
    return _tell_of_earlier(source.left_out, status) if isinstance(source, Resuming) else status


def _tell_of_earlier(failed: int, status: int) -> int:
    """Say how many have failed in an earlier run, and were left out in this one; return the exit status."""
    if not failed or status > 1:  # this one has not come to its end
        return status
    have, them = ("has", "it") if failed == 1 else ("have", "them")
    streams.complain(f"{failed} {have} failed in an earlier run: --resume-failed does {them} again")
    return 1


def _check(options: argparse.Namespace, inputs: Input) -> None:
    """Raise ValueError for options that do not go together, or alone."""
    if options.window < 1:
        raise ValueError("--window must be 1 or more")
    if options.give_up == 0:
        raise ValueError("--give-up must be more than 0")
    for some, others, why in NOT_TOGETHER:
        for one, other in ((one, other) for one in some for other in others):
            if getattr(options, one) and getattr(options, other):
                raise ValueError(f"{_flag(one)} goes with no {_flag(other)}: {why}")
    if options.output and not options.whole:
        raise ValueError("--output goes with --whole: it makes names from those of files")
    if options.report is None and (options.resume or options.resume_failed):
        raise ValueError(f"{_flag('resume' if options.resume else 'resume_failed')} goes with --report")
    if options.report is not None and options.whole and len(set(inputs.names)) < len(inputs.names):
        raise ValueError("a file is named twice, and --report could not tell one from the other")
    if options.failed_to is not None:
        for name in inputs.names:
            if _is_same(options.failed_to, name):
                raise ValueError(f"--failed-to would empty {options.failed_to}, which is an input")
            if options.whole and not options.null and "\n" in name:
                raise ValueError(f"{name} has a newline in its name: --failed-to needs -0 then")
        if options.report is not None and os.path.realpath(options.report) == os.path.realpath(options.failed_to):
            raise ValueError("--report and --failed-to are the same file")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_same(name: str, input: str) -> bool:
    try:
        known = os.fstat(streams.STDIN) if input == streams.STDIN_NAME else os.stat(input)
        return stat.S_ISREG(known.st_mode) and os.path.samestat(os.stat(name), known)
    except OSError:
        return False


def _results(options: argparse.Namespace, inputs: Input) -> Taker:
    """Return what takes results; raises ValueError and OutputError."""
    if options.results:
        is_resumed = options.resume or options.resume_failed
        return result_files.in_directory(options.results, goes_on=is_resumed and os.path.exists(options.report))
    if options.output:
        return result_files.named_after(inputs.names, options.output)
    return Output(options.whole, (lambda item: item.number) if options.unordered else None, options.keep_lines)


def _arrange(options: argparse.Namespace, inputs: Input, results: Taker) -> tuple[Source, Takers]:
    """Return where tasks come from, and who takes what becomes of them; raises ValueError and OutputError."""
    takers = [results]
    reported = Reported()
    report = None
    if options.report is not None:
        report = Report(options.report, reported if options.resume or options.resume_failed else None)
    failed = None
    if options.failed_to is not None:
        failed = FailedInputs(options.failed_to, inputs.end)
        takers.append(failed)
    if report is None:
        return inputs, Takers(takers)
    takers.append(report)  # the last: it claims nothing that is not written
    source = Resuming(inputs, reported, options.resume_failed, None if failed is None else failed.add)
    return source, Takers(takers)


def _send_with(client: Client, fields: dict[str, Any], key_prefix: str | None, are_json: bool) -> Send:
    """Return what submits a task with these fields; no two runs make the same key.

    What is to be JSON, and is none, fails without being sent.
    """
    run = uuid.uuid4().hex

    def send(item: Item, on_progress: OnProgress | None) -> TaskFuture:
        key = None if key_prefix is None else f"{key_prefix}{run}-{item.number}"
        hook = None if fields.get("detach") else on_progress  # who leaves tasks hears no more of them
        if not are_json:
            return client.submit(item.body, key=key, on_progress=hook, **fields)
        try:
            return client.submit(json=read_json([item.body]), key=key, on_progress=hook, **fields)
        except ValueError as error:
            return failed(error)

    return send
