"""An older commit of this package, to measure in turns with the current files."""

import io
import subprocess
import tarfile
from pathlib import Path

from mmaction_lite.benchmark.processes import InstalledPeer, our_command
from mmaction_lite.errors import UserError

ROOT = Path(__file__).parents[2]


def export_commit(commit: str, folder: Path, root: Path = ROOT) -> tuple[str, InstalledPeer]:
    """Write the package as it was at a commit into a folder; return its name for tables and its worker.

    Args:
        commit: commit, branch or tag of the repository that this package is imported from.
        folder: empty folder.
        root: the repository.

    Raises:
        UserError: this package is not in a git repository, or there is no such commit.
    """
    name = _git(root, commit, "rev-parse", "--verify", "--quiet", "--short=9", f"{commit}^{{commit}}")
    archive = _git(root, commit, "archive", name.decode().strip(), "mmaction_lite")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return f"commit {name.decode().strip()}", InstalledPeer(our_command(), folder)


def _git(root: Path, commit: str, *words: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", root, *words], capture_output=True, check=True).stdout
    except OSError:
        raise UserError(f"--against {commit}: git is not installed") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().partition("\n")[0] or "no such commit"
        raise UserError(
            f"--against {commit}: {reason}; expected a commit of the git repository in {root}, from which "
            "this package is imported"
        ) from None
