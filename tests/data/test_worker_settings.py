"""The number of workers is limited by the cores."""

from mmaction_lite.data.loading.worker_settings import WorkerSettings, worker_limit


def test_more_workers_than_the_limit_are_reduced():
    assert WorkerSettings(num_workers=10**6).count() == worker_limit()
    assert WorkerSettings(num_workers=3).count() == 3
