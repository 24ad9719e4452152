"""docker-compose.yml and the image: what compose v1.29 and v2 both understand, nothing published beyond loopback."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth_cli.chosen_settings import SERVICES as SERVICE_NAMES
from berth_cli.chosen_settings import settings_class

ONE_SHOTS = {"keys", "init"}
FOREIGN = {"nats", "jaeger"}
NOT_IN_BOTH = {"develop", "configs", "secrets", "extends", "pull_policy", "env_file"}


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    return yaml.safe_load((repository / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]


def test_only_what_both_versions_understand_stands_in_it(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    assert {name for name in compose if not name.startswith("x-")} == {"services", "volumes"}
    for name, service in services.items():
        assert not NOT_IN_BOTH & service.keys(), name
        assert "start_interval" not in service.get("healthcheck", {}), name
        for needed in service.get("depends_on", {}).values():
            assert needed.keys() == {"condition"}, name


def test_everything_is_published_on_loopback_only(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}

    assert published.keys() == {"nats", "console", "jaeger"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_every_process_of_ours_runs_without_rights_and_says_how_it_is(services: dict[str, dict[str, Any]]) -> None:
    for name in services.keys() - FOREIGN:
        assert services[name]["read_only"] is True, name
        assert services[name]["cap_drop"] == ["ALL"], name
    for name in services.keys() - ONE_SHOTS - {"jaeger"}:
        assert "healthcheck" in services[name], name


def test_every_variable_is_a_setting_of_its_service(services: dict[str, dict[str, Any]]) -> None:
    known = {variable for name in SERVICE_NAMES for variable in settings_class(name).variables().values()}

    for name, service in services.items():
        assert service.get("environment", {}).keys() <= known, name


def test_each_process_signs_in_as_itself(services: dict[str, dict[str, Any]]) -> None:
    users: list[str] = []
    for service in services.values():
        told: dict[str, str] = service.get("environment", {})
        named = {name.rpartition("_")[2]: value for name, value in told.items() if name.endswith("_USER")}
        seeds = [value for name, value in told.items() if name.endswith("_NKEY_FILE")]
        watches = ["/berth/keys/watch.nk"] if "BERTH_RAFT_USER" in told else []
        assert seeds == [f"/berth/keys/{user}.nk" for user in named.values()] + watches
        users += named.values()

    assert len(users) == len(set(users)) == len(services) - len(ONE_SHOTS | FOREIGN)


def test_the_image_needs_no_buildkit_and_runs_as_nobody(repository: Path) -> None:
    text = (repository / "deploy" / "Dockerfile").read_text()

    assert not re.search(r"--mount|<<|COPY --link|^# syntax", text, re.MULTILINE)
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"python:3.11-slim"}
