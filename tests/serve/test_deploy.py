"""The files for containers: no root, a health check, and nothing of the machine that wrote them."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy"


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and their arguments."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def test_the_image_runs_without_root_and_reports_its_health():
    found = instructions((FOLDER / "Dockerfile").read_text(encoding="utf-8"))
    values = dict(found)
    assert [name for name, _ in found].count("FROM") == 1
    assert re.fullmatch(r"python:3\.\d+-slim", values["FROM"])
    assert values["ARG"] == "TORCH=cpu"
    assert int(values["USER"].split(":")[0]) > 0
    assert values["EXPOSE"] == "8000"
    assert "/readyz" in values["HEALTHCHECK"]
    assert json.loads(values["ENTRYPOINT"])[:2] == ["mmaction-lite", "serve"]
    names = [name for name, _ in found]
    assert names.index("USER") < names.index("ENTRYPOINT")
    for copied in " ".join(value for name, value in found if name == "COPY").replace("./", "").split():
        assert not copied or (FOLDER.parent / copied).exists(), copied


def test_no_file_names_other_hosts_than_those_of_the_projects():
    for path in FOLDER.iterdir():
        hosts = set(re.findall(r"https?://([^/\s:'\"$]+)", path.read_text(encoding="utf-8")))
        assert hosts <= {"download.pytorch.org", "127.0.0.1"}, path.name


def test_the_compose_file_needs_a_token_and_grants_nothing():
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]["serve"]
    assert service["environment"]["MMACTION_LITE_TOKEN"].startswith("${MMACTION_LITE_TOKEN:?")
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(volume.endswith(":ro") or volume.startswith("cache:") for volume in service["volumes"])
    assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
