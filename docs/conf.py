"""How Sphinx builds the documentation. Nothing here needs the network."""

import builtins
import re
import sys
from typing import Any

from sphinx.application import Sphinx
from sphinx.search import languages
from sphinx.search.en import SearchEnglish

from flask_contenthub_webhook._version import __version__

project = "flask-contenthub-webhook"
author = "the flask_contenthub_webhook authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

nitpicky = True
_OTHERS = (
    "blinker",
    "celery",
    "flask",
    "flask_sqlalchemy",
    "httpx",
    "opentelemetry",
    "prometheus_client",
    "pytest",
    "sqlalchemy",
    "werkzeug",
)
_ROOTS = "|".join((*_OTHERS, *sys.stdlib_module_names, *dir(builtins)))
nitpick_ignore_regex = [
    ("py:.*", rf"({_ROOTS})(\..*)?"),  # what others document is theirs to find
    ("py:.*", r".*\b[FPT]"),  # type variables
    ("py:.*", "Celery|Client|Flask|OpenAI|Path|Secret|SQLAlchemy|SyncClient"),  # imported for types alone, or an alias
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"
html_extra_path = ["llms.txt"]
html_title = f"{project} {release}"

html_search_language = "en-zh"


class EnglishAndChinese(SearchEnglish):
    """Search that finds Chinese words, too, as pairs of characters; a dictionary of words comes in no wheel."""

    lang = "en-zh"
    language_name = "English"  # the name of the stemmer in JavaScript
    js_splitter_code = r"""
function splitQuery(query) {
  const words = query.match(/[\u4e00-\u9fff]+|(?:(?![\u4e00-\u9fff])[\p{L}\p{N}_])+/gu) || [];
  return words.flatMap((word) => /^[\u4e00-\u9fff]{2,}$/u.test(word)
    ? Array.from(word).slice(1).map((character, i) => word[i] + character)
    : [word]);
}
"""

    def split(self, input: str) -> list[str]:  # noqa: A002 - Sphinx's name
        """Return the words, and the pairs of characters in Chinese."""
        runs = re.findall(r"[\u4e00-\u9fff]+", input)
        pairs = [run[i : i + 2] for run in runs for i in range(max(1, len(run) - 1))]
        return [*super().split(re.sub(r"[\u4e00-\u9fff]+", " ", input)), *pairs]


_as_written: dict[str, list[str]] = {}


def remember(_app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon in the first line of a variable's docstring for the variable's type."""
    if what in {"data", "attribute", "property"}:
        _as_written[name] = lines.copy()


def put_back(_app: Sphinx, _what: str, name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Undo what Napoleon did to a variable's docstring; none of ours has sections."""
    lines[:] = _as_written.pop(name, lines)
    if name.startswith("flask_contenthub_webhook.ContentHubWebhook."):  # a method gets the state from the application
        lines[:] = [line for line in lines if not line.startswith((":param state:", ":type state:"))]


def setup(app: Sphinx) -> None:
    """Called by Sphinx; Napoleon runs at 500, between the two."""
    languages[EnglishAndChinese.lang] = EnglishAndChinese
    app.connect("autodoc-process-docstring", remember, priority=400)
    app.connect("autodoc-process-docstring", put_back, priority=600)
