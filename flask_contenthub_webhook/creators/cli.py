"""Creator for content-creator's command line program."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from ..core.logs import get_logger
from ..core.redaction import Redactor, clean
from ..errors import (
    ConfigurationError,
    CreatorError,
    CreatorRefused,
    CreatorUnclear,
    CreatorUnreachable,
)
from .answers import read_row, row_id
from .processes import Child, Keeper
from .protocol import Job, RemoteState, Report

__all__ = ["CliCreator"]

logger = get_logger(__name__)

_PRIORITIES = {1: "low", 2: "normal", 3: "high", 4: "urgent"}
_OPTIONS = {"imageSize": "--image-size"}
_ID = re.compile(r"[A-Za-z0-9_~.][A-Za-z0-9._~-]{0,254}")
_RESULT_FIELDS = ("content", "htmlContent", "images", "qualityScore", "wordCount", "metrics")
_MAX_OUTPUT = 32 * 1024 * 1024
_CANNOT_RUN = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EPERM}


class CliCreator:
    """Runs content-creator's program once per call. Safe for threads. POSIX only.

    A submission runs on in its own session, even if this process ends. Neither its exit code nor its callback tells
    the outcome (it exits with 0 if the task failed, and before its callback is sent), so these tasks are settled by
    polling. Its ``result`` does not contain the article; a host that needs it must use the HTTP API.

    Values are passed as separate arguments, without a shell. A value that begins with ``-`` is passed as
    ``--topic=-value``, so that it is not taken for an option. Every user of the machine can see the arguments,
    including the token in a callback URL. ``WEBHOOK_*`` and ``CREATOR_API_KEY`` are removed from the environment.

    Args:
        path: the program's path, or its name in ``PATH``.
        timeout: seconds that a query may take.

    Raises:
        ConfigurationError: an argument cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 30.0) -> None:
        self._path = os.fspath(path)
        if not self._path or "\0" in self._path:
            raise ConfigurationError("CREATOR_CLI_PATH must be the path of the creator's program.")
        if timeout <= 0:
            raise ConfigurationError("timeout of a creator must be positive.")
        self._timeout = timeout
        self._keeper = Keeper(_report_end)

    keeps_names = True
    """The program takes our name of a job with ``--taskId``."""

    def __repr__(self) -> str:
        return f"<CliCreator {self._path}>"

    # --- submitting ------------------------------------------------------------------------------------------

    def submit(self, job: Job, *, wait: float) -> Report:
        """Submit a job; see :meth:`.Creator.submit`.

        A non-zero exit code within ``wait`` is a refusal; anything else means OPEN.
        """
        child = self._start(["create", *_job_arguments(job)], keep_output=False)
        code = child.wait(max(wait, 0.0))
        if code is None:
            self._keeper.keep(child)
            return Report(state=RemoteState.OPEN)
        words = Redactor().also(job.callback_url).text(child.last_errors())
        child.close()
        if code < 0:
            raise CreatorUnclear(f"The creator's program was killed by signal {-code}.")
        if code > 0:
            raise CreatorRefused(
                f"The creator's program refused (exit code {code}): {_last_words(words)}", details={"exitCode": code}
            )
        return Report(state=RemoteState.OPEN)

    # --- querying --------------------------------------------------------------------------------------------

    def status(self, creator_task_id: str) -> Report:
        """Return the state of a job; see :meth:`.Creator.status`."""
        row = self._row(creator_task_id)
        if row is None:  # node exits with 1 on any error; only the list tells for sure
            row = next((row for row in self._list() if row_id(row) == creator_task_id), None)
        return _report(row)

    def statuses(
        self,
        creator_task_ids: Collection[str],
        *,
        since: datetime | None = None,  # noqa: ARG002 - the program always lists everything
    ) -> Mapping[str, Report]:
        """Return the states of many jobs; see :meth:`.Creator.statuses`.

        The program's list may be incomplete, so jobs that it lacks are queried one by one for as long as one timeout;
        the rest are omitted.
        """
        wanted = dict.fromkeys(creator_task_ids)
        if not wanted:
            return {}
        reports: dict[str, Report] = {}
        for row in self._list():
            name = row_id(row)
            if name in wanted and name not in reports:
                with _logged(name):
                    reports[name] = read_row(row)
        deadline = time.monotonic() + self._timeout
        for name in wanted:
            if name not in reports and _ID.fullmatch(name) and time.monotonic() < deadline:
                with _logged(name):
                    reports[name] = _report(self._row(name))
        return reports

    def result(self, creator_task_id: str) -> Report:
        """Return what the program reports about a completed job, which excludes the article."""
        row = self._row(creator_task_id)
        if row is None:
            raise CreatorUnclear("The creator's program does not know a job that it completed.")
        report = read_row(row)
        if report.state is not RemoteState.COMPLETED:
            return report
        result = {name: row[name] for name in _RESULT_FIELDS if row.get(name) is not None}
        return Report(state=report.state, result=result, raw=report.raw)

    def cancel(self, creator_task_id: str) -> None:
        """Do nothing; the program has no command for it."""
        logger.info(
            "The job was not cancelled at the creator: its program cannot cancel.",
            extra={"creator_task_id": creator_task_id},
        )

    # --- running ----------------------------------------------------------------------------------------------

    def _list(self) -> list[dict[str, Any]]:
        code, output, errors = self._run(["list", "--json"])
        if code != 0:
            raise CreatorUnreachable(f"The creator's program could not list its tasks (exit code {code}): {errors}")
        for value in _json_values(output, "["):
            if isinstance(value, list) and all(isinstance(item, dict) for item in value):
                return value
        raise CreatorUnclear("The creator's program printed no list of tasks.")

    def _row(self, creator_task_id: str) -> dict[str, Any] | None:
        """Return a task's row, or None if the program fails as it does for an unknown task."""
        if not _ID.fullmatch(creator_task_id):
            raise CreatorRefused("This is not the id of a job at the creator.", reason="INVALID_ID")
        code, output, errors = self._run(["result", "-t", creator_task_id, "--format", "json"])
        if code == 0:
            for value in _json_values(output, "{"):
                if row_id(value) == creator_task_id:
                    return dict(value)
        if self._run(["status", "-t", creator_task_id])[0] == 1:
            return None
        raise CreatorUnclear(f"The creator's program could not show a task (exit code {code}): {errors}")

    def _run(self, arguments: list[str]) -> tuple[int, str, str]:
        child = self._start(arguments, keep_output=True)
        try:
            code = child.wait(self._timeout, largest_output=_MAX_OUTPUT)
            if child.output_size() > _MAX_OUTPUT:
                raise CreatorUnclear(f"The creator's program printed more than {_MAX_OUTPUT // 1024**2} MiB.")
            if code is None:
                raise CreatorUnreachable(f"The creator's program did not answer within {self._timeout:g} s.")
            return code, child.output(_MAX_OUTPUT), _last_words(child.last_errors())
        finally:
            child.kill()
            child.close()

    def _start(self, arguments: list[str], *, keep_output: bool) -> Child:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("WEBHOOK_") and name != "CREATOR_API_KEY"
        }
        try:
            return Child([self._path, *arguments], environment=environment, keep_output=keep_output)
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise CreatorRefused("The job is too long for a command line.", reason="JOB_TOO_LARGE") from None
            hint = ""
            if error.errno in _CANNOT_RUN:
                hint = " Set CREATOR_CLI_PATH to the program, make it executable, and install its interpreter."
            raise CreatorUnreachable(
                f"The creator's program {self._path!r} cannot be run: {error.strerror or error}.{hint}"
            ) from None
        except ValueError as error:  # NUL or half a surrogate pair
            raise CreatorRefused(f"The job cannot be passed as arguments: {error}.", reason="INVALID_JOB") from None


def _job_arguments(job: Job) -> list[str]:
    if not _ID.fullmatch(job.creator_task_id):
        raise CreatorRefused("This cannot be the id of a job at the creator.", reason="INVALID_ID")
    if unknown := sorted(str(name) for name in job.options if name not in _OPTIONS):
        raise CreatorRefused(
            f"The creator's program has no option for {clean(', '.join(unknown))}; the HTTP API may have one.",
            reason="UNKNOWN_OPTION",
        )
    values: dict[str, str | None] = {
        "--type": "content-creator",
        "--mode": "sync",
        "--priority": _PRIORITIES.get(job.priority, "normal"),
        "--topic": job.topic,
        "--requirements": job.requirements,
        "--target-audience": job.target_audience,
        "--keywords": ",".join(job.keywords) or None,
        "--tone": job.tone,
    }
    values |= {option: _text(job.options.get(name)) for name, option in _OPTIONS.items()}
    if job.callback_url is not None:
        values["--callback-url"] = job.callback_url
        values["--callback-events"] = ",".join(job.callback_events) or None
    values["--taskId"] = job.creator_task_id
    arguments: list[str] = []
    for option, value in values.items():
        if value is not None:
            arguments += [f"{option}={value}"] if value.startswith("-") else [option, value]
    return arguments


@contextmanager
def _logged(creator_task_id: str) -> Iterator[None]:
    """Log a CreatorError, so that the task it is about is omitted."""
    try:
        yield
    except CreatorError as error:
        logger.warning("A task is omitted: %s", error.message, extra={"creator_task_id": creator_task_id})


def _report(row: Mapping[str, Any] | None) -> Report:
    return Report(state=RemoteState.MISSING) if row is None else read_row(row)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _json_values(output: str, opening: str) -> Iterator[Any]:
    """Yield JSON values that begin a line; there may be log lines around them."""
    decoder = json.JSONDecoder()
    position = 0
    while (position := _next_line_with(output, opening, position)) >= 0:
        try:
            value, position = decoder.raw_decode(output, position)
        except (ValueError, RecursionError):
            position += 1
        else:
            yield value


def _next_line_with(text: str, opening: str, position: int) -> int:
    """Return the position of ``opening`` in the next line that starts with it; -1 if there is none."""
    match = re.compile(rf"^[ \t]*{re.escape(opening)}", re.MULTILINE).search(text, position)
    return -1 if match is None else match.end() - 1


def _last_words(errors: str) -> str:
    """Return the end of the program's error output, on one line."""
    return clean(errors[-400:]) or "it gave no reason"


def _report_end(child: Child) -> None:
    if child.exit_code:
        logger.warning("The creator's program failed.", extra={"exit_code": child.exit_code})
