"""Jobs: states, cancellation, limits, expiry, and failures that stay inside of one job."""

import logging
import time
from pathlib import Path

import pytest

from mmaction_lite.serve.jobs import Job, JobLimits, Jobs
from mmaction_lite.serve.metrics import LOGGER
from mmaction_lite.serve.problems import Problem

LIMITS = JobLimits(max_jobs=3, max_results=2, job_seconds=5.0, result_seconds=60.0)


VIDEO = Path("video")


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(clock):
    jobs = Jobs(LIMITS, clock)
    yield jobs
    jobs.close()


def folder(tmp_path: Path, name: str = "job") -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


def wait_for(job: Job) -> None:
    deadline = time.monotonic() + 5
    while not job.has_ended and time.monotonic() < deadline:
        time.sleep(0.001)
    assert job.has_ended


def blocked(job: Job) -> None:
    while True:
        job.report(0, 1)
        time.sleep(0.001)


def test_a_job_runs_and_keeps_its_files_until_it_expires(jobs, clock, tmp_path):
    def work(job: Job) -> None:
        (job.folder / "result.json").write_text("{}")
        job.report(2, 2)

    job = jobs.start(folder(tmp_path), VIDEO, work)
    wait_for(job)
    assert jobs.get(job.id).to_json() == {"id": job.id, "state": "done", "done": 2, "total": 2}
    assert (job.folder / "result.json").exists()
    clock.now += 61
    with pytest.raises(Problem) as caught:
        jobs.get(job.id)
    assert caught.value.status == 410
    assert not job.folder.exists()


def test_unknown_jobs_and_identifiers(jobs, tmp_path):
    first = jobs.start(folder(tmp_path, "a"), VIDEO, lambda job: None)
    second = jobs.start(folder(tmp_path, "b"), VIDEO, lambda job: None)
    assert first.id != second.id
    assert len(first.id) >= 24
    for number in ("", "x" * 24, "../../etc/passwd", first.folder.name):
        with pytest.raises(Problem) as caught:
            jobs.get(number)
        assert caught.value.status == 404


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Problem("video-too-long"), "video-too-long"), (OSError("/secret/path"), "internal-error")],
)
def test_a_failure_is_the_problem_of_its_job_alone(error, kind, jobs, tmp_path):
    def fail(job: Job) -> None:
        raise error

    failed, other = (
        jobs.start(folder(tmp_path, "a"), VIDEO, fail),
        jobs.start(folder(tmp_path, "b"), VIDEO, lambda job: None),
    )
    wait_for(failed)
    wait_for(other)
    answer = failed.to_json()
    assert (answer["state"], answer["problem"]["type"]) == ("failed", f"/problems/{kind}")
    assert "secret" not in str(answer)
    assert other.state == "done"


def test_a_running_job_is_cancelled(jobs, tmp_path):
    job = jobs.start(folder(tmp_path), VIDEO, blocked)
    assert jobs.cancel(job.id).state == "cancelled"
    for _ in range(2000):
        if not job.folder.exists():
            break
        time.sleep(0.001)
    assert not job.folder.exists()
    assert jobs.get(job.id).state == "cancelled"
    jobs.cancel(job.id)  # forgets it
    with pytest.raises(Problem):
        jobs.get(job.id)


def test_the_number_of_jobs_is_limited(jobs, tmp_path):
    started = [jobs.start(folder(tmp_path, str(number)), VIDEO, blocked) for number in range(3)]
    refused = folder(tmp_path, "refused")
    with pytest.raises(Problem) as caught:
        jobs.start(refused, VIDEO, blocked)
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "10"})
    assert not refused.exists()
    queued = started[-1]
    assert queued.state == "queued"
    jobs.cancel(queued.id)
    assert jobs.start(folder(tmp_path, "next"), VIDEO, blocked).state == "queued"


def test_the_oldest_results_make_room(jobs, clock, tmp_path):
    ended = []
    for number in range(3):
        job = jobs.start(folder(tmp_path, str(number)), VIDEO, lambda job: None)
        wait_for(job)
        clock.now += 1
        ended.append(job)
    assert jobs.get(ended[2].id)
    assert [job.folder.exists() for job in ended] == [False, True, True]


def test_a_job_has_a_time_limit(tmp_path):
    jobs = Jobs(LIMITS._replace(job_seconds=0.05))
    job = jobs.start(folder(tmp_path), VIDEO, blocked)
    wait_for(job)
    assert job.to_json()["problem"]["type"] == "/problems/job-timeout"
    jobs.close()


def test_the_end_of_the_server_ends_all_jobs(tmp_path):
    jobs = Jobs(LIMITS)
    started = [jobs.start(folder(tmp_path, str(number)), VIDEO, blocked) for number in range(3)]
    jobs.close()
    assert not any(job.folder.exists() for job in started)
    with pytest.raises(Problem) as caught:
        jobs.start(folder(tmp_path, "late"), VIDEO, blocked)
    assert caught.value.status == 503


def test_unexpected_errors_are_logged_without_their_text(jobs, tmp_path, caplog):
    def fail(job: Job) -> None:
        raise KeyError("/home/me/secret")

    with caplog.at_level(logging.INFO, LOGGER):
        wait_for(job := jobs.start(folder(tmp_path), VIDEO, fail))
    assert job.problem is not None
    assert job.problem.kind == "internal-error"
    assert "unexpected KeyError in fail, line" in caplog.text
    assert "secret" not in caplog.text


def test_the_files_of_a_queued_job_are_deleted_when_it_is_cancelled(jobs, tmp_path):
    running = [jobs.start(folder(tmp_path, name), VIDEO, blocked) for name in ("a", "b")]
    queued = jobs.start(folder(tmp_path, "c"), VIDEO, blocked)
    assert jobs.cancel(queued.id).state == "cancelled"
    assert not queued.folder.exists()
    for job in running:
        jobs.cancel(job.id)
