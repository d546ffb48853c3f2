"""`python -m ops`: what an operator can see and do. docs/operations.md says when to do what."""

import sys

from ops.main import main

if __name__ == "__main__":
    sys.exit(main())
