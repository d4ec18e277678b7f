"""TuneMaster: freeze-thaw over a pool of configurations, chosen by a learning-curve model, warm-started by earlier studies.

Each move goes to the configuration, new or paused, with the largest chance to become one of the best of the pool per step that finding out
costs (`worth`), and trains it to its next rung only. With history two experts are asked, one that hears it and one that does not, and their
chances are averaged: what either is sure of is tried (74 against 53 for the one that hears). The one that hears loses its say by as much as
the looks speak against it, so that history turned upside down costs little. A tenth of the steps buys first looks at random configurations,
so that models that are both wrong cost a bounded share. The constants were chosen on three of the six benchmark tables
(tests/benchmarks/bench_tune.py names them); figures here are times fewer steps than random search on those three, over eight seeds.

Tried and left out: four models of jittered hyper-parameters instead of one (cold 34 against 43), turns between the two experts (58).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.tuning import curves, worth
from autoglm_ops.tuning.curves import Array, Posterior
from autoglm_ops.tuning.expert import Expert
from autoglm_ops.tuning.moves import Continue, Move, Start, Stop, View, ending, following
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.transfer import Earlier, promise, winner

COLD, WARM = 16, 4
"""First looks at random configurations before the model is asked, without and with history. 8 and 2 were no better."""
WINNERS = 1
"""Of so many of the newest studies heard the best settings are looked at before all but the present ones. On the six tables, eight seeds,
where the nearest candidates stand for them: 80 times fewer steps than random search against 76 without, 46 against 33 on the worst task (all
five studies': 80 and 50, three seeds). Of 27 configurations that history has looked at itself: 7.9 against 5.9, each look priced."""
EXPLORE = 0.1
MANY, SHORT = 150, 128
"""From so many values on only the configurations of lowest expected loss are weighed, so many of each expert: time, not quality."""

Cost = Callable[[Mapping[str, Any]], float]


class TuneMaster:
    """A `Strategy`. `first`: configurations to look at before all others (the present settings). `cost` of one step, in any unit.
    `reasons`: what became of the earlier studies."""

    def __init__(
        self,
        pool: Pool,
        rungs: Sequence[int],
        *,
        seed: int,
        first: Sequence[Mapping[str, Any]] = (),
        earlier: Sequence[Earlier] = (),
        cost: Cost = lambda choices: 1.0,
    ) -> None:
        self._pool, self._rungs = pool, tuple(rungs)
        present = [pool.row(choices) for choices in first]
        best = [pool.row(found) if (found := winner(pool.space, study)) else None for study in earlier]
        self._order = np.random.default_rng((seed, 9)).permutation(pool.offered).tolist()
        self._costs = np.log([cost(choices) for choices in pool.choices])
        promised, self.reasons = promise(pool, earlier, seed)
        heard = [row for place in promised.heard if (row := best[place]) is not None] if promised else []
        self._first = list(dict.fromkeys([*present, *heard[:WINNERS]]))
        self._least = WARM if promised else COLD
        self._experts = [Expert(pool, self._rungs, seed, COLD)]
        if promised:
            self._experts.append(Expert(pool, self._rungs, seed, WARM, promised))

    def next(self, view: View) -> Move:
        if end := ending(view, self._rungs):
            return end
        rows = [self._pool.row(trial.choices) for trial in view.trials]
        fresh = self._fresh(view, set(rows))
        if fresh is not None:
            return Start(choices=self._pool.choices[fresh], to=self._rungs[0], why="a first look")
        return self._best(view, rows)

    def _fresh(self, view: View, taken: set[int]) -> int | None:
        """A row to look at whatever the model says: the first ones, then random ones while few are known or exploring has its share."""
        if len(view.trials) >= view.budget:
            return None
        if len(view.trials) < len(self._first):
            return self._first[len(view.trials)]
        blind = self._blind(taken)
        known = any(trial.curve for trial in view.trials)
        if blind is None or (
            known and len(view.trials) >= self._least and EXPLORE * sum(t.step for t in view.trials) <= blind * self._rungs[0]
        ):
            return None
        return int(self._order[blind])

    def _blind(self, taken: set[int]) -> int | None:
        """Where the random order was followed to; None when it is at its end."""
        return next((place for place, row in enumerate(self._order) if row not in taken), None)

    def _best(self, view: View, rows: list[int]) -> Move:
        """The configuration of most chance per cost."""
        trained = dict(zip(rows, view.trials, strict=True))
        paused = [row for row, trial in trained.items() if trial.idle and trial.step < view.steps]
        new = [row for row in range(self._pool.offered) if row not in trained] if len(view.trials) < view.budget else []
        asked = np.array([*paused, *new], dtype=np.int64)
        if not len(asked):
            return Stop(why="every configuration is trained")
        step = np.array([trained[row].step if row in trained else 0 for row in asked])
        chosen = int(asked[int(np.argmax(self._worth(view, rows, asked, step)))])
        if chosen not in trained:
            return Start(choices=self._pool.choices[chosen], to=self._rungs[0], why="the model expects most of it")
        trial = trained[chosen]
        return Continue(trial=trial.number, to=following(self._rungs, trial.step), why="the model expects most of it")

    def _worth(self, view: View, rows: list[int], asked: NDArray[np.int64], step: NDArray[np.int64]) -> Array:
        """Logarithm of the chance per cost of each asked row that came to `step`; -inf for those that no expert puts on its short list."""
        known = [expert.posterior(view, rows) for expert in self._experts]
        short = self._short(known, asked)
        listed, step = asked[short], step[short]
        after = np.array([following(self._rungs, at) for at in step])
        ends, times = np.ones(len(listed)), curves.log_time(after, view.steps)
        beliefs = [
            curves.foresee(posterior, expert.points(listed, ends), expert.points(listed, times))
            for expert, (posterior, _) in zip(self._experts, known, strict=True)
        ]
        best = min(best for _, best in known)
        weights = _weights([posterior.evidence for posterior, _ in known])
        goal = worth.target(beliefs, weights, best, worth.TOP * self._pool.offered)
        first, rest = (after - step).astype(float), (view.steps - after).astype(float)
        heard = [
            worth.index(goal, belief, first, rest) + np.log(max(weight, 1e-300))
            for belief, weight in zip(beliefs, weights, strict=True)
        ]
        chances = np.logaddexp.reduce(heard, axis=0)
        result = np.full(len(asked), -np.inf)
        result[short] = chances - self._costs[listed]
        return result

    def _short(self, known: list[tuple[Posterior, float]], asked: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in `asked` that are weighed: all while little is known."""
        if len(known[0][0].weights) <= MANY:
            return np.arange(len(asked))
        ends = np.ones(len(asked))
        means = [
            curves.means(posterior, expert.points(asked, ends))
            for expert, (posterior, _) in zip(self._experts, known, strict=True)
        ]
        return np.unique([np.argsort(mean, kind="stable")[:SHORT] for mean in means])


def _weights(evidence: list[float]) -> Array:
    """History counts as much as its absence, and less by as much as the looks speak against it; never more."""
    against = np.exp([min(0.0, one - evidence[0]) for one in evidence])
    return np.asarray(against / against.sum())
