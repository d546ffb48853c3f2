"""What holds for the repository as a whole: locks, commands, and which part may know which."""

from __future__ import annotations

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import boto3
import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (
    "rollout",
    "cloud",
    "functions",
    "components",
    "forecast",
    "device",
    "ops",
    "sandbox",
    "package",
    "__main__",
)
"""The product's parts: folders of Python, and the program."""

PACKAGES: dict[str, set[str]] = {
    "rollout": set(),
    "cloud": {"botocore"},
    "functions": {"boto3"},
    "components": {"pulumi", "pulumi_aws", "pulumi_random", "yaml"},
    "forecast": {"rich"},
    "device": {"awscrt", "awsiot", "cryptography"},
    "ops": {"boto3", "botocore", "cryptography", "rich"},
    "sandbox": {"botocore", "h11", "hypercorn", "ministack", "pulumi", "rich"},
    "package": {"pulumi"},
    "__main__": {"pulumi"},
}
"""What each room may import beside the standard library and the rooms that its arrows reach."""


def sources(room: str) -> list[Path]:
    path = ROOT / f"{room}.py"
    return [path] if path.is_file() else sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file it does, with what it takes from it:
    `rollout.state.State` for `from rollout.state import State`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)} imports by dots"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(path: Path) -> set[str]:
    """The first word of every module that a file imports."""
    return {name.split(".")[0] for name in imports(path)}


def arrows() -> set[tuple[str, str]]:
    """The arrows as docs/architecture.md draws them."""
    drawn = (ROOT / "docs/architecture.md").read_text()
    drawn = drawn.split("<!-- arrows -->")[1].split("<!-- /arrows -->")[0]
    return set(re.findall(r"^\s*(\w+) --> (\w+)$", drawn, re.MULTILINE))


def files() -> list[Path]:
    """Every file that git holds or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of files to look through")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def pins(name: str) -> dict[str, list[str]]:
    """Each line `package==version ; marker` of a lock, with its hashes."""
    found: dict[str, list[str]] = {}
    pin = ""
    for line in (ROOT / name).read_text().splitlines():
        if re.match(r"[a-z0-9]", line):
            pin = line.removesuffix(" \\")
            found[pin] = []
        elif match := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})( \\)?", line):
            found[pin].append(match.group(1))
        else:
            assert line.startswith("#"), (
                f"{name} holds a line that is neither a pin nor a hash: {line}"
            )
    return found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_pin_has_hashes(name: str) -> None:
    locked = pins(name)
    assert len(locked) > 10
    for pin, hashes in locked.items():
        assert re.fullmatch(r"[a-z0-9.-]+==[0-9][\w.]*( ; .+)?", pin), f"{pin} is not one version"
        assert hashes, f"{pin} has no hash"


def test_production_runs_what_was_tested() -> None:
    production, development = pins("requirements.txt"), pins("requirements-dev.txt")
    assert {pin: hashes for pin, hashes in development.items() if pin in production} == production


def test_production_installs_the_program_alone() -> None:
    names = {pin.split("==")[0] for pin in pins("requirements.txt")}
    assert {"pulumi", "pulumi-aws", "pulumi-random"} <= names
    assert not names & {
        "boto3",
        "ministack",
        "awsiotsdk",
        "pytest",
        "hypothesis",
        "matplotlib",
        "rich",
    }


def test_the_locks_name_no_place() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host|(^|\s)/\w", text), (
            f"{name} names where packages lie"
        )


def test_the_locks_were_made_from_their_sources() -> None:
    for name in ("requirements", "requirements-dev"):
        locked = {pin.split("==")[0] for pin in pins(f"{name}.txt")}
        wanted = re.findall(r"^([a-z0-9-]+)", (ROOT / f"{name}.in").read_text(), re.MULTILINE)
        assert set(filter(lambda word: not word.startswith("-"), wanted)) <= locked, (
            f"{name}.in has more than its lock: make lock"
        )


def test_the_drawn_arrows_are_the_ones_that_are_there() -> None:
    there = {
        (room, other)
        for room in ROOMS
        for path in sources(room)
        for other in imported(path) & set(ROOMS)
        if other != room
    }
    assert there == arrows(), "docs/architecture.md and the imports differ"


def test_no_arrow_leads_back() -> None:
    below: dict[str, set[str]] = {room: set() for room in ROOMS}
    for room, other in arrows():
        below[room].add(other)
    assert next(iter(TopologicalSorter(below).static_order())) == "rollout"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_it_may_and_no_more(room: str) -> None:
    assert sources(room), f"{room} is not there"
    reached = {other for start, other in arrows() if start == room}
    allowed = {room, *reached, *PACKAGES[room], *sys.stdlib_module_names}
    used: set[str] = set()
    for path in sources(room):
        assert imported(path) <= allowed, (
            f"{path.relative_to(ROOT)} imports {sorted(imported(path) - allowed)}"
        )
        used |= imported(path)
    assert PACKAGES[room] <= used, f"{room} needs {sorted(PACKAGES[room] - used)} no more"


def test_no_module_needs_itself_by_a_detour() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for room in ROOMS
        for path in sources(room)
    }
    needs = {
        name: {
            found
            for each in imports(path)
            if (found := each if each in modules else each.rpartition(".")[0]) in modules
            if found != name
        }
        for name, path in modules.items()
    }
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle


def test_no_room_holds_more_than_a_quarter() -> None:
    sizes = {
        room: sum(
            bool(line.strip()) for path in sources(room) for line in path.read_text().splitlines()
        )
        for room in ROOMS
    }
    largest = max(sizes, key=lambda room: sizes[room])
    assert sizes[largest] * 4 <= sum(sizes.values()), f"{largest} is too large: {sizes}"


def definitions(kind: type[ast.stmt]) -> dict[str, list[str]]:
    """By name: the modules that define it at their top level."""
    found: dict[str, list[str]] = {}
    for room in ROOMS:
        for path in sources(room):
            for node in ast.parse(path.read_text()).body:
                targets = node.targets if isinstance(node, ast.Assign) else []
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                if isinstance(node, ast.ClassDef):
                    names = [node.name]
                for name in names if isinstance(node, kind) else ():
                    found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


def test_every_class_has_a_name_of_its_own() -> None:
    twice = {name: where for name, where in definitions(ast.ClassDef).items() if len(where) > 1}
    assert twice == {}, "one name, one thing"


def test_every_constant_has_one_home() -> None:
    constants = definitions(ast.Assign)
    twice = {name: where for name, where in constants.items() if name.isupper() and len(where) > 1}
    assert twice == {}, "one fact, one home"


def test_every_module_has_a_name_of_its_own() -> None:
    paths = [path for room in ROOMS for path in sources(room) if not path.name.startswith("__")]
    twice = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    assert twice == [], "one name, one thing"


def test_operating_needs_no_sandbox_and_no_pulumi() -> None:
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, ops.__main__; print(*{name.split('.')[0] for name in sys.modules})",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(loaded.stdout.split()) & {"sandbox", "functions", "ministack", "pulumi"}


def targets() -> dict[str, str]:
    """The commands of the Makefile with their descriptions, as a bare `make` lists them."""
    return dict(
        re.findall(r"^([a-z-]+):.*?## (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs make as a person would: the tests themselves may run under make, with its settings in
    the environment."""
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON", "UV", "ARGS", "STACK", "VERSION")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_make_alone_lists_the_commands() -> None:
    listed = make()
    assert (listed.returncode, listed.stderr) == (0, "")
    assert re.findall(r"^  make ([\w-]+)", listed.stdout, re.MULTILINE) == list(targets())
    assert {"up", "test", "down", "status", "release", "preview", "lint", "bench"} <= set(targets())


def test_the_readme_tells_the_commands_that_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    rows = set(re.findall(r"^\|\s*`make ([\w-]+)", text, re.MULTILINE))
    assert rows >= {
        "up",
        "test",
        "down",
        "status",
        "release",
        "preview",
        "lint",
        "bench",
    }, "the README's table lacks commands"
    told = set(re.findall(r"`make ([\w-]+)", text)) | set(
        re.findall(r"^(?:\$ )?make ([\w-]+)", text, re.MULTILINE)
    )
    assert told <= set(targets()), (
        f"the README tells commands that are not there: {sorted(told - set(targets()))}"
    )


@pytest.mark.parametrize(
    ("command", "question"),
    [
        (["release"], "Which version? make release VERSION=2.2.0"),
        (["preview"], "Which stack? make preview STACK=dev"),
        (["plan"], "Which stack? make plan STACK=prod"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_without_its_argument_says_which(command: list[str], question: str) -> None:
    # The environment is taken as installed: only the question is tried.
    asked = make(*command, "--assume-old=.venv/.installed")
    assert asked.returncode == 2
    assert asked.stderr.splitlines()[0] == question
    assert "Traceback" not in asked.stderr


def test_a_python_too_old_is_named_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.18" && exit 0\nexit 1\n')
    old.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).touch()
    made = subprocess.run(
        ["make", "up", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert made.returncode == 2
    assert (
        made.stderr.splitlines()[0]
        == "Python 3.9.18 is too old. Install Python 3.11 or newer and name it: PYTHON=python3.12"
        " make up"
    )
    assert not (tmp_path / ".venv").exists()


def test_what_ci_runs_can_be_run() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert re.findall(r"\bmake [a-z-]+", text) == ["make lint", "make test", "make test-engine"]
    assert "set -euo pipefail" in text


def test_ci_goes_on_without_a_pulumi_cli_beside_the_checkout(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", checkout / ".ci/run")
    (checkout / "Makefile").write_text(
        "lint test test-engine:\n\t@echo $@ by $$(command -v pulumi)\n"
    )

    def said() -> list[str]:
        done = subprocess.run(
            [checkout / ".ci/run"], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        return done.stdout.splitlines()[2:]

    assert said() == ["engine: not run"]
    tools = tmp_path / "shared/tools/engine"
    tools.mkdir(parents=True)
    for name, text in (("engine", f"#!/bin/sh\necho {tools}\n"), ("pulumi", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    assert said() == [f"test-engine by {tools}/pulumi"]


def test_every_folder_of_tests_is_run() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    folders = {f"tests/{path.parent.name}" for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == {*settings["testpaths"], "tests/engine"}


def test_no_file_names_a_machine_or_a_registry() -> None:
    # Written in two pieces, so that this file does not find itself.
    places = [
        "/ro" + "ot/",
        "/work" + "/main",
        "/opt/" + "pypi",
        "/opt/" + "wheels",
        "python" + "hosted.org",
        "pypi" + ".org/simple",
    ]
    home = re.compile("/(?:home|Users)/" + r"[a-z]\w+")
    for path in files():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        text = data.decode()
        found = [place for place in places if place in text] + home.findall(text)
        assert found == [], f"{path.relative_to(ROOT)} names {found}"


def test_no_file_in_git_is_a_key_or_a_leftover() -> None:
    for path in files():
        name = str(path.relative_to(ROOT))
        assert not re.search(
            r"\.(pem|key|p12|orig|rej|log|pyc)$|(^|/)\.(sandbox|venv|env)(/|$)", name
        ), f"{name} is in git"


def test_no_test_can_reach_another_machine() -> None:
    with pytest.raises(PermissionError, match=r"a test tried to reach 192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 443), timeout=1)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=1) as client,
    ):
        assert client.getpeername() == server.getsockname()


def test_no_test_has_credentials_of_aws() -> None:
    session = boto3.Session()
    credentials = session.get_credentials()
    assert (credentials.access_key, credentials.secret_key, credentials.token) == (
        "testing",
        "testing",
        None,
    )
    assert session.available_profiles == []
    assert not [name for name in os.environ if name.startswith("AWS_ENDPOINT_URL")]
