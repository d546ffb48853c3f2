"""`python -m sandbox up|status|release VERSION|down`."""

import sys

from sandbox.commands import main

if __name__ == "__main__":
    sys.exit(main())
