"""The documentation says what the code does: generated pages, printed outputs, links."""

from __future__ import annotations

import pytest

from scripts.docs import GENERATED
from tests.project import REPOSITORY


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_what_its_script_writes(name: str) -> None:
    assert (REPOSITORY / name).read_text() == GENERATED[name](), f"{name} is out of date; make docs writes it anew"
