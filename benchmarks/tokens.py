"""Rows of raw features quantized token by token, for
benchmarks/quantization.py: the protocol of the FeatJND paper."""
from typing import List, Sequence

from codes import DRAWS
from common import SEEDS, CurveBenchmark

from mmfeatjnd.apis import measure_rates
from mmfeatjnd.evaluation.rows import is_clean

MEAN_BITS = (0.4, 0.55, 0.7, 0.85, 1.1, 1.5)
NOISE_BUDGETS = (0.3, 0.45, 0.6)
POLICIES = {
    'featjnd': 'featjnd',
    'permuted-steps': 'permuted-steps',
    'one-step': 'one-step',
    # the same with another map
    'token-map-static': dict(type='token-map', map='static'),
    'token-map-fisher': dict(type='token-map', map='fisher'),
    'range': 'range',
    'gradient': 'gradient',
    'water-filling': 'water-filling',
}


def rows_of_tokens(benchmark: CurveBenchmark, policies: Sequence[str],
                   mean_bits: Sequence[float],
                   noise_budgets: Sequence[float]) -> List[dict]:
    """The rows of step policies at several rates and noise budgets.

    Args:
        benchmark (CurveBenchmark): Whose.
        policies (Sequence[str]): Names in ``POLICIES``.
        mean_bits (Sequence[float]): See :func:`measure_rates`.
        noise_budgets (Sequence[float]): Likewise.
    """
    rows: List[dict] = []
    estimators = benchmark.estimators('featjnd', {})
    for name in policies:
        policy = {name: POLICIES[name]}
        rows += benchmark.measure(
            f'tokens_{name}',
            lambda cfg, host, files: measure_rates(
                cfg, host, policy, mean_bits, noise_budgets, SEEDS, files,
                split=benchmark.split, nats=True, draws=DRAWS),
            estimators, defined=policy, mean_bits=list(mean_bits),
            noise_budgets=list(noise_budgets))
    return [row if is_clean(row) else dict(row, place='tokens')
            for row in rows if of_all_seeds(row, rows)]


def of_all_seeds(row: dict, rows: Sequence[dict]) -> bool:
    """Whether other seeds could take as many bits, too."""
    others = [r for r in rows if r['policy'] == row['policy']]
    alike = [r for r in others if all(
        r.get(key) == row.get(key) for key in ('mean_bits', 'noise_budget'))]
    return len({r.get('seed') for r in alike}) == len(
        {r.get('seed') for r in others})
