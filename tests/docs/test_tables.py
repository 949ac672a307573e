"""Tables in the documentation say what the code says."""

from __future__ import annotations

import json
import re
import runpy

import pytest

from docs.tables import HERE, PAGES, llms, page_with_table
from flask_contenthub_webhook.core.timestamps import read_timestamp

_TIMESTAMPS = (HERE / "http.md").read_text(encoding="utf-8").partition("### Timestamps")[2].partition("Go's zero")[0]


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_a_page_follows_from_the_code(page: str) -> None:
    written = (HERE / page).read_text(encoding="utf-8")

    assert written == page_with_table(page), "run: python docs/tables.py"


def test_the_list_for_language_models_follows_from_the_pages() -> None:
    assert (HERE / "llms.txt").read_text(encoding="utf-8") == llms(), "run: python docs/tables.py"


@pytest.mark.parametrize("example", re.findall(r"`([^`]*2026[^`]*|\d{10,})`", _TIMESTAMPS))
def test_every_example_of_a_timestamp_is_read_as_the_same_second(example: str) -> None:
    value = json.loads(example) if example.isdigit() else example
    moment = read_timestamp(value)

    assert moment is not None
    assert moment.isoformat(timespec="seconds") == "2026-11-23T15:23:12+00:00"


def test_the_search_knows_chinese_words_by_pairs_of_characters() -> None:
    pytest.importorskip("sphinx")
    search = runpy.run_path(str(HERE / "conf.py"))["EnglishAndChinese"]({})

    assert search.split("verify 签名错误 token 词") == ["verify", "token", "签名", "名错", "错误", "词"]
    assert f"{search.language_name}Stemmer" == "EnglishStemmer"  # else the script of the search page does not load
