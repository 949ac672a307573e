"""A stand-in for content-creator's command line program, written out where a test wants it.

It behaves as the real one was seen to: it prints Chinese text, blocks while it works, exits with 0 also when the task
failed, puts log lines before its JSON, and has no command to cancel. Its tasks are in ``tasks.json`` beside it; each
call is noted in ``calls.jsonl``. Files beside it named after faults switch those on; ``stop`` ends all work.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

_PROGRAM = """\
#!{python} -IS
import argparse, json, os, pathlib, sys, time

here = pathlib.Path(__file__).parent
store = here / "tasks.json"


def fault(name):
    path = here / name
    return path.read_text() if path.exists() else None


def work(seconds):
    deadline = time.monotonic() + float(seconds)
    while time.monotonic() < deadline and fault("stop") is None:
        time.sleep(0.02)


def tasks():
    return json.loads(store.read_text()) if store.exists() else []


with (here / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps({{"argv": sys.argv[1:], "pid": os.getpid(), "session": os.getsid(0),
                            "environment": sorted(os.environ)}}) + "\\n")

parser = argparse.ArgumentParser(allow_abbrev=False)
commands = parser.add_subparsers(dest="command", required=True)
create = commands.add_parser("create", allow_abbrev=False)
for name in ("type", "mode", "priority", "topic", "requirements", "target-audience", "keywords", "tone", "image-size",
             "callback-url", "callback-events", "taskId"):
    create.add_argument("--" + name)
commands.add_parser("list", allow_abbrev=False).add_argument("--json", action="store_true")
for name in ("result", "status"):
    one = commands.add_parser(name, allow_abbrev=False)
    one.add_argument("-t")
    one.add_argument("--format")
options = parser.parse_args()
command = options.command

if (words := fault(command + "-fails")) is not None:
    print(words, file=sys.stderr)
    sys.exit(int(fault("exit-code") or 1))
if (seconds := fault(command + "-hangs")) is not None:
    work(seconds)
if fault(command + "-shouts") is not None:
    for _ in range(64):
        sys.stdout.write("x" * 1024 * 1024)
    sys.exit(0)

if command == "create":
    print("正在创建任务…", flush=True)
    print("warning: something", file=sys.stderr, flush=True)
    work(fault("work") or 0)
    row = {{"id": options.taskId, "status": "completed", "topic": options.topic, "errorMessage": None}}
    if options.topic and "[FAIL" in options.topic:
        row |= {{"status": "failed", "errorMessage": "LLM 失败"}}
    store.write_text(json.dumps([row] + tasks()))
    print("任务完成")
elif command == "list":
    print("[INFO] 已连接数据库")
    print("[2026] not a task")
    print(json.dumps(tasks()[: int(fault("list-limit") or 1000)], indent=2, ensure_ascii=False))
    print("[INFO] done")
else:
    row = next((row for row in tasks() if row["id"] == options.t), None)
    if row is None:
        print("任务不存在", file=sys.stderr)
        sys.exit(1)
    if command == "result":
        print("{{not json}}")
        print(json.dumps(row, ensure_ascii=False))
    else:
        print("状态:", row["status"])
"""


class FakeCli:
    """The program in a folder.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "content-creator"
        self.path.write_text(textwrap.dedent(_PROGRAM.format(python=sys.executable)), "utf-8")
        self.path.chmod(0o755)

    def fault(self, name: str, value: str = "") -> None:
        (self.folder / name).write_text(value)

    def has(self, *rows: dict[str, Any]) -> None:
        (self.folder / "tasks.json").write_text(json.dumps(rows))

    @property
    def tasks(self) -> list[dict[str, Any]]:
        store = self.folder / "tasks.json"
        rows: list[dict[str, Any]] = json.loads(store.read_text()) if store.exists() else []
        return rows

    @property
    def calls(self) -> list[dict[str, Any]]:
        noted = self.folder / "calls.jsonl"
        return [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []

    @property
    def commands(self) -> list[list[str]]:
        return [call["argv"] for call in self.calls]
