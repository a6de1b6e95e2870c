"""What ``hiexchange`` exports is stated three times for different readers; all three must agree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hiexchange as hx

SOURCE = ast.parse(Path(hx.__file__).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", hx.__all__)
def test_every_public_name_loads_and_is_documented(name: str) -> None:
    value = getattr(hx, name)
    assert value.__doc__, f"{name} has no docstring"
    assert value.__module__.startswith("hiexchange.")


def test_lazy_names_type_checking_imports_and_all_agree() -> None:
    checked = {
        alias.asname or alias.name
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hiexchange.")
        for alias in node.names
    }
    assert checked == set(hx.__all__) == set(hx._HOME_OF)
    assert list(hx.__all__) == sorted(hx.__all__, key=lambda name: (not name[0].isupper(), name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hx.nothing  # noqa: B018
