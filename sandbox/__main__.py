"""`python -m sandbox up|status|release VERSION|down`."""

import os
import sys

from sandbox.first_words import find_first_words

if __name__ == "__main__":
    if words := find_first_words(sys.argv[1:], os.environ):
        print(words, flush=True)

    from sandbox.commands import main  # what it loads takes a second

    sys.exit(main())
