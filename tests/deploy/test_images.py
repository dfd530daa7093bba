"""Images and the compose file: what can be known of them where nothing can be built or started.

That they build and run is for the first machine with Docker to show: deploy/README.md has the list.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import pytest
from image_files import (
    DEPLOY,
    ROOT,
    Dockerfile,
    Unset,
    compose,
    compose_variables,
    copied_from_checkout,
    is_sent_to_builder,
    read_dockerfile,
    read_environment,
    tracked_files,
)

from gateway.registry import load_registry
from gateway.settings import Settings

IMAGES = sorted((DEPLOY / "images").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXAMPLE = read_environment(DEPLOY / "compose.env.example")
FILLED = {name: value or "x" * 32 for name, value in EXAMPLE.items()}
SETTINGS = {f"SIMSA_{name.upper()}" for name in Settings.model_fields}
BUILD_TOOLS = ("gcc", "g++", "build-essential", "apt-get", "apk ", "curl ", "wget ", "git ")


def missing(what: str) -> NoReturn:
    """A tool is not there: a failure where it was promised, else something that is said at the end."""
    reason = f"{what} is missing: make deploy-tools"
    if os.environ.get("SIMSA_TEST_DEPLOY") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def hadolint() -> str:
    """On the path, or where pip puts a program beside libraries that it installs into a directory."""
    beside = (Path(directory) / "bin" / "hadolint" for directory in sys.path)
    found = shutil.which("hadolint") or next((str(path) for path in beside if path.exists()), None)
    return found or missing("hadolint")


@pytest.fixture(params=IMAGES, ids=lambda path: path.stem)
def image(request: pytest.FixtureRequest) -> Dockerfile:
    return read_dockerfile(request.param)


def test_there_are_two_images() -> None:
    assert [path.name for path in IMAGES] == ["gateway.Dockerfile", "loadtest.Dockerfile"]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    found = subprocess.run([hadolint(), str(path)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_every_stage_stands_on_the_base_that_the_builder_names_by_digest(image: Dockerfile) -> None:
    assert image.arguments == ["PYTHON_IMAGE"], "no default: a tag means another image every month"
    assert {stage.base for stage in image.stages} == {"${PYTHON_IMAGE}"}
    assert len(image.stages) == 2


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_the_python_in_the_example_is_the_one_that_the_requirements_are_pinned_for(path: Path) -> None:
    (minor,) = set(re.findall(r"python:(\d+\.\d+)-slim-\w+@sha256:", path.read_text()))
    pinned_for = re.search(r"--python-version (\S+)", (ROOT / "scripts" / "lock.sh").read_text())
    assert pinned_for is not None
    assert minor == pinned_for[1]
    assert PROJECT["requires-python"] == f">={minor}"


def test_it_runs_as_a_numeric_user_that_is_not_root(image: Dockerfile) -> None:
    (user,) = image.last.texts("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    names = [step.name for step in image.last.steps]
    assert "RUN" not in names[names.index("USER") :]


def test_nothing_is_added_from_elsewhere_and_nothing_secret_is_built_in(image: Dockerfile) -> None:
    assert not [step for step in image.steps if step.name == "ADD"]
    stated = [step.text for step in image.steps if step.name in ("ARG", "ENV")]
    assert not [text for text in stated if re.search(r"(?i)password|secret|token|_key\b", text)]


def test_packages_come_by_hash_as_wheels_and_only_in_the_first_stage(image: Dockerfile) -> None:
    first = " && ".join(image.stages[0].texts("RUN"))
    installs = re.findall(r"pip (?:--python \S+ )?(install|wheel) ([^&]*)", first)
    assert len(installs) == 4
    for _, options in installs:
        by_hash = "--only-binary=:all: --require-hashes" in options
        assert "--no-deps" in options
        assert by_hash or "--no-index" in options
    last = " ".join(image.last.texts("RUN"))
    assert not re.search(r"\binstall (?!--directory)", last)
    assert "pip uninstall --yes pip setuptools wheel" in last
    assert not [tool for tool in BUILD_TOOLS if tool in last]


def test_every_source_is_in_the_checkout_and_is_sent_to_the_builder(image: Dockerfile) -> None:
    sources = copied_from_checkout(image)
    assert "gateway/" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert is_sent_to_builder(source), f"{source} is ignored"


def test_only_what_images_are_made_of_is_sent_to_the_builder() -> None:
    sources = {source.strip("/") for path in IMAGES for source in copied_from_checkout(read_dockerfile(path))}
    sent = [path for path in tracked_files() if is_sent_to_builder(path)]
    assert len(sent) > 300
    assert not [path for path in sent if not any(path == one or path.startswith(f"{one}/") for one in sources)]
    for stray in ("deploy/compose.env", ".git/config", ".simsa/simsa.db", "gateway/__pycache__/app.pyc", "a/.env"):
        assert not is_sent_to_builder(stray), stray


def test_package_files_reach_the_builder() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = [path for package, globs in patterns.items() for glob in globs for path in (ROOT / package).glob(glob)]
    assert files
    assert all(is_sent_to_builder(str(path.relative_to(ROOT))) for path in files)


def test_labels_say_what_it_is_and_what_it_was_made_of(image: Dockerfile) -> None:
    labels = " ".join(image.last.texts("LABEL"))
    for name in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f'licenses="{PROJECT["license"]}"' in labels
    assert f"VERSION={PROJECT['version']}" in image.last.texts("ARG")


def test_it_says_how_its_health_is_known(image: Dockerfile) -> None:
    (check,) = image.last.texts("HEALTHCHECK")
    assert check == "NONE" or "/health" in check


def test_what_it_writes_lies_in_the_data_directory_alone(image: Dockerfile) -> None:
    environment = " ".join(image.last.texts("ENV"))
    assert "SIMSA_DATA_DIR=/data" in environment
    assert "HOME=/data" in environment
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert set(re.findall(r"\bSIMSA_\w+(?==)", environment)) <= SETTINGS


# --- compose ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose(FILLED)["services"]
    return found


def test_compose_file_is_valid_by_the_specification() -> None:
    try:
        library = importlib.import_module("compose_spec")
    except ImportError:
        missing("compose_spec")
    library.PyCompose.from_json(json.dumps(compose(FILLED))).validate()
    for wrong in ({"restrat": "no"}, {"networks": ["nowhere"]}, {"healthcheck": {"tets": ["CMD", "true"]}}):
        mistaken = compose(FILLED)
        mistaken["services"]["gateway"] |= wrong
        with pytest.raises(ValueError, match=r"restrat|nowhere|tets"):
            library.PyCompose.from_json(json.dumps(mistaken)).validate()


def test_compose_file_is_used_with_nothing_left_open() -> None:
    left_open = sorted(name for name, value in EXAMPLE.items() if not value)
    assert left_open == [
        "ENGINE_IMAGE",
        "HF_TOKEN",
        "POSTGRES_IMAGE",
        "POSTGRES_PASSWORD",
        "REDIS_IMAGE",
        "REDIS_PASSWORD",
        "SIMSA_ADMIN_KEY",
    ]
    for name in set(left_open) - {"HF_TOKEN"}:
        with pytest.raises(Unset, match=name):
            compose({**FILLED, name: ""})


def test_example_names_every_variable_and_no_other() -> None:
    assert set(EXAMPLE) == compose_variables()


def test_what_the_example_serves_is_what_the_registry_says() -> None:
    registry = load_registry(ROOT / "model_registry.yaml", replicas_file=DEPLOY / "engines" / "replicas.yaml")
    model = registry.models[EXAMPLE["ENGINE_MODEL"]]
    assert (model.weights.repo, model.weights.revision) == (EXAMPLE["ENGINE_WEIGHTS"], EXAMPLE["ENGINE_REVISION"])
    (named,) = model.named_replicas
    assert named.name in compose(FILLED)["services"]
    assert named.pattern.gpus == int(EXAMPLE["ENGINE_GPUS"])
    assert model.licence.commercial


def test_only_the_gateway_is_published_and_only_on_this_machine(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "ports" in service} == {"gateway"}
    assert services["gateway"]["ports"] == ["127.0.0.1:8080:8080"]


def test_databases_are_on_a_network_without_a_way_out(services: dict[str, Any]) -> None:
    assert compose(FILLED)["networks"]["data"] == {"internal": True}
    assert {name for name, one in services.items() if "data" in one["networks"]} == {
        "gateway",
        "migration",
        "postgres",
        "redis",
    }
    assert services["postgres"]["networks"] == services["redis"]["networks"] == ["data"]
    assert services["engine"]["networks"] == ["engines"]


def test_every_service_is_held_short(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}, name
        assert "@sha256:" in (DEPLOY / "compose.yaml").read_text()
        assert not service.get("privileged")
        assert service.get("read_only") or name == "engine", f"{name}: vLLM compiles into its own directories"


def test_every_service_that_stays_has_a_health_check_of_its_own_or_its_images(services: dict[str, Any]) -> None:
    lasting = {name for name, service in services.items() if service["restart"] == "unless-stopped"}
    assert lasting == {"gateway", "postgres", "redis", "engine"}
    assert {name for name in lasting if "healthcheck" in services[name]} == lasting - {"gateway"}
    assert services["migration"]["healthcheck"] == {"disable": True}


def test_gateway_starts_after_the_migration_and_does_not_wait_for_the_engine(services: dict[str, Any]) -> None:
    assert services["gateway"]["depends_on"] == {
        "migration": {"condition": "service_completed_successfully"},
        "redis": {"condition": "service_healthy"},
    }
    assert services["migration"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_calls_in_flight_have_time_to_end(services: dict[str, Any]) -> None:
    gateway, engine = services["gateway"], services["engine"]
    assert seconds(gateway["stop_grace_period"]) > int(gateway["environment"]["SIMSA_SHUTDOWN_GRACE_S"]) + 10
    (drain,) = (part for part in engine["command"] if part.startswith("--shutdown-timeout="))
    assert seconds(engine["stop_grace_period"]) > int(drain.partition("=")[2]) + 10


def test_engine_reserves_its_gpus(services: dict[str, Any]) -> None:
    (device,) = services["engine"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": EXAMPLE["ENGINE_GPUS"], "capabilities": ["gpu"]}
    assert f"--tensor-parallel-size={EXAMPLE['ENGINE_GPUS']}" in services["engine"]["command"]


def test_gateway_is_told_nothing_that_is_no_setting(services: dict[str, Any]) -> None:
    for name in ("gateway", "migration"):
        assert set(services[name]["environment"]) <= SETTINGS


def test_redis_takes_its_password_by_standard_input_and_lets_nobody_in_without(
    services: dict[str, Any], tmp_path: Path
) -> None:
    """Its very command, but for where it listens: on a socket below the test's own directory."""
    if shutil.which("redis-server") is None:
        missing("redis-server")
    socket = tmp_path / "redis"
    program, arguments = services["redis"]["entrypoint"], services["redis"]["command"]
    placed = [text.replace("dir /tmp", f"dir {tmp_path}\nport 0\nunixsocket {socket}") for text in arguments]
    assert placed != arguments
    environment = {"PATH": os.environ["PATH"], **services["redis"]["environment"]}
    with subprocess.Popen([*program, *placed], env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert any("ready to accept connections" in line for line in running.stdout)
            assert environment["REDIS_PASSWORD"] not in Path(f"/proc/{running.pid}/cmdline").read_text()
            check = services["redis"]["healthcheck"]["test"][1].replace("redis-cli", f"redis-cli -s {socket}")
            for password, code in ((environment["REDIS_PASSWORD"], 0), ("another", 1)):
                asked = subprocess.run(
                    ["/bin/sh", "-c", check],
                    env={**environment, "REDIS_PASSWORD": password},
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
                assert asked.returncode == code
        finally:
            running.terminate()


def test_volumes_and_networks_are_those_that_services_use(services: dict[str, Any]) -> None:
    whole = compose(FILLED)
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    assert {mount.partition(":")[0] for mount in mounts if isinstance(mount, str)} == set(whole["volumes"])
    assert {name for service in services.values() for name in service["networks"]} == set(whole["networks"])
    (bound,) = (mount for mount in mounts if not isinstance(mount, str))
    assert (DEPLOY / bound["source"] / "replicas.yaml").exists()


def test_no_copy_of_the_example_is_ever_committed() -> None:
    ignored = subprocess.run(["git", "check-ignore", "deploy/compose.env"], cwd=ROOT, capture_output=True, check=False)
    assert ignored.returncode == 0
