"""One sandbox on this machine: its folder, its ports, its lock."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.local_aws import DEFAULT_FOLDER, sandbox_folder


class SandboxError(Exception):
    """Something the user can act on; its text is all that is shown."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One sandbox: everything it writes is in `folder`. HTTP and MQTT listen on 127.0.0.1 only."""

    folder: Path = DEFAULT_FOLDER
    port: int = 4566
    mqtt_port: int = 8883
    auth: bool = True
    """Whether the policies of IAM and IoT are enforced."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Instance:
        """SANDBOX_DIR, SANDBOX_PORT and SANDBOX_MQTT_PORT, or the defaults; raises SandboxError on
        a port that is none.

        >>> Instance.from_environment({"SANDBOX_PORT": "5000"}).port
        5000
        """

        def port(variable: str, default: int) -> int:
            text = environment.get(variable) or str(default)
            if not text.isdigit() or not 0 < int(text) < 65_536:
                raise SandboxError(f"{variable} is {text!r}: a port is a number from 1 to 65535")
            return int(text)

        instance = cls(
            folder=sandbox_folder(environment),
            port=port("SANDBOX_PORT", cls.port),
            mqtt_port=port("SANDBOX_MQTT_PORT", cls.mqtt_port),
        )
        if instance.port == instance.mqtt_port:
            raise SandboxError(
                f"SANDBOX_PORT and SANDBOX_MQTT_PORT are both {instance.port}: they must differ"
            )
        return instance

    def create(self) -> None:
        """Makes the folder, readable by its owner only: it holds the devices' private keys."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def read(self, name: str) -> Any:
        """The JSON in file `name`; None when it is missing or was cut off."""
        try:
            return json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return None

    def write(self, name: str, text: str) -> None:
        """Writes file `name` so that a reader sees the old text or the new, never half of it."""
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".{name}.")
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).replace(self.folder / name)

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Holds the sandbox against other commands; raises SandboxError at once when one runs. Ends
        with the process."""
        self.create()
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SandboxError(
                    f"{self.lock_holder() or 'another command'} is using the sandbox in"
                    f" {self.folder}; wait for it or end it"
                ) from None
            os.ftruncate(handle, 0)
            os.write(handle, f"{command} (process {os.getpid()})".encode())
            yield
        finally:
            os.close(handle)

    def is_locked(self) -> bool:
        """Whether a command holds the lock at this moment."""
        try:
            with self.locked("a look"):
                return False
        except SandboxError:
            return True

    def lock_holder(self) -> str:
        """The command that took the lock last."""
        try:
            return (self.folder / "lock").read_text()
        except OSError:
            return ""
