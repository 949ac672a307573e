"""The mutants of the proof fit the package: the proof itself takes hours, and would say so only then."""

from __future__ import annotations

import pytest

from tests.proof.mutants import MUTANTS, text_of
from tests.proof.mutants.catalogue import Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_of_a_mutant_is_there_once(mutant: Mutant) -> None:
    assert mutant.old in text_of(mutant)
    assert mutant.new != mutant.old
