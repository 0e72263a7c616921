"""Make faces of nobody that the teachers label: more people than the photos show.

    python synthetic.py mixtures --count 240000     # two training photos, bent and mixed
    python synthetic.py generated --count 40000     # draws of the demo's face model on a photo's background

A student that sees only the photos learns them by heart. What the teachers say of a face that is
nobody's is as good a lesson as what they say of a photo (Beyer et al., "Knowledge distillation: a
good teacher is patient and consistent", 2022): the teachers see the very picture, and the student
sees it augmented. Only photos of people in training are used, and the face model is built without
the people held out.

Writes `mixtures/NNN.npz` and `generated/NNN.npz`, parts of 4,000 pictures, under FACEID_TRAIN_DIR: the
144-pixel crops as JPEG one after the other, their ends, and the teachers' embeddings of the crop as it
stands (no mirror image). A part is a function of the seed and its number; a stopped run goes on.
"""

import argparse
import multiprocessing
import os
import sys
from pathlib import Path

import cv2
import numpy as np

import teachers as t

SEED = 41
SIDE = 144  # the crops of prepare.py: the 112-pixel template and 16 pixels around it
PART, BATCH = 4000, 16
PROCESSES = 2
QUALITY = 95


def smooth_field(rng, knots, size=SIDE):
    """A smooth random surface of unit deviation at its knots×knots knots."""
    return cv2.resize(rng.standard_normal((knots, knots)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def bend(crop, rng, strength):
    """Other proportions: the face stretched along its axes and bent by up to a few pixels, smoothly."""
    ys, xs = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    middle = (SIDE - 1) / 2
    wide, tall = np.exp(rng.normal(0, 0.035, 2))
    x = (xs - middle) * wide + middle + strength * smooth_field(rng, 5)
    y = (ys - middle) * tall + middle + strength * smooth_field(rng, 5)
    return cv2.remap(crop, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def like(b, a):
    """`b` with the means and deviations of `a`'s colours in the middle of the face."""
    inside = np.s_[40:-24, 36:-36]
    ma, sa = cv2.meanStdDev(a[inside])
    mb, sb = cv2.meanStdDev(b[inside])
    return np.clip((b - mb.T) * (sa.T + 1) / (sb.T + 1) + ma.T, 0, 255)


class Mixtures:
    """Two photos of different people, bent, and mixed evenly or region by region."""

    def __init__(self, crops, faces):
        self.crops, self.person = crops, faces["person"]
        self.train = np.where(~faces["held"])[0]

    def __call__(self, rng):
        i, j = rng.choice(self.train, 2, replace=False)
        while self.person[i] == self.person[j]:
            j = rng.choice(self.train)
        a, b = (self.crops[k][:, ::-1] if rng.random() < 0.5 else self.crops[k] for k in (i, j))
        a, b = (bend(np.ascontiguousarray(c), rng, rng.uniform(0.3, 1.6)).astype(np.float32) for c in (a, b))
        if rng.random() < 0.7:
            b = like(b, a)
        if rng.random() < 0.45:
            share = np.float32(rng.uniform(0.3, 0.7))
        else:
            share = 1 / (1 + np.exp(-rng.uniform(1, 6) * smooth_field(rng, int(rng.integers(3, 6)))))
            share = share[..., None]
        return np.clip(a * share + b * (1 - share) + 0.5, 0, 255).astype(np.uint8)


class Generated:
    """Draws of the demo's face model with an expression and light from the side, in place of a photo's face."""

    def __init__(self, crops, faces):
        sys.path.insert(0, str(t.REPOSITORY / "data/demo"))
        import face_model

        held = set((Path(__file__).parent / "held_out.txt").read_text().split())
        self.model = face_model.FaceModel(t.work_dir() / "face_model.npz", lambda photo: photo.split("/")[0] not in held)
        self.tps = face_model.tps
        self.crops, self.train = crops, np.where(~faces["held"])[0]
        inside = cv2.erode(self.model.skin_mask, np.ones((15, 15), np.uint8)).astype(np.float32)
        self.inside = cv2.GaussianBlur(inside, (0, 0), 3)
        steps = np.linspace(0, SIDE - 1, 19)
        self.grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)

    def __call__(self, rng):
        model = self.model
        sex, tone = rng.normal(0, 1.4), rng.normal(0, 1.3)
        z = model.draw(rng, sex, tone, rng.uniform(0.9, 1.3))
        z = model.posed(z, mouth=rng.normal(0, 1), smile=rng.normal(0, 1), eyes=rng.normal(0.2, 0.6), nod=rng.normal(0, 1))
        face = model.face(z, 0.8 * rng.standard_normal(len(model.side_sd)))
        p = np.float64(face.points) + rng.normal(0, 0.7, (68, 2))
        five = np.stack([p[36:42].mean(0), p[42:48].mean(0), p[30], p[48], p[54]])
        back = t.umeyama(t.ARCFACE_112.astype(np.float64) + 16, five)
        at = self.grid @ back[:, :2].T + back[:, 2]
        places = self.tps(p, at, 1e-2) @ model.mean_points
        x, y = (cv2.resize(places[:, k].reshape(19, 19).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for k in (0, 1))
        skin = cv2.remap(face.texture.astype(np.float32), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        share = cv2.remap(self.inside, x, y, cv2.INTER_LINEAR)[..., None]
        donor = bend(self.crops[rng.choice(self.train)], rng, 1.0).astype(np.float32)
        if rng.random() < 0.5:
            skin = like(skin, donor)
        else:
            donor = like(donor, skin)
        return np.clip(skin * share + donor * (1 - share) + 0.5, 0, 255).astype(np.uint8)


KINDS = {"mixtures": Mixtures, "generated": Generated}


def make_part(kind, number):
    """Make, label and write one part, whole or not at all."""
    cv2.setNumThreads(1)
    work = t.work_dir()
    make = KINDS[kind](np.load(work / "crops.npy", mmap_mode="r"), dict(np.load(work / "faces.npz")))
    label = t.BatchedTeachers(BATCH)
    rng = np.random.default_rng((SEED, list(KINDS).index(kind), number))
    pictures, ends, retail, foamliu, size = [], [], [], [], 0
    for _ in range(PART // BATCH):
        crops = [make(rng) for _ in range(BATCH)]
        for crop in crops:
            data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].reshape(-1)
            size += len(data)
            pictures.append(data)
            ends.append(size)
        a, b = label(crops)
        retail.append(a)
        foamliu.append(b)
    path = work / kind / f"{number:03}.npz"
    unfinished = path.with_suffix(".part.npz")
    np.savez(
        unfinished,
        jpeg=np.concatenate(pictures),
        ends=np.array(ends),
        retail=np.concatenate(retail).astype(np.float16),
        foamliu=np.concatenate(foamliu).astype(np.float16),
    )
    os.replace(unfinished, path)
    print(path.name, flush=True)


class Pool:
    """All parts of a kind: pictures by number, and the teachers' embeddings."""

    def __init__(self, kind, parts=None):
        paths = sorted((t.work_dir() / kind).glob("???.npz"))[:parts]
        if not paths:
            raise SystemExit(f"make the pictures first: python synthetic.py {kind}")
        self.parts = [dict(np.load(p)) for p in paths]
        self.retail = np.concatenate([p["retail"] for p in self.parts]).astype(np.float32)
        self.foamliu = np.concatenate([p["foamliu"] for p in self.parts]).astype(np.float32)

    def __len__(self):
        return len(self.retail)

    def __getitem__(self, i):
        part, k = self.parts[i // PART], i % PART
        begin = part["ends"][k - 1] if k else 0
        return cv2.imdecode(part["jpeg"][begin : part["ends"][k]], cv2.IMREAD_COLOR)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=40_000)
    args = parser.parse_args()
    folder = t.work_dir() / args.kind
    folder.mkdir(exist_ok=True)
    if args.kind == "generated":
        Generated(np.zeros((1, SIDE, SIDE, 3), np.uint8), dict(held=np.array([False])))  # builds the model once
    todo = [(args.kind, n) for n in range(-(-args.count // PART)) if not (folder / f"{n:03}.npz").exists()]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        pool.starmap(make_part, todo, chunksize=1)


if __name__ == "__main__":
    main()
