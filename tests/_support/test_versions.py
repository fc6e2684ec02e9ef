"""What a result was made with."""

from importlib.metadata import PackageNotFoundError, version

import numpy as np

from bayesunfold._support import versions


def test_sources_that_are_imported_without_being_installed_are_unknown(monkeypatch):
    """A fit notes versions when it is done, so nothing may fail there."""

    def only_others(name):
        if name == "bayesunfold":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(versions, "version", only_others)
    found = versions.installed_versions()
    assert found["bayesunfold"] == "unknown"
    assert found["numpy"] == np.__version__
