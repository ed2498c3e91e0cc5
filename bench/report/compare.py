#!/usr/bin/env python3
"""compare.py OLD.json NEW.json: what a run of tools/bench has that is worse than in another.

For each figure a two-sided Mann-Whitney U test, exact, ties by mid-ranks. A difference counts if it is

  - significant: p < 0.01;
  - larger than 5 % of the old median; and
  - larger than the spread, the interquartile range of either run.

Else it is none. Two runs of five rounds are the smallest with which p < 0.01 can be (2 in 252), so
fewer are refused. With some hundred figures about one in a hundred would be significant by chance;
what counts besides leaves few of those. Exit code: 0 nothing worse, 1 something is, 2 the files can't
be compared.
"""

import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from results import Results, figures, median, quartile_range  # noqa: E402

SIGNIFICANCE = 0.01
EFFECT = 0.05
ROUNDS_MIN = 5


def mid_ranks_doubled(values):
    """Ranks from 1, times two so that those of ties are whole."""
    ordered = sorted(values)
    return [2 * ordered.index(v) + ordered.count(v) + 1 for v in values]


def mann_whitney_p(one, other):
    """The two-sided p: how often a random split of all values has rank sums as far apart."""
    ranks = mid_ranks_doubled([*one, *other])
    observed = sum(ranks[:len(one)])
    # ways[k][s]: choices of k values whose ranks sum up to s.
    ways = [{0: 1}] + [{} for _ in one]
    for rank in ranks:
        for k in range(len(one), 0, -1):
            for total, count in ways[k - 1].items():
                ways[k][total + rank] = ways[k].get(total + rank, 0) + count
    middle = len(one) * (len(ranks) + 1)  # twice the expected rank sum
    far = sum(count for total, count in ways[len(one)].items()
              if abs(total - middle) >= abs(observed - middle))
    return far / math.comb(len(ranks), len(one))


def judge(old, new, more_is_better):
    """(verdict, change, p); verdict: 'worse', 'better' or 'none'."""
    before, after = median(old), median(new)
    change = after / before - 1 if before else 0.0
    p = mann_whitney_p(old, new)
    counts = (p < SIGNIFICANCE and abs(change) > EFFECT
              and abs(after - before) > max(quartile_range(old), quartile_range(new)))
    if not counts:
        return "none", change, p
    return ("better" if (change > 0) == more_is_better else "worse"), change, p


def compare(old, new):
    """[(name, verdict, line)] of the figures that both have."""
    rows = []
    theirs = figures(new)
    for name, (before, unit, more_is_better) in figures(old).items():
        after = theirs.get(name, ([], unit, more_is_better))[0]
        if not before and not after:
            continue
        if len(before) < ROUNDS_MIN or len(after) < ROUNDS_MIN:
            rows.append((name, "?", f"{len(before)} and {len(after)} values: {ROUNDS_MIN} of each are needed"))
            continue
        verdict, change, p = judge(before, after, more_is_better)
        rows.append((name, verdict, f"{median(before):.4g} → {median(after):.4g} {unit} "
                                    f"({change:+.1%}, p = {p:.3g})"))
    return rows


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        old, new = (Results.read(path) for path in arguments)
    except (OSError, ValueError, KeyError) as error:
        print(f"bench: these are not two results of tools/bench: {error!r}", file=sys.stderr)
        return 2
    if min(old.rounds, new.rounds) < ROUNDS_MIN:
        print(f"bench: {old.rounds} and {new.rounds} rounds: with fewer than {ROUNDS_MIN} of each no "
              "difference can be significant", file=sys.stderr)
        return 2
    rows = compare(old, new)
    for verdict in ("worse", "better", "?"):
        for name, its, line in rows:
            if its == verdict:
                print(f"{verdict:7}{name}: {line}")
    counts = {verdict: sum(1 for row in rows if row[1] == verdict) for verdict in ("worse", "better", "none", "?")}
    print(f"{len(rows)} figures: {counts['worse']} worse, {counts['better']} better, {counts['none']} without a "
          f"difference, {counts['?']} that can't be compared (p < {SIGNIFICANCE}, more than {EFFECT:.0%}, more than the spread)")
    return 1 if counts["worse"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
