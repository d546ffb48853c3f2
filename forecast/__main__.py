"""`python -m forecast`: what a release will do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from forecast.cli import ForecastError, add_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m forecast")
    add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except ForecastError as error:
        print(f"forecast: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
