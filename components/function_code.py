"""The code of the stack's Lambda functions: one package for all of them."""

from __future__ import annotations

import pulumi

from components.stack_file import ROOT


def function_code() -> pulumi.AssetArchive:
    """File by file and sorted, so that no `__pycache__` changes it."""
    files = sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("cloud", "functions", "rollout")
        for path in (ROOT / folder).glob("*.py")
    )
    return pulumi.AssetArchive({name: pulumi.FileAsset(str(ROOT / name)) for name in files})
