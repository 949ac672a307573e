"""The tables of the documentation that follow from the code; ``python docs/tables.py`` writes them into the pages.

A test fails where a page and the code disagree.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask_contenthub_webhook import ContentHubWebhook, errors
from flask_contenthub_webhook.config.keys import OPTIONS
from flask_contenthub_webhook.config.settings import load_settings
from flask_contenthub_webhook.contrib.prometheus import METRICS
from flask_contenthub_webhook.core.fields import ENVELOPE, ERROR, PROGRESS, RESULT, TIMESTAMP, Shape
from flask_contenthub_webhook.core.promises import Promise
from flask_contenthub_webhook.core.signatures import SCHEMES
from flask_contenthub_webhook.core.state_machine import OPEN_STATES, TERMINAL_STATES, TRANSITIONS
from flask_contenthub_webhook.web.openapi import openapi

HERE = Path(__file__).parent
GROUPS = {
    "Callbacks": r"WEBHOOK_(ENABLED|CALLBACK_BASE_URL|URL_PREFIX|TIMEOUT|EVENTS|.*_RESULT_FIELDS)",
    "Who is believed": r"WEBHOOK_(SECRET_KEY|REQUIRE_SIGNATURE|SIGNATURE_(SCHEMES|TOLERANCE)|MAX_BODY_BYTES|"
    r"ALLOWED_IPS|TRUSTED_PROXIES|CLIENT_CERTS|RATE_LIMIT)",
    "The service": r"CREATOR_.*",
    "Tasks and attempts": r"WEBHOOK_(TASK_TIMEOUT|MAX_RETRIES|RETRY_BACKOFF|SUBMIT_THREADS)",
    "Polling": r"WEBHOOK_POLL_.*",
    "Where events are applied": r"WEBHOOK_(PROCESSING|INBOX_LIMIT|WORKER_.*|CELERY_GRACE|SCHEDULER_ENABLED)",
    "Forwarding": r"WEBHOOK_FORWARD_.*",
    "History": r"WEBHOOK_HISTORY_.*",
    "Alerts": r"WEBHOOK_(ALERT_.*|.*_ALERT)",
    "Others": r".*",
}
"""The keys of each part of the page; the first match counts."""
PAGES = {
    "audit.md": "promises",
    "configuration.md": "options",
    "submitting.md": "submit_parameters",
    "http.md": "errors",
    "how-it-works.md": "transitions",
    "metrics.md": "metrics",
    "signatures.md": "schemes",
}


def options() -> Iterator[str]:
    """Every configuration key, in groups, with an anchor for each."""
    left = {option.key: option for option in OPTIONS}
    for title, pattern in GROUPS.items():
        keys = [key for key in left if re.fullmatch(pattern, key)]
        if not keys:
            continue
        yield from (f"## {title}", "", "| key | default | allowed | meaning |", "|---|---|---|---|")
        for option in map(left.pop, keys):
            bounds = getattr(option.parse, "bounds", "")
            anchor = f'<a id="{option.key.lower()}"></a>'
            yield f"| {anchor}`{option.key}` | {_default(option.default)} | {bounds} | {option.doc} |"
        yield ""


def submit_parameters() -> Iterator[str]:
    """Every parameter of `submit`, as its docstring has it."""
    text = inspect.getdoc(ContentHubWebhook.submit) or ""
    arguments = text.partition("Args:\n")[2].partition("\n\n")[0]
    meanings = dict(re.findall(r"^ {4}(\**\w+): (.*(?:\n {5,}.*)*)", arguments, re.MULTILINE))
    yield "| parameter | default | meaning |"
    yield "|---|---|---|"
    for name, parameter in inspect.signature(ContentHubWebhook.submit).parameters.items():
        if name == "self":
            continue
        stars = "**" if parameter.kind is inspect.Parameter.VAR_KEYWORD else ""
        default = "" if stars else f"`{parameter.default!r}`"
        meaning = " ".join(meanings[stars + name].split()).replace("``", "`")
        meaning = re.sub(r":\w+:`[~.]*([\w.]+)`", r"`\1`", meaning)
        yield f"| `{stars}{name}` | {default} | {meaning[0].upper()}{meaning[1:]} |"


def errors_() -> Iterator[str]:
    """Every refusal, with its status."""
    yield "| status | code | meaning |"
    yield "|---|---|---|"
    refusals = [getattr(errors, name) for name in errors.__all__]
    wire = [r for r in refusals if issubclass(r, errors.RequestRefused) and r is not errors.RequestRefused]
    for refusal in sorted(wire, key=lambda r: (r.status, r.code)):
        yield f"| {refusal.status} | `{refusal.code}` | {' '.join((refusal.__doc__ or '').split())} |"


def fields() -> Iterator[str]:
    """Every field that need not be readable."""
    yield "| field | type |"
    yield "|---|---|"
    yield from _field_rows("", {"timestamp": TIMESTAMP, **ENVELOPE.fields})
    yield from _field_rows("result.", RESULT.fields)
    yield from _field_rows("error.", ERROR.fields)
    yield from _field_rows("progress.", PROGRESS.fields)


def _field_rows(path: str, shapes: Mapping[str, Shape]) -> Iterator[str]:
    for name, shape in shapes.items():
        yield f"| `{path}{name}` | {shape.name} |"
        yield from _field_rows(f"{path}{name}.", shape.fields)
        if shape.items is not None:
            yield f"| `{path}{name}[]` | {shape.items.name} |"
            yield from _field_rows(f"{path}{name}[].", shape.items.fields)


def promises() -> Iterator[str]:
    """Every promise that the audit looks at."""
    yield "| promise | |"
    yield "|---|---|"
    for promise in Promise:
        yield f"| `{promise}` | {promise.words} |"


def schemes() -> Iterator[str]:
    """Every signature scheme."""
    yield "| scheme | where | for |"
    yield "|---|---|---|"
    for name, scheme in SCHEMES.items():
        yield f"| `{name}` | {scheme.reads} | {scheme.used_by} |"


def transitions() -> Iterator[str]:
    """The transition table, as the code has it."""
    yield f"| event | {' / '.join(OPEN_STATES)} | {' | '.join(TERMINAL_STATES)} |"
    yield "|---" * (2 + len(TERMINAL_STATES)) + "|"
    for trigger, row in TRANSITIONS.items():
        open_rules = list(dict.fromkeys(row[state].value for state in OPEN_STATES))
        cells = [" / ".join(open_rules), *(row[state].value for state in TERMINAL_STATES)]
        yield f"| `{trigger}` | {' | '.join(cells)} |"


def metrics() -> Iterator[str]:
    """Every metric, in the order of a scrape."""
    yield "| metric | kind | labels | what it tells |"
    yield "|---|---|---|---|"
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.doc} |"


def llms() -> str:
    """The list of pages for language models (llms.txt): what the package is, and each page with its first sentence."""
    index = (HERE / "index.md").read_text(encoding="utf-8")
    about = index.partition("\n\n")[2].partition("![")[0].strip()
    lines = ["# flask-contenthub-webhook", "", "> " + " ".join(_plain(about).split()), ""]
    for caption, entries in re.findall(r":caption: (.*)\n\n((?:.+\n)*?)```", index):
        if caption == "For maintainers":
            continue
        lines += [f"## {caption}", ""]
        for entry in entries.split("\n"):
            name = re.sub(r".*<(.*)>", r"\1", entry)
            if name != "changelog" and (HERE / f"{name}.md").is_file():
                lines.append(_entry(name))
        lines.append("")
    return "\n".join(lines)


def _entry(name: str) -> str:
    """A page's link, and its first sentence if it begins with prose."""
    text = (HERE / f"{name}.md").read_text(encoding="utf-8")
    title = text.partition("\n")[0].removeprefix("# ")
    prose = [part for part in text.split("\n\n")[1:] if re.match(r"[A-Z`\[]", part) and not part.startswith("```")]
    sentence = re.match(r".*?(?:\.|:|。)(?=\s|$)", _plain(" ".join(prose[0].split())), re.DOTALL) if prose else None
    return f"- [{title}]({name}.md)" + (f": {sentence[0].rstrip(':')}" if sentence else "")


def _plain(text: str) -> str:
    """Return text without links and emphasis."""
    return re.sub(r"\*(\w[^*]*)\*", r"\1", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text))


def page_with_table(name: str) -> str:
    """A page as it should be."""
    tables = {
        "options": options,
        "submit_parameters": submit_parameters,
        "errors": errors_,
        "fields": fields,
        "transitions": transitions,
        "metrics": metrics,
        "schemes": schemes,
        "promises": promises,
    }
    text = (HERE / name).read_text(encoding="utf-8")
    marks = re.compile(r"(<!-- table(?:: (\w+))? -->\n).*?(<!-- end of table -->)", re.DOTALL)
    filled = marks.sub(lambda match: match[1] + "\n".join(tables[match[2] or PAGES[name]]()) + "\n" + match[3], text)
    if "<!-- table -->" not in text:
        raise ValueError(f"{name} has no mark for its table.")
    return filled


CONTRACT = HERE / "openapi.json"


def contract() -> dict[str, Any]:
    """The HTTP contract of an application with the usual configuration, as JSON has it."""
    document: dict[str, Any] = json.loads(json.dumps(openapi(prefix=load_settings({}, {}).url_prefix)))
    return document


def _default(value: Any) -> str:
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(_default(item) for item in value)
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        return f"{seconds / 86_400:g} (days)" if seconds >= 86_400 else f"{seconds:g}"  # noqa: PLR2004
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1024**2:
        return f"{value // 1024**2} MiB"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    for page in PAGES:
        (HERE / page).write_text(page_with_table(page), encoding="utf-8")
    (HERE / "llms.txt").write_text(llms(), encoding="utf-8")
    CONTRACT.write_text(json.dumps(contract(), indent=2) + "\n", encoding="utf-8")
