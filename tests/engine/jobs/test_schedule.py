"""When a job is asked for again: bounds that hold for every belief, and what learning is worth."""

from __future__ import annotations

import math
import random
import statistics
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prefect_happyhorse.engine.jobs.schedule import DurationModel

TYPICAL = st.floats(1.0, 3600.0)
DURATIONS = st.lists(st.floats(0.1, 1e6), max_size=100)
SIGMA = st.one_of(st.floats(1e-6, 1e-2), st.floats(1e-2, 3.0), st.floats(3.0, 1e3))
# A share of the median, so that what is far before and far behind it is tried as often as what is near.
SHARE = st.one_of(st.just(0.0), st.floats(1e-6, 2.0), st.floats(2.0, 1000.0), st.floats(1000.0, 1e6))
BELIEFS = st.builds(DurationModel, median_s=st.floats(0.1, 1e6), sigma=SIGMA, seen=st.integers(0, 100))


def quickest_s(belief: DurationModel) -> float:
    """When one job in ten thousand is done."""
    return belief.median_s * math.exp(-statistics.NormalDist().inv_cdf(0.9999) * belief.sigma)


@given(belief=BELIEFS, share=SHARE)
@example(belief=DurationModel(median_s=120.0, sigma=0.2, seen=100), share=0.0)
@example(belief=DurationModel(median_s=120.0, sigma=0.1, seen=100), share=1000.0)
@example(belief=DurationModel(median_s=3600.0, sigma=0.1, seen=100), share=0.7)
def test_pauses_are_bounded(belief: DurationModel, share: float) -> None:
    """Half a second to fifteen; longer only while even the quickest job still runs, and its result is never seen much later."""
    elapsed_s = share * belief.median_s
    pause_s = belief.pause_s(elapsed_s)
    assert pause_s >= 0.5
    # The quickest are those of a rounded share, and so is the time.
    assert pause_s <= 15.0 or elapsed_s + pause_s <= quickest_s(belief) * (1 + 0.01 * belief.sigma) + 12.0


@given(belief=BELIEFS, share=SHARE, retry_after_s=st.floats(0.0, 1e5))
def test_the_gateway_is_heard(belief: DurationModel, share: float, retry_after_s: float) -> None:
    """A pause is the usual one or what the gateway asked for, whichever is longer."""
    elapsed_s = share * belief.median_s
    assert belief.pause_s(elapsed_s, retry_after_s=retry_after_s) == max(belief.pause_s(elapsed_s), retry_after_s)


@given(median_s=st.floats(0.1, 1e6), sigma=SIGMA, seen=st.integers(0, 2), share=SHARE)
@example(median_s=3600.0, sigma=0.01, seen=2, share=0.0)
def test_too_few_jobs_are_no_reason_to_wait(median_s: float, sigma: float, seen: int, share: float) -> None:
    """Until three jobs were seen, a pause is never longer than the job has run already."""
    belief = DurationModel(median_s=median_s, sigma=sigma, seen=seen)
    elapsed_s = share * median_s
    assert belief.pause_s(elapsed_s) <= max(elapsed_s, 0.5)


def test_three_jobs_are_enough() -> None:
    """The third job is what makes the first pause a long one."""
    pauses = [DurationModel.of([120.0] * seen, typical_s=120.0).pause_s(0.0) for seen in range(5)]
    assert pauses[:3] == [0.5] * 3
    assert min(pauses[3:]) > 10.0


@given(durations_s=DURATIONS, typical_s=TYPICAL)
def test_belief_lies_between_what_was_thought_and_seen(durations_s: list[float], typical_s: float) -> None:
    """The median is none that neither the jobs nor the route's typical time give reason for, and there is always some doubt."""
    belief = DurationModel.of(durations_s, typical_s=typical_s)
    everything = [*durations_s, typical_s]
    assert min(everything) * (1 - 1e-9) <= belief.median_s <= max(everything) * (1 + 1e-9)
    assert 0.0 < belief.sigma < math.inf
    assert belief.seen == len(durations_s)


@given(durations_s=DURATIONS, typical_s=TYPICAL, share=SHARE)
def test_whatever_was_seen_gives_a_pause(durations_s: list[float], typical_s: float, share: float) -> None:
    """A belief from real jobs, however odd they were, answers with a number of seconds."""
    belief = DurationModel.of(durations_s, typical_s=typical_s)
    pause_s = belief.pause_s(share * belief.median_s)
    assert 0.5 <= pause_s <= max(15.0, max([typical_s, *durations_s]) + 12.0)


@given(duration_s=st.floats(1.0, 1e5), typical_s=TYPICAL, seen=st.integers(0, 99))
def test_equal_jobs_convince(duration_s: float, typical_s: float, seen: int) -> None:
    """With every further job of the same duration the median comes nearer to it."""
    before, after = (DurationModel.of([duration_s] * number, typical_s=typical_s) for number in (seen, seen + 1))
    misses = [abs(math.log(belief.median_s / duration_s)) for belief in (before, after)]
    assert misses[1] <= misses[0] + 1e-12
    assert misses[1] == pytest.approx(abs(math.log(typical_s / duration_s)) / (1 + 2 * (seen + 1)), abs=1e-9)


@given(duration_s=st.floats(1.0, 1e5))
def test_equal_jobs_take_the_doubt_away(duration_s: float) -> None:
    """The more jobs took as long as was thought, the narrower the belief."""
    sigmas = [DurationModel.of([duration_s] * seen, typical_s=duration_s).sigma for seen in (0, 1, 3, 10, 100)]
    assert sigmas == sorted(sigmas, reverse=True)
    assert sigmas[0] == pytest.approx(0.7)
    assert sigmas[-1] < 0.15


def test_a_surprise_leaves_doubt() -> None:
    """A few jobs far from what was thought widen the belief, where as many that were as thought narrow it."""
    surprised, confirmed = (DurationModel.of([duration_s] * 3, typical_s=120.0).sigma for duration_s in (1200.0, 120.0))
    assert confirmed < 0.7 < surprised


def asked(belief: DurationModel, duration_s: float) -> tuple[int, float]:
    """How many times a job is asked for, and how long after its end it is seen, in seconds."""
    polls, at = (0, 0.0) if belief.is_learned else (1, 0.0)
    while at < duration_s:
        at += belief.pause_s(at)
        polls += 1
    return polls, at - duration_s


@pytest.mark.parametrize("median_s", [30.0, 120.0, 600.0])
@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.6])
def test_learning_saves_polls_and_news_stay_fresh(median_s: float, sigma: float) -> None:
    """After a hundred jobs results are seen within a twentieth of the time, with fewer polls than at even distances for the same."""
    numbers = random.Random(7)  # noqa: S311 -- the same each time
    durations_s = [numbers.lognormvariate(math.log(median_s), sigma) for _ in range(400)]
    seen, waited = durations_s[:100], durations_s[100:]
    belief = DurationModel.of(seen, typical_s=120.0)
    polls, delays_s = zip(*(asked(belief, duration_s) for duration_s in waited), strict=True)
    assert sum(delays_s) < 0.05 * sum(waited)
    # Who asks every so many seconds sees a result half of that late on average.
    even_s = 2 * statistics.mean(delays_s)
    assert sum(polls) < 0.95 * sum(math.ceil(duration_s / even_s) for duration_s in waited)
    if median_s >= 120.0:
        assert sum(polls) < sum(math.ceil(duration_s / 5.0) for duration_s in waited), "those that ask every five seconds"


def test_a_route_that_becomes_slower_or_quicker_is_learned_anew() -> None:
    """Jobs that a belief did not expect are still seen, and after a hundred of them it is theirs."""
    believed = DurationModel.of([120.0] * 100, typical_s=120.0)
    assert asked(believed, 1200.0)[1] <= 15.0
    assert asked(believed, 10.0)[1] <= 120.0, "much quicker than any before, but found while the others would still run"
    latest = ([120.0] * 100 + [1200.0] * 100)[-100:]
    assert DurationModel.of(latest, typical_s=120.0).median_s == pytest.approx(1200.0, rel=0.02)


class Crowd:
    """Jobs whose durations are lognormal, on a grid of half seconds: how many still run, and how late they are seen.

    Args:
        belief: What they are, exactly.
    """

    STEP_S = 0.5

    def __init__(self, belief: DurationModel) -> None:
        self.belief = belief
        self.steps = round(belief.median_s * math.exp(5 * belief.sigma) / self.STEP_S) + 60
        scale = belief.sigma * math.sqrt(2)
        self.running = [
            1.0,
            *(0.5 * math.erfc(math.log(step * self.STEP_S / belief.median_s) / scale) for step in range(1, self.steps + 1)),
        ]
        done_s = [self.STEP_S * (1 - (one + other) / 2) for one, other in pairwise(self.running)]
        self._done_s = [0.0, *accumulate(done_s)]

    def late_s(self, asked: int, again: int) -> float:
        """How many seconds later than they ended those jobs are seen that end between two polls, times their share."""
        return self._done_s[again] - self._done_s[asked] - (again - asked) * self.STEP_S * (1 - self.running[asked])

    def cost(self, price_s: float) -> float:
        """Polls, and seconds of delay at a price, of a job by the schedule that is tried."""
        asked, cost = 0, 0.0
        while asked < self.steps and self.running[asked] > 1e-9:
            again = min(asked + max(round(self.belief.pause_s(asked * self.STEP_S) / self.STEP_S), 1), self.steps)
            cost += self.running[asked] + price_s * self.late_s(asked, again)
            asked = again
        return cost

    def least_cost(self, price_s: float) -> float:
        """The same by the best schedule that there is, found from the end backwards: no pause above 15 s once a job can be done."""
        first = round((self.belief.median_s * math.exp(-3.72 * self.belief.sigma) + 12.0) / self.STEP_S)
        least = [0.0] * (self.steps + 1)
        for asked in range(self.steps - 1, -1, -1):
            latest = min(max(asked + round(15.0 / self.STEP_S), first), self.steps)
            left = self.running[asked]
            least[asked] = left + min(price_s * self.late_s(asked, again) + least[again] for again in range(asked + 1, latest + 1))
        return least[0]


@pytest.mark.parametrize("sigma", [0.15, 0.2, 0.3, 0.5])
def test_no_schedule_is_much_better(sigma: float) -> None:
    """At the price of news that it goes by, polls and delay together cost hardly more than by the best schedule of all."""
    crowd = Crowd(DurationModel(median_s=120.0, sigma=sigma, seen=100))
    # The square-root rule: a pause is best at the root of two over price and rate.
    price_s = 2 / (0.1**2 * 120.0)
    assert crowd.cost(price_s) <= 1.01 * crowd.least_cost(price_s)
