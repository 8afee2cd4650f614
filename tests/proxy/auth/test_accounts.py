"""Whether the kernel tells every account as what it is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.auth.accounts import sees_all_accounts

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ("         0          0 4294967295\n", True),
        ("         0          0          1\n", False),  # PrivateUsers=yes
        ("         0     100000      65536\n", False),  # Docker's userns-remap
        ("         0       1000          1\n         1     100000      65536\n", False),  # a rootless container
        ("", False),  # nobody has been mapped yet
    ],
)
def test_all_accounts_are_told_only_where_all_are_mapped(tmp_path, told, verdict):
    (tmp_path / "uid_map").write_text(told)
    assert sees_all_accounts(str(tmp_path / "uid_map")) is verdict


def test_where_there_are_no_namespaces_all_are_told(tmp_path):
    assert sees_all_accounts(str(tmp_path / "uid_map"))


def test_in_a_namespace_of_its_own_a_process_does_not_see_all():
    unshare = shutil.which("unshare")
    alone = [unshare or "", "--user", "--map-root-user"]
    if not unshare or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here (unshare --user)")
    program = "from proxy.auth.accounts import sees_all_accounts; print(sees_all_accounts())"
    command = [*alone, sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
