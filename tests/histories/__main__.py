"""`make histories`: many random histories over several processes.

N of them (10,000 if it is not said) from SEED on; each that the oracle objects to is printed as a
script that plays it again, and the command fails.
"""

from __future__ import annotations

import os
import sys
import time
from multiprocessing import Pool

from tests.histories.scripts import judge

PROCESSES = 2
MOST_SHOWN = 10


def main() -> int:
    count = int(os.environ.get("N") or 10_000)
    first = int(os.environ.get("SEED") or 1)
    started, bad = time.monotonic(), 0
    with Pool(PROCESSES) as pool:
        for done, found in enumerate(
            pool.imap_unordered(judge, range(first, first + count), chunksize=4), start=1
        ):
            if found:
                bad += 1
                print(f"\n{found}", flush=True)
                if bad == MOST_SHOWN:
                    print(f"{bad} of {done} histories went wrong; that is enough")
                    return 1
            if done % 50 == 0 or done == count:
                minutes = (time.monotonic() - started) / 60
                print(f"\r{done} of {count} histories, {minutes:.1f} min", end="", file=sys.stderr)
    print(f"\n{count} histories from seed {first}: {bad} went wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
