"""The workflows on GitHub: what they may do, and that GitHub would take them at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github/actions").glob("*/action.yml"))
PULUMI = "./.github/actions/pulumi"

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
every_file = pytest.mark.parametrize(
    "path", [*WORKFLOWS, *ACTIONS], ids=lambda path: str(path.relative_to(ROOT / ".github"))
)


class Loader(yaml.SafeLoader):
    """YAML as GitHub reads it: `on` is a word, not true."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|false"), list("tf"))


def load(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.load(path.read_text(), Loader)
    return data


def workflow(name: str) -> dict[str, Any]:
    return load(ROOT / ".github/workflows" / f"{name}.yml")


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(path).get("jobs", {})
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(path).values():
        yield from job["steps"]
    yield from load(path).get("runs", {}).get("steps", [])


def runs_pulumi(job: dict[str, Any]) -> dict[str, Any] | None:
    """What a job gives to Pulumi, or None when it does not run it."""
    return next((step["with"] for step in job["steps"] if step.get("uses") == PULUMI), None)


def test_there_are_the_four_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "deploy", "engine", "preview"]
    assert [str(path.parent.name) for path in ACTIONS] == ["pulumi"]


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        *((path, "github-workflows") for path in WORKFLOWS),
        *((path, "github-actions") for path in ACTIONS),
        (ROOT / ".github/dependabot.yml", "dependabot"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_github_takes_the_file(path: Path, schema: str) -> None:
    text = (
        resources.files("check_jsonschema") / "builtin_schemas/vendor" / f"{schema}.json"
    ).read_text()
    validator = jsonschema.validators.validator_for(json.loads(text))(json.loads(text))
    assert [error.message for error in validator.iter_errors(load(path))] == []


@every_file
def test_actions_are_pinned_by_commit_with_the_version_beside_it(path: Path) -> None:
    for line in path.read_text().splitlines():
        if match := re.match(r"\s*(?:- )?uses: (.*)", line):
            pinned = re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", match.group(1))
            assert pinned or match.group(1) == PULUMI, (
                f"not pinned by commit and version: {line.strip()}"
            )


def test_an_action_has_one_commit_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for path in [*WORKFLOWS, *ACTIONS]:
        for name, pin in re.findall(r"uses: ([\w./-]+)@(.*)", path.read_text()):
            pins.setdefault(name, set()).add(pin)
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}
    assert "pulumi/actions" in pins


@every_workflow
def test_nothing_is_permitted_but_what_a_job_names(path: Path) -> None:
    assert load(path)["permissions"] == {}
    for name, job in jobs(path).items():
        expected = {"contents": "read"}
        if runs_pulumi(job):
            expected["id-token"] = "write"
        if path.stem == "preview":
            expected["pull-requests"] = "write"
        assert job["permissions"] == expected, (
            f"{path.stem}.{name} may do more, or less, than it needs"
        )


@every_workflow
def test_jobs_end_and_leave_no_token_in_the_checkout(path: Path) -> None:
    for name, job in jobs(path).items():
        assert 0 < job["timeout-minutes"] <= 60, f"{path.stem}.{name} may hang"
        first = job["steps"][0]
        assert first["uses"].startswith("actions/checkout@"), (
            f"{path.stem}.{name} does not begin with the checkout"
        )
        assert first["with"] == {"persist-credentials": False}


@every_workflow
def test_no_workflow_runs_foreign_code_with_our_rights(path: Path) -> None:
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(load(path)["on"])


@every_file
def test_scripts_take_nothing_from_the_event(path: Path) -> None:
    for step in steps(path):
        assert "${{" not in step.get("run", ""), (
            f"an expression in a script is code of whoever wrote the event: {step['run']}"
        )


@every_file
def test_no_secret_is_in_a_file_or_an_environment(path: Path) -> None:
    text = path.read_text()
    assert "secrets." not in text, "roles are taken by OIDC: no secret is needed"
    assert not re.search(
        r"AKIA[0-9A-Z]{16}|pul-[0-9a-f]{40}|aws_secret_access_key", text, re.IGNORECASE
    )
    scopes = [load(path), *jobs(path).values()]
    assert [scope["env"] for scope in scopes if "env" in scope] == [], (
        "an environment of a job reaches all its steps"
    )


def test_the_checks_are_those_that_anyone_can_run() -> None:
    check = workflow("ci")["jobs"]["check"]
    assert [step["run"] for step in check["steps"] if "run" in step] == [".ci/run"]
    assert check["strategy"]["matrix"]["python"] == ["3.11", "3.13"]


def test_deployments_are_tried_with_the_cli_that_deploys_and_without_a_role() -> None:
    engine = workflow("engine")
    assert engine["on"] == workflow("ci")["on"]
    (job,) = engine["jobs"].values()
    assert "environment" not in job
    (cli,) = [step for step in job["steps"] if step.get("uses", "").startswith("pulumi/actions@")]
    deploying = (ROOT / ".github/actions/pulumi/action.yml").read_text()
    assert list(cli["with"]) == ["pulumi-version"], "it installs, and runs nothing"
    assert f"pulumi-version: {cli['with']['pulumi-version']}\n" in deploying
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test-engine"]


def test_a_pull_request_shows_every_stack_and_changes_none() -> None:
    preview = workflow("preview")
    assert list(preview["on"]) == ["pull_request"]
    (job,) = preview["jobs"].values()
    assert [row["stack"] for row in job["strategy"]["matrix"]["include"]] == [
        "dev",
        "staging",
        "prod",
    ]
    assert job["strategy"]["fail-fast"] is False, "one stack's failure must not hide the others"
    given = runs_pulumi(job)
    assert given is not None
    assert given["command"] == "preview"
    assert given["role"] == "${{ vars[matrix.role] }}"
    assert all(
        row["role"].startswith("AWS_PREVIEW_ROLE_") for row in job["strategy"]["matrix"]["include"]
    )


@every_workflow
def test_only_a_merge_deploys(path: Path) -> None:
    deploys = any(
        (given := runs_pulumi(job)) and given["command"] != "preview" for job in jobs(path).values()
    )
    if deploys:
        assert load(path)["on"] == {"push": {"branches": ["main"]}}
    assert not any(re.search(r"\bpulumi\b", step.get("run", "")) for step in steps(path)), (
        "Pulumi runs by its action alone"
    )


def test_forks_and_unread_updates_get_no_role() -> None:
    assert workflow("preview")["jobs"]["preview"]["if"].split(" && ") == [
        "github.event.pull_request.head.repo.full_name == github.repository",
        "github.actor != 'dependabot[bot]'",
    ]


def test_stacks_are_deployed_one_after_another() -> None:
    deploy = workflow("deploy")["jobs"]
    assert {name: job.get("needs") for name, job in deploy.items()} == {
        "dev": None,
        "staging": "dev",
        "prod": "staging",
    }
    for name, job in deploy.items():
        given = runs_pulumi(job)
        assert given is not None
        assert (given["command"], given["stack"]) == ("up", name)
        assert given["role"] == "${{ vars.AWS_DEPLOY_ROLE }}"


def test_a_deployment_is_never_cancelled() -> None:
    deploy = workflow("deploy")
    assert "concurrency" not in deploy
    for name, job in deploy["jobs"].items():
        assert job["concurrency"] == {"group": f"deploy-{name}", "cancel-in-progress": False}


def test_production_waits_for_its_reviewers_and_for_nothing_old() -> None:
    deploy = workflow("deploy")["jobs"]
    assert {name: job["environment"] for name, job in deploy.items()} == {
        "dev": "dev",
        "staging": "staging",
        "prod": "production",
    }
    names = [step.get("name") or step["uses"] for step in deploy["prod"]["steps"]]
    assert names.index("Is this commit still the newest of main?") < names.index(PULUMI)


def test_pulumi_runs_with_what_production_installs() -> None:
    action = load(ROOT / ".github/actions/pulumi/action.yml")["runs"]["steps"]
    install, _wait = (step["run"] for step in action if "run" in step)
    assert "--require-hashes -r requirements.txt" in install
    assert "requirements-dev" not in install
    pulumi, again = (
        step["with"] for step in action if step.get("uses", "").startswith("pulumi/actions@")
    )
    assert again["pulumi-version"] == pulumi["pulumi-version"]
    assert f"pulumi=={pulumi['pulumi-version']} " in (ROOT / "requirements.txt").read_text(), (
        "the CLI's version is not the SDK's"
    )
    assert pulumi["comment-on-pr"] == "${{ inputs.command == 'preview' }}"
    assert pulumi["suppress-outputs"] is again["suppress-outputs"] is True


def test_a_deployment_that_fails_is_run_once_more_and_no_preview_is() -> None:
    """AWS detaches a certificate seconds after it said so; the provider does not wait."""
    action = load(ROOT / ".github/actions/pulumi/action.yml")["runs"]["steps"]
    first, wait, again = action[-3:]
    assert first["continue-on-error"] == "${{ inputs.command == 'up' }}"
    failed = f"inputs.command == 'up' && steps.{first['id']}.outcome == 'failure'"
    assert (wait["if"], wait["run"]) == (failed, "sleep 15")
    assert (again["if"], again["with"]["command"]) == (failed, "up")
    assert "continue-on-error" not in again, "what fails twice has failed"
    for key in ("stack-name", "cloud-url"):
        assert again["with"][key] == first["with"][key]
