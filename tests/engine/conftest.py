"""Tests with the Pulumi CLI that is on PATH. `make test-engine` runs them, `make test` does not."""

from __future__ import annotations

import shutil

import pytest

NO_CLI = "make test-engine needs the Pulumi CLI: https://www.pulumi.com/docs/iac/download-install/"


def pytest_configure() -> None:
    if shutil.which("pulumi") is None:
        pytest.exit(NO_CLI, returncode=2)
