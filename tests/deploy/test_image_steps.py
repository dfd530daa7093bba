"""The steps of the gateway's image, run here without Docker: its own commands in other directories, then its start.

Packages are really installed, so it takes a minute or two and needs the package index that pip is configured with.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from guards import HANG_S
from image_files import DEPLOY, ROOT, is_sent_to_builder, read_dockerfile, tracked_files

IMAGE = read_dockerfile(DEPLOY / "images" / "gateway.Dockerfile")
INSTALL_S = 1200.0
"""Guard against an install that hangs."""


@dataclass
class Built:
    """What the image would hold, below a directory in place of the root."""

    root: Path

    @property
    def prefix(self) -> Path:
        return self.root / "opt/simsa"

    def placed(self, text: str) -> str:
        """The same text with the image's directories where they are here."""
        return re.sub(r"(?<![\w/.-])/(build|opt/simsa|data|srv/simsa)\b", rf"{self.root}/\1", text)


@pytest.fixture(scope="module")
def built() -> Iterator[Built]:
    """Not below pytest's own directories: those are closed to other users."""
    root = Path(tempfile.mkdtemp(prefix="simsa-image-"))
    root.chmod(0o755)
    try:
        built = Built(root)
        _run_first_stage(built)
        _copy_into_last_stage(built)
        yield built
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _run_first_stage(built: Built) -> None:
    build = built.root / "build"
    for path in tracked_files():
        if is_sent_to_builder(path):
            target = build / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, target)
    base = built.root / "base"
    python = shutil.which("python3.11") or sys.executable
    subprocess.run([python, "-m", "venv", str(base)], check=True, timeout=HANG_S)
    environment = {**os.environ, "PATH": f"{base}/bin:/usr/bin:/bin"} | _variables(IMAGE.stages[0].texts("ENV"), built)
    environment.pop("PYTHONPATH", None)
    for text in IMAGE.stages[0].texts("RUN"):
        ended = subprocess.run(
            ["/bin/sh", "-ec", built.placed(text)],
            cwd=build,
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]


def _copy_into_last_stage(built: Built) -> None:
    (built.root / "srv/simsa").mkdir(parents=True)
    for name in ("LICENSE", "model_registry.yaml"):
        shutil.copyfile(ROOT / name, built.root / "srv/simsa" / name)
    shutil.rmtree(built.root / "build")
    data = built.root / "data"
    data.mkdir(mode=0o750)
    if os.geteuid() == 0:
        os.chown(data, *_user())
    else:
        subprocess.run(["chmod", "--recursive", "a-w", str(built.prefix)], check=True)


def _variables(lines: list[str], built: Built) -> dict[str, str]:
    pairs = (word.split("=", 1) for line in lines for word in shlex.split(line))
    return {name: built.placed(value) for name, value in pairs}


def _user() -> tuple[int, int]:
    user, group = IMAGE.last.texts("USER")[0].split(":")
    return int(user), int(group)


def _command(*arguments: str) -> list[str]:
    """Started as the image's user, where this one may do so."""
    if os.geteuid() != 0:
        return list(arguments)
    user, group = _user()
    return ["setpriv", "--pdeathsig=KILL", f"--reuid={user}", f"--regid={group}", "--clear-groups", *arguments]


def _environment(built: Built) -> dict[str, str]:
    stated = _variables(IMAGE.last.texts("ENV"), built)
    stated["PATH"] = f"{built.prefix}/bin:/usr/bin:/bin"
    return stated | {"SIMSA_HOST": "127.0.0.1", "SIMSA_PORT": "0", "SIMSA_ADMIN_KEY": "image-key"}


def _files(built: Built) -> set[str]:
    return {str(path.relative_to(built.root)) for path in built.root.rglob("*") if "data" not in path.parts}


def test_gateway_starts_as_the_images_user_writes_nothing_beside_its_data_and_ends_in_order(built: Built) -> None:
    before = _files(built)
    command = _command(f"{built.prefix}/bin/simsa", *re.findall(r'"(\w+)"', IMAGE.last.texts("CMD")[0]))
    running = subprocess.Popen(
        command, cwd=built.root / "srv/simsa", env=_environment(built), stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stderr is not None
        said, port = [], None
        for line in running.stderr:
            said.append(line)
            if '"event":"listening"' in line:
                port = re.findall(r'"port":(\d+)', line)[0]
                break
        assert port is not None, "it ended: " + "".join(said)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=HANG_S) as answer:
            assert answer.read() == b'{"status":"ok"}'
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=HANG_S)
        assert running.returncode == 0
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate()
    assert _files(built) == before
    assert (built.root / "data/simsa.db").exists()


def test_health_check_of_the_image_fails_where_nobody_listens(built: Built) -> None:
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', IMAGE.last.texts("HEALTHCHECK")[0].partition("CMD")[2])
    check = [word.replace('\\"', '"') for word in words]
    assert check[:2] == ["python", "-c"]
    environment = _environment(built) | {"SIMSA_PORT": "9"}
    ended = subprocess.run(
        _command(f"{built.prefix}/bin/python", *check[1:]), env=environment, capture_output=True, check=False
    )
    assert ended.returncode == 1
    assert b"Connection refused" in ended.stderr


def test_image_holds_no_installer_and_exactly_what_is_pinned(built: Built) -> None:
    site = next((built.prefix / "lib").glob("python3.*/site-packages"))
    installed = {
        path.name.removesuffix(".dist-info").rpartition("-")[0].replace("_", "-").lower()
        for path in site.glob("*.dist-info")
    }
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.M))
    assert installed - {"simsa"} <= {name.replace("_", "-").replace(".", "-").lower() for name in pinned}
    assert "simsa" in installed
    assert not {"pip", "setuptools", "wheel", "pytest", "locust"} & installed
    assert not (built.prefix / "bin/pip").exists()


def test_every_file_of_the_packages_is_in_the_wheel(built: Built) -> None:
    site = next((built.prefix / "lib").glob("python3.*/site-packages"))
    tracked = [path for path in tracked_files() if path.startswith(("gateway/", "loadtests/"))]
    assert len(tracked) > 300
    assert not [path for path in tracked if not (site / path).exists()]
