#!/usr/bin/env python3
"""Reference figures of `src/evaluation`, from an implementation that shares nothing with the crate: NumPy and SciPy.

    python3 models/reference/make_evaluation.py                       seeded synthetic scores -> tests/golden/evaluation.json

Needs numpy and scipy. Everything is counted in the plainest way, a threshold at a time. Scores are of four digits, so that many are
equal and ties are met.
"""
import json
import pathlib

import numpy as np
from scipy.stats import beta

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "evaluation.json"
SEED = 20_211
FOLDS = 10


def scores(random, mean, deviation, count, low):
    return np.round(np.clip(random.normal(mean, deviation, count), low, 1.0), 4)


def clopper_pearson(count, trials, confidence):
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else beta.ppf(tail, count, trials - count + 1)
    high = 1.0 if count == trials else beta.ppf(1 - tail, count + 1, trials - count)
    return [float(low), float(high)]


def intervals(random):
    cases = [(0, 1), (1, 1), (0, 5000), (5000, 5000), (3, 3000), (1, 100_000), (99_999, 100_000), (500_000, 1_000_000)]
    for _ in range(30):
        trials = int(random.integers(1, 20_000))
        cases.append((int(random.integers(0, trials + 1)), trials))
    return [
        {"count": count, "trials": trials, "confidence": confidence, "interval": clopper_pearson(count, trials, confidence)}
        for count, trials in cases
        for confidence in (0.95, 0.975)
    ]


def rates(mated, non_mated, threshold):
    """FMR and FNMR as counts: accepted at or above the threshold."""
    return int((non_mated >= threshold).sum()), int((mated < threshold).sum())


def lowest_with_at_most(non_mated, target):
    """FMR's count at the lowest threshold where it is at most the target: thresholds just above each score, and below all."""
    candidates = [-2.0] + [value + 1e-6 for value in np.unique(non_mated)]
    fitting = [t for t in candidates if (non_mated >= t).sum() <= target * len(non_mated) + 1e-9]
    return min(fitting)


def balanced_error(mated, non_mated, threshold):
    false_matches, false_non_matches = rates(mated, non_mated, threshold)
    return (false_matches / len(non_mated) + false_non_matches / len(mated)) / 2


def verification(random):
    mated, non_mated = scores(random, 0.55, 0.15, 2_000, -1), scores(random, 0.05, 0.12, 2_400, -1)
    mated_folds, non_mated_folds = np.arange(2_000) % FOLDS, np.arange(2_400) % FOLDS
    every = np.unique(np.concatenate([mated, non_mated]))
    apart = []
    for threshold in [*every, every[-1] + 1]:
        false_matches, false_non_matches = rates(mated, non_mated, threshold)
        apart.append((abs(false_matches / len(non_mated) - false_non_matches / len(mated)), threshold, false_matches, false_non_matches))
    nearest = min(apart)
    at_far = []
    for far in (1e-2, 1e-3, 1e-4):
        false_matches, false_non_matches = rates(mated, non_mated, lowest_with_at_most(non_mated, far))
        at_far.append({"far": far, "false_matches": false_matches, "false_non_matches": false_non_matches})
    parts, false_matches, false_non_matches = [], 0, 0
    for fold in range(FOLDS):
        rest = mated[mated_folds != fold], non_mated[non_mated_folds != fold]
        held_out = mated[mated_folds == fold], non_mated[non_mated_folds == fold]
        occurring = np.unique(np.concatenate(rest))
        candidates = [occurring[0], *((occurring[1:] + occurring[:-1]) / 2), occurring[-1] + 1]
        errors = [balanced_error(*rest, threshold) for threshold in candidates]
        # Rounding must not choose between equals: the lowest of those that are as good as the best.
        best = candidates[int(np.flatnonzero(np.array(errors) <= min(errors) + 1e-12)[0])]
        matches, non_matches = rates(*held_out, best)
        false_matches, false_non_matches = false_matches + matches, false_non_matches + non_matches
        parts.append(1 - balanced_error(*held_out, best))
    return {
        "mated": mated.tolist(),
        "non_mated": non_mated.tolist(),
        "equal_error": {"threshold": float(nearest[1]), "false_matches": nearest[2], "false_non_matches": nearest[3]},
        "at_far": at_far,
        "accuracy": {
            "false_matches": false_matches,
            "false_non_matches": false_non_matches,
            "mean": float(np.mean(parts)),
            "deviation": float(np.std(parts, ddof=1)),
        },
    }


def identification(random):
    mates, others = scores(random, 0.6, 0.15, 1_200, -1), scores(random, 0.25, 0.06, 1_200, -1)
    at_fpir = []
    for fpir in (1e-1, 1e-2, 1e-3):
        threshold = lowest_with_at_most(others, fpir)
        missed = int((~((mates >= threshold) & (mates > others))).sum())
        at_fpir.append({"fpir": fpir, "false_positives": int((others >= threshold).sum()), "false_negatives": missed})
    searches = np.stack([mates, others], axis=1).tolist()
    return {"searches": searches, "hits": int((mates > others).sum()), "at_fpir": at_fpir}


def attack(random):
    bona_fide = scores(random, 0.85, 0.2, 800, 0)
    species = {"mask": scores(random, 0.5, 0.25, 90, 0), "print": scores(random, 0.1, 0.15, 400, 0), "screen": scores(random, 0.3, 0.2, 300, 0)}
    at_apcer = []
    for apcer in (0.1, 0.05, 0.01):
        threshold = max(lowest_with_at_most(attacks, apcer) for attacks in species.values())
        at_apcer.append({"apcer": apcer, "refused": int((bona_fide < threshold).sum())})
    return {
        "bona_fide": bona_fide.tolist(),
        "species": {name: attacks.tolist() for name, attacks in species.items()},
        "threshold": 0.5,
        "refused": int((bona_fide < 0.5).sum()),
        "passed": {name: int((attacks >= 0.5).sum()) for name, attacks in species.items()},
        "at_apcer": at_apcer,
    }


def main():
    random = np.random.default_rng(SEED)
    parts = {"intervals": intervals(random), "verification": verification(random), "identification": identification(random), "attack": attack(random)}
    GOLDEN.write_text(json.dumps({"seed": SEED, **parts}, separators=(",", ":")).replace('"verification"', '\n"verification"').replace('"identification"', '\n"identification"').replace('"attack"', '\n"attack"') + "\n")


if __name__ == "__main__":
    main()
