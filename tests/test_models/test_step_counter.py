import pytest
from mmengine.logging import MessageHub

from mmfeatjnd.functional import step_seed
from mmfeatjnd.models.step_counter import StepCounter


@pytest.fixture
def at_step():
    """What a Runner tells everybody: the number of the step."""
    yield lambda step: MessageHub.get_instance('run').update_info('iter', step)
    MessageHub._instance_dict.clear()


def draw(counter, calls):
    return [counter.next_seed() for _ in range(calls)]


def test_seeds_belong_to_steps_and_calls(at_step):
    counter = StepCounter()
    for step, calls in ((0, 2), (1, 1), (2, 3)):
        at_step(step)
        assert draw(counter, calls) == [
            step_seed(step, call) for call in range(calls)]
    assert counter.next_seed(5) == step_seed(2, 3, 5)


def test_a_resumed_training_draws_what_the_other_did(at_step):
    """Whatever was drawn before, and of a counter that knows nothing."""
    counter = StepCounter()
    drawn = {}
    for step in range(4):
        at_step(step)
        drawn[step] = draw(counter, 2)
    assert len({s for pair in drawn.values() for s in pair}) == 8
    resumed = StepCounter()
    for step in (2, 3):
        at_step(step)
        assert draw(resumed, 2) == drawn[step]
    # a step that is done again, as after a validation in between
    at_step(1)
    assert draw(counter, 2) == drawn[1]


def test_nobody_counts():
    """Without a Runner, all draws differ, and begin alike."""
    MessageHub._instance_dict.clear()
    counter = StepCounter()
    seeds = draw(counter, 5)
    assert seeds == [step_seed(None, call) for call in range(5)]
    assert draw(StepCounter(), 5) == seeds
