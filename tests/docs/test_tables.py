"""Tables in the documentation say what the code says."""

from __future__ import annotations

import pytest

from docs.tables import HERE, PAGES, page_with_table


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_a_page_follows_from_the_code(page: str) -> None:
    written = (HERE / page).read_text(encoding="utf-8")

    assert written == page_with_table(page), "run: python docs/tables.py"
