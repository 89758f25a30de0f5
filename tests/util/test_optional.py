"""Packages that are missing or broken are named with what to do."""

import sys

import pytest

from cherimoya.errors import PackageError
from cherimoya.util.optional import import_optional


def test_one_that_breaks_when_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "ledidi.py").write_text("raise RuntimeError('boom')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ledidi", raising=False)
    with pytest.raises(PackageError, match=r"ledidi cannot be imported \(RuntimeError: boom\)\."):
        import_optional("ledidi")


def test_one_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ledidi", None)
    with pytest.raises(PackageError, match=r"pip install 'cherimoya-train\[design\]'"):
        import_optional("ledidi")
