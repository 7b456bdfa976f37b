from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.request import MAX_SEED
from leadline.server.make_generation import choice_seed

seeds = st.integers(0, MAX_SEED)
prompts = st.lists(st.integers(0, 2**17), min_size=1, max_size=8)


@given(seeds, prompts)
def test_the_first_choice_has_the_request_s_seed(seed: int, prompt_ids: list[int]) -> None:
    assert choice_seed(seed, prompt_ids, 0) == seed


@given(seeds, prompts, st.integers(1, 127))
def test_the_others_depend_on_seed_prompt_and_choice(
    seed: int, prompt_ids: list[int], choice: int
) -> None:
    made = choice_seed(seed, prompt_ids, choice)
    assert 0 <= made <= MAX_SEED
    assert made == choice_seed(seed, list(prompt_ids), choice)
    assert made != choice_seed(seed ^ 1, prompt_ids, choice)
    assert made != choice_seed(seed, [*prompt_ids, 0], choice)
    assert made != choice_seed(seed, prompt_ids, choice + 1)


def test_choice_seeds_stay_what_they_are() -> None:
    # A change would give other answers to requests that were sent with a seed.
    assert choice_seed(42, [1, 2, 3], 1) == 9277862054323496081
