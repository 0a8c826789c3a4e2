"""The factor of the learning rate over the epochs."""

import pytest

from mmaction_lite.optim.schedules import Cosine, OneCycle, Steps, WarmupCosine


def test_one_cycle_rises_then_falls():
    schedule = OneCycle(rise=0.25, start=0.04, end=0.001)
    assert schedule.factor(0, 8) == pytest.approx(0.04)
    assert schedule.factor(2, 8) == pytest.approx(1)
    assert schedule.factor(8, 8) == pytest.approx(0.001)
    values = [schedule.factor(i / 10, 8) for i in range(81)]
    assert values == sorted(values[:20]) + sorted(values[20:], reverse=True)


def test_steps_multiply_at_milestones():
    schedule = Steps(milestones=(2, 4), gamma=0.5)
    assert [schedule.factor(epoch, 6) for epoch in (0, 1.99, 2, 3, 4, 5)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_steps_warm_up_by_epoch_or_by_step():
    by_epoch = Steps(milestones=(9,), warmup_epochs=3, warmup_start=0.2)
    assert [by_epoch.factor(e, 10) for e in (0, 0.9, 1, 2, 3)] == pytest.approx([0.2, 0.2, 0.6, 1, 1])
    by_step = Steps(milestones=(9,), warmup_epochs=4, warmup_start=0.2, linear=True)
    assert [by_step.factor(e, 10) for e in (0, 1, 2, 4)] == pytest.approx([0.2, 0.4, 0.6, 1])


def test_cosine_falls_from_its_beginning():
    assert [Cosine(begin=2).factor(e, 6) for e in (0, 2, 4, 6)] == pytest.approx([1, 1, 0.5, 0])


def test_cosine_warms_up_as_a_factor_or_linearly():
    plain, factor = Cosine(), Cosine(warmup_epochs=2, warmup_start=0.1)
    assert factor.factor(1, 8) == pytest.approx(0.55 * plain.factor(1, 8))
    linear = Cosine(warmup_epochs=2, warmup_start=0.1, linear=True)
    assert linear.factor(1, 8) == pytest.approx((0.1 + plain.factor(2, 8)) / 2)
    assert linear.factor(3, 8) == plain.factor(3, 8)


def test_a_training_that_ends_before_the_cosine_begins_keeps_its_learning_rate():
    assert [Cosine(begin=3).factor(epoch, epochs=3) for epoch in (0, 1.5, 3)] == [1, 1, 1]
    assert Cosine(begin=5).factor(2, epochs=3) == 1


def test_a_warm_up_then_a_cosine_over_the_rest():
    schedule = WarmupCosine(warmup_epochs=4, start=0.2, end=0.1)
    assert [schedule.factor(epoch, 24) for epoch in (0, 2, 4, 14, 24)] == pytest.approx(
        [0.2, 0.6, 1, 0.55, 0.1]
    )
    assert WarmupCosine().factor(0, 10) == 1
    assert WarmupCosine().factor(10, 10) == pytest.approx(0)
    assert WarmupCosine(warmup_epochs=10).factor(10, 10) == 1  # the training ends with the warm-up
