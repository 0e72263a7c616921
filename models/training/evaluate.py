"""Measure an embedding on the people that no training saw.

    python evaluate.py FILE.onnx          # one crop a face, cosine, no flip

All same-person pairs of the held-out photos (at most ten photos a person) against 400,000
different-person pairs. Accuracy is balanced (the mean of the true accept and true reject rates)
at a threshold chosen on nine tenths of the pairs and scored on the last tenth, ten times.
Identification: the held-out people with ten photos or more, the first one or three photos
enrolled (mean direction), the photos from the fourth on as probes.
"""

import json
import sys

import numpy as np

import teachers as t

FOLDS = 10


class HeldOut:
    """The held-out photos and their pairs; call it with one embedding per photo."""

    def __init__(self, faces, seed=0):
        rng = np.random.default_rng(seed)
        person, held = faces["person"], faces["held"]
        self.index = np.concatenate([np.where(person == p)[0][:10] for p in np.unique(person[held])])
        self.person = person[self.index]
        a, b = np.triu_indices(len(self.index), 1)
        same = self.person[a] == self.person[b]
        self.same = a[same], b[same]
        different = rng.choice(np.where(~same)[0], 400_000, replace=False)
        self.different = a[different], b[different]
        self.gallery = [p for p in np.unique(self.person) if (self.person == p).sum() >= 10]

    def describe(self):
        return dict(
            photos=len(self.index),
            people=len(np.unique(self.person)),
            n_same=len(self.same[0]),
            n_different=len(self.different[0]),
            gallery=len(self.gallery),
        )

    def __call__(self, embeddings):
        e = t.normalised(embeddings.astype(np.float32))
        same = np.einsum("ij,ij->i", e[self.same[0]], e[self.same[1]])
        different = np.einsum("ij,ij->i", e[self.different[0]], e[self.different[1]])
        result = dict(accuracy=balanced_accuracy(same, different))
        for far in (1e-2, 1e-3, 1e-4):
            threshold = float(np.quantile(different, 1 - far))
            result[f"tar@{far:g}"] = 100 * float((same > threshold).mean())
            result[f"threshold@{far:g}"] = threshold
        for k in (1, 3):
            result[f"rank1_{k}"] = self.rank1(e, k)
        return result

    def match_threshold(self, embeddings, fmr):
        """The cosine at a false match rate over every pair of different people, its FNMR in percent, and the number of pairs."""
        e = t.normalised(embeddings.astype(np.float32))
        a, b = np.triu_indices(len(e), 1)
        different = self.person[a] != self.person[b]
        scores = np.einsum("ij,ij->i", e[a[different]], e[b[different]])
        threshold = float(np.quantile(scores, 1 - fmr))
        same = np.einsum("ij,ij->i", e[self.same[0]], e[self.same[1]])
        return threshold, 100 * float((same < threshold).mean()), len(scores)

    def rank1(self, e, k):
        rows = [np.where(self.person == p)[0] for p in self.gallery]
        gallery = t.normalised(np.stack([e[r[:k]].mean(0) for r in rows]))
        hits = [(e[r[3:]] @ gallery.T).argmax(1) == i for i, r in enumerate(rows)]
        return 100 * float(np.concatenate(hits).mean())


def balanced_accuracy(same, different, seed=0):
    """Percent, with the threshold cross-validated over ten folds of the pairs."""
    rng = np.random.default_rng(seed)
    fold_s, fold_d = rng.integers(0, FOLDS, len(same)), rng.integers(0, FOLDS, len(different))
    grid = np.linspace(-0.2, 1, 601)

    def rate(scores):
        return 1 - np.searchsorted(np.sort(scores), grid, side="right") / len(scores)

    total = 0.0
    for f in range(FOLDS):
        learn = rate(same[fold_s != f]) - rate(different[fold_d != f])
        threshold = grid[learn.argmax()]
        total += (same[fold_s == f] > threshold).mean() + (different[fold_d == f] <= threshold).mean()
    return 100 * float(total) / (2 * FOLDS)


def embed_onnx(path, crops):
    """Embed 144-pixel crops with an exported embedder (input BGR or RGB as its metadata says)."""
    run = t.session(path)
    name = run.get_inputs()[0].name
    out = []
    for crop in crops:
        x = crop[16:-16, 16:-16, ::-1].astype(np.float32)
        x = (x - 127.5) / 127.5
        out.append(run.run(None, {name: x.transpose(2, 0, 1)[None]})[0][0])
    return np.stack(out)


def main():
    work = t.work_dir()
    faces = np.load(work / "faces.npz")
    crops = np.load(work / "crops.npy", mmap_mode="r")
    held = HeldOut(faces)
    print(json.dumps(held.describe()))
    for name in ("foamliu", "retail"):
        print(name, json.dumps(held(faces[name][held.index])))
    for path in sys.argv[1:]:
        embeddings = embed_onnx(path, crops[held.index])
        print(path, json.dumps(held(embeddings)))
        for fmr in (1e-3, 1e-4, 1e-5):
            threshold, fnmr, pairs = held.match_threshold(embeddings, fmr)
            print(f"FMR {fmr:g} of {pairs} pairs: threshold {threshold:.3f}, FNMR {fnmr:.2f} %")


if __name__ == "__main__":
    main()
