"""Makes a sample firmware image: `python firmware/make_sample.py 2.4.0 [--self-test fail]
[--hardware gateway-a1]`.

An image is one line of JSON that the reference device reads, then 64 KiB that stand for the
firmware. The bytes follow from version and hardware alone: the same words make the same image, and
the same SHA-256, everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

PAYLOAD_BYTES = 65_536


def image(version: str, hardware: str, self_test: str) -> bytes:
    """The image's bytes. `self_test` is `pass` or `fail`: what the device's self-test says after
    installing it."""
    header = json.dumps(
        {"hardware": hardware, "selfTest": self_test, "version": version}, sort_keys=True
    )
    blocks = (
        hashlib.sha256(f"{hardware} {version} {block}".encode()).digest()
        for block in range(PAYLOAD_BYTES // 32)
    )
    return header.encode() + b"\n" + b"".join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Makes a sample firmware image and prints the lines that release it."
    )
    parser.add_argument("version")
    parser.add_argument("--hardware", default="gateway-a1")
    parser.add_argument("--self-test", choices=("pass", "fail"), default="pass")
    args = parser.parse_args()
    path = Path(__file__).parent / f"{args.version}.bin"
    content = image(args.version, args.hardware, args.self_test)
    path.write_bytes(content)
    print(
        f'version: "{args.version}"\nimage: firmware/{path.name}\nsha256:'
        f' "{hashlib.sha256(content).hexdigest()}"'
    )


if __name__ == "__main__":
    main()
