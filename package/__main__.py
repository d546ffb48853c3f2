"""Serves the package to the Pulumi engine, which starts this folder as a plugin."""

import sys
from pathlib import Path

# the engine runs this folder, from the user's project: the checkout stands above it
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pulumi.provider import main

from package.adapters import Package

main(Package(), sys.argv[1:])
