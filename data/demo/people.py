"""The demo people: who they are, how a draw is accepted, and their enrolment photos.

    python people.py            # photos of everyone into people/<id>/
    python people.py candidates # a sheet of accepted draws for each person, to choose from

A draw is accepted when no photo of LFW comes closer than LIMIT in cosine, neither for foamliu nor
for retail-0095: no closer than the nearest stranger is to half of the real people. The number of
the chosen draw is fixed below, so the photos come out the same without another search. The draws were
chosen together, so that no two people come closer than APART for either network.
"""
from dataclasses import dataclass
from functools import lru_cache
import glob
import sys

import cv2
import numpy as np

import networks as nets
from face_model import FaceModel, seed_of
from figure import Figure, Look, Pose
from render import Light
from scene import DAY, portrait

LIMIT = .41
APART = .30
PHOTOS = 4
SIZE = 300


@dataclass
class Person:
    id: str
    sex: float
    tone: float
    draw: int
    look: Look
    spread: float = 1.2


def _look(hair, colour, coat, style="jacket", **more):
    return Look(hair=hair, hair_colour=colour, coat=coat, style=style, **more)


PEOPLE = [
    Person("person-a", -1.0, .5, 11, _look("short", (28, 36, 48), (92, 62, 40), "jacket", iris=(60, 90, 100))),
    Person("person-b", -1.0, .2, 0, _look("cropped", (22, 24, 28), (60, 62, 66), "jumper", iris=(40, 60, 80), tall=4)),
    Person("person-c", 2.2, .6, 18, _look("long", (40, 72, 112), (84, 110, 70), "coat", build=.88, tall=-7, iris=(110, 110, 80))),
    Person("person-d", -1.0, -2.0, 18, _look("cropped", (14, 14, 16), (120, 86, 60), "jumper", iris=(24, 34, 48), tall=6)),
    Person("person-e", 2.2, -1.8, 19, _look("bun", (16, 16, 18), (60, 60, 130), "coat", build=.86, tall=-6, iris=(22, 32, 46))),
    Person("person-f", -.8, .8, 20, _look("receding", (96, 100, 104), (50, 50, 52), "jacket", grey=.8, glasses=True, iris=(120, 110, 80))),
    Person("person-g", 2.2, .9, 8, _look("medium", (130, 138, 142), (110, 80, 110), "jumper", grey=.9, build=.9, tall=-9, iris=(110, 110, 90))),
    Person("person-h", -1.0, -.6, 23, _look("short", (16, 18, 20), (46, 80, 96), "coat", iris=(30, 44, 60), tall=2)),
    Person("person-i", 2.0, -.3, 21, _look("long", (20, 20, 24), (40, 44, 90), "jacket", build=.85, tall=-8, iris=(30, 42, 58))),
    Person("person-j", -1.0, .3, 6, _look("bald", (40, 44, 50), (74, 84, 78), "jacket", iris=(90, 100, 80), tall=3)),
    Person("person-k", 2.2, .4, 6, _look("medium", (34, 52, 100), (150, 140, 120), "jacket", build=.87, tall=-5, glasses=True, iris=(50, 90, 90))),
    Person("person-l", -1.0, .6, 15, _look("short", (46, 84, 140), (96, 58, 84), "jumper", iris=(130, 120, 90), tall=5)),
    Person("person-m", -1.0, -1.4, 12, _look("short", (60, 62, 64), (70, 66, 60), "jacket", grey=.55, iris=(26, 36, 50))),
    Person("person-n", 2.2, .7, 23, _look("bun", (60, 120, 170), (50, 90, 60), "jumper", build=.88, tall=-4, iris=(140, 120, 90))),
]


@lru_cache(maxsize=None)
def model():
    return FaceModel()


def coefficients(person, draw=None):
    draw = person.draw if draw is None else draw
    return model().draw(seed_of("person", person.id, draw), person.sex, person.tone, person.spread)


@lru_cache(maxsize=None)
def figure(id):
    person = next(p for p in PEOPLE if p.id == id)
    return Figure(model(), coefficients(person), id, person.look)


def real_embeddings():
    """Embeddings of every LFW photo with a face (foamliu, retail-0095, file), cached outside git."""
    store = nets.CACHE / "lfw_embeddings.npz"
    if not store.exists():
        foam, retail, file = [], [], []
        root = nets.SHARED / "faces/lfw/images"
        for path in sorted(glob.glob(str(root / "*" / "*.jpg"))):
            image = cv2.imread(path)
            found = nets.detect(image)
            if not len(found):
                continue
            middle = np.abs(found[:, :4].reshape(-1, 2, 2).mean(1) - 125).sum(1)
            a, b = nets.embed(image, found[middle.argmin(), 5:])
            foam.append(a)
            retail.append(b)
            file.append(path[len(str(root)) + 1:])
        np.savez(store, foam=np.float32(foam), retail=np.float32(retail), photo=np.array(file))
    data = np.load(store)
    return data["foam"], data["retail"], data["photo"]


def shots(figure, count, size=SIZE):
    """Enrolment photos of a figure: the first plain, the others with other light, turn, expression."""
    random = seed_of("shots", figure.name)
    out = []
    for i in range(count):
        yaw, pitch, roll = (0, 0, 0) if i == 0 else (random.uniform(-14, 14), random.uniform(-5, 6), random.uniform(-4, 4))
        pose = Pose(z=random.uniform(80, 95), y=0, x=random.uniform(-4, 4), yaw=yaw, pitch=pitch, roll=roll,
                    body=yaw * .4, mouth=0 if i == 0 else random.uniform(0, .7), smile=0 if i == 0 else random.uniform(-.2, 1.0))
        light = DAY
        if i:
            strong = random.uniform(.75, 1.1)
            warm = random.uniform(-.06, .06)
            light = Light(np.float32([.56 - warm, .56, .56 + warm]) * strong,
                          np.float32([[random.uniform(-1, 1), random.uniform(-1, -.3), -1], [random.uniform(-1, 1), -.2, -.6]]),
                          np.float32([[.44, .44, .44], [.14, .14, .14]]) * strong)
        wall = np.float32(random.uniform(120, 205)) + np.float32(random.uniform(-14, 14, 3))
        ys, xs = np.mgrid[:720, :1280].astype(np.float32)
        back = wall * (1 + .12 * (xs / 1280 - .5) * random.uniform(-1, 1) - .15 * (ys / 720 - .5))[..., None]
        face = random.uniform(.40, .48) * size
        photo, truth, m = portrait(figure, pose, light, back, size, face)
        photo = photo + seed_of("grain", figure.name, i).standard_normal(photo.shape) * 1.5
        out.append(np.clip(photo + .5, 0, 255).astype(np.uint8))
    return out


def face_of(image):
    """Embeddings and score of the largest face."""
    found = nets.detect(image)
    if not len(found):
        return None
    row = found[(found[:, 2] - found[:, 0]).argmax()]
    return (*nets.embed(image, row[5:]), float(row[4]))


def candidates(count=8, tries=40):
    foam, retail, _ = real_embeddings()
    rows, kept = [], []
    for person in PEOPLE:
        row, tried = [], 0
        for draw in range(tries):
            f = Figure(model(), coefficients(person, draw), person.id, person.look)
            image = shots(f, 1)[0]
            e = face_of(image)
            tried += 1
            if e is None or e[2] < .9:
                continue
            near = float((foam @ e[0]).max()), float((retail @ e[1]).max())
            if max(near) > LIMIT - .01:
                continue
            cv2.putText(image, f"{draw} {near[0]:.2f} {near[1]:.2f}", (4, 14), 0, .5, (0, 0, 200), 1)
            row.append(image)
            if len(row) == count:
                break
        print(person.id, "accepted", len(row), "of", tried, flush=True)
        row += [np.zeros((SIZE, SIZE, 3), np.uint8)] * (count - len(row))
        rows.append(np.hstack(row))
    for i in range(0, len(rows), 5):
        cv2.imwrite(str(nets.CACHE / f"candidates_{i // 5}.png"), np.vstack(rows[i:i + 5]))


def write_photos():
    for person in PEOPLE:
        folder = nets.HERE / "people" / person.id
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jpg"):
            old.unlink()
        for i, image in enumerate(shots(figure(person.id), PHOTOS)):
            cv2.imwrite(str(folder / f"{person.id}_{i + 1:04d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 88])
        print(person.id, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["candidates"]:
        candidates()
    else:
        write_photos()
