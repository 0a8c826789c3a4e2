"""An older commit of this package, to measure in turns with the current files."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

from mmaction_lite.benchmark.processes import InstalledPeer, our_command
from mmaction_lite.errors import UserError

ROOT = Path(__file__).parents[2]
WORKER = "mmaction_lite/benchmark/worker.py"


def export_commit(commit: str, folder: Path, root: Path = ROOT) -> tuple[str, InstalledPeer]:
    """Write the package as it was at a commit into a folder; return its name for tables and its worker.

    Args:
        commit: commit, branch or tag of the repository that this package is imported from.
        folder: empty folder.
        root: the repository.

    Raises:
        UserError: this package is not in a git repository, there is no such commit, or it has no benchmark.
    """
    name = _git(root, commit, "rev-parse", "--verify", "--quiet", "--short=9", f"{commit}^{{commit}}")
    archive = _git(root, commit, "archive", name.decode().strip(), "mmaction_lite")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    if not (folder / WORKER).is_file():
        raise UserError(f"--against {commit}: has no {WORKER}; expected a later commit, with a benchmark")
    return f"commit {name.decode().strip()}", InstalledPeer(our_command(), folder)


def _git(root: Path, commit: str, *words: str) -> bytes:
    # git sets GIT_DIR and others for its hooks.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *words]
    try:
        return subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    except OSError:
        raise UserError(f"--against {commit}: git is not installed") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().partition("\n")[0] or "no such commit"
        raise UserError(
            f"--against {commit}: {reason}; expected a commit of the git repository in {root}, from which "
            "this package is imported"
        ) from None
