"""A statistical model of face shape and skin, built over LFW and sampled for people who do not exist.

Shape: 68 points in a frame where the eyes and jaw of the mean face have fixed places. Texture:
the face warped to the mean shape. Both are made symmetric (a photo and its mirror image count as
one), which removes most of the light and pose from the modes. Their principal components are put
together, so that shape and skin of a draw belong together (Cootes, Edwards & Taylor, "Active
appearance models", 1998).

One Gaussian over LFW gives mostly middle-aged men of light skin, so draws are moved along two fitted
directions: sex (from the first names of the photos' people) and skin tone (from the cheeks). An open
mouth, a smile, open eyes and a nod are fitted on the points in the same way, so that a person can be
drawn neutral and then given expressions.

The model is made from real photos and stays in the cache folder, outside git.
"""
from dataclasses import dataclass, field
import glob
import hashlib
import time

import cv2
import numpy as np
from scipy.spatial.distance import cdist

import networks as nets

SIZE = 208              # side of the texture frame
JAW = 120.0             # width of the mean face in it, ear to ear
CENTRE = (104.0, 92.0)  # where the middle between the eyes of the mean face lies
PHOTOS = 2600           # photos in the model, each of another person as far as they go
SHAPE_MODES, TEXTURE_MODES, SIDE_MODES, JOINT_MODES = 24, 180, 12, 140
FILE = "face_model.npz"

# First names that tell the sex of a photo's person, for one direction of the model.
FEMALE = ("Amanda Amelie Amy Angela Ann Anna Anne Annette Ashley Barbara Beth Betty "
          "Carla Carmen Carol Carolina Caroline Catherine Charlotte Christina Christine Cindy Claire Claudia "
          "Cristina Debra Denise Diana Diane Donna Dolores Elena Elizabeth Ellen Emily Emma Erika Eva Gloria Hannah "
          "Heather Helen Hillary Holly Jane Janet Jennifer Jessica Joan Julia Julianne Julie Karen Kate Katherine "
          "Kathleen Katie Kelly Kim Kristen Laura Lauren Linda Lisa Lucy Margaret Maria Marie Martha Mary "
          "Megan Melissa Meryl Michelle Monica Nancy Naomi Natalie Natasha Nicole Pamela Patricia Paula Penelope Rachel "
          "Rebecca Renee Rosa Salma Sandra Sarah Serena Sharon Sheryl Sophia Stephanie Susan Teresa Tina Venus Victoria "
          "Vanessa Yoko").split()
MALE = ("Abdullah Adam Adrian Alan Albert Alejandro Alex Ali Andre Andrew Andy Anthony Antonio Ariel Arthur Ben Bill "
        "Bob Brad Brian Bruce Carlos Charles Charlie Chris Colin Craig Dan Daniel Dave David Dennis Dick Don Donald Doug "
        "Ed Edward Eric Felipe Fernando Frank Fred Gary George Gordon Greg Guillermo Hans Harry Henry Howard Hugo Ian "
        "Jack Jacques James Jason Jean Jeff Jeremy Jim Jimmy Joe John Jorge Jose Joseph Juan Keith Ken Kevin Larry Lee "
        "Luis Mario Mark Martin Matt Matthew Michael Mike Mohammed Nick Oscar Patrick Paul Pedro Peter Phil Ralph Ray Ricardo "
        "Richard Rick Robert Roger Ron Roy Rudolph Scott Sean Steve Steven Ted Tim Tom Tommy Tony Vladimir Walter William").split()

# Which point lies across the face from each of the 68.
MIRROR = np.array(list(range(16, -1, -1)) + list(range(26, 16, -1)) + [27, 28, 29, 30]
                  + [35, 34, 33, 32, 31] + [45, 44, 43, 42, 47, 46] + [39, 38, 37, 36, 41, 40]
                  + [54, 53, 52, 51, 50, 49, 48] + [59, 58, 57, 56, 55]
                  + [64, 63, 62, 61, 60] + [67, 66, 65])


def mirror_points(p):
    """Mirrors points across the vertical middle of the texture frame."""
    q = p[..., MIRROR, :].copy()
    q[..., 0] = 2 * CENTRE[0] - q[..., 0]
    return q


def crown(p):
    """Sixteen points on the skull above a face, from its 68: forehead, temples and crown."""
    left, right, chin = p[..., 0, :], p[..., 16, :], p[..., 8, :]
    eye = p[..., 36:48, :].mean(-2)
    middle = (left + right) / 2
    up = eye - chin
    half = (right - left) / 2
    rows = []
    for angle in np.linspace(0, np.pi, 11):
        c, s = np.cos(angle), np.sin(angle)
        wide = 1.05 if 0 < angle < np.pi else 1.0
        rows.append(middle + half * wide * np.sign(c) * abs(c) ** .9 + up * 1.0 * s ** .85)
    for k in (-.5, -.25, 0, .25, .5):
        rows.append(eye + half * k * 1.4 + up * .58)
    return np.stack(rows, -2)


def tps(source, at, stiffness=1e-3):
    """Matrix that carries values at `source` points to `at` points by a thin-plate spline."""
    def kernel(a, b):
        r2 = cdist(a, b, "sqeuclidean")
        return r2 * np.log(r2 + 1e-9)
    n = len(source)
    source, at = np.float64(source) / 100, np.float64(at) / 100
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = kernel(source, source) + stiffness * np.eye(n)
    system[:n, n] = system[n, :n] = 1
    system[:n, n + 1:] = source
    system[n + 1:, :n] = source.T
    right = np.linalg.inv(system)[:, :n]
    return np.hstack([kernel(at, source), np.ones((len(at), 1)), at]) @ right


@dataclass
class Face:
    """One draw: coefficients and what they stand for."""
    joint: np.ndarray
    points: np.ndarray = field(repr=False)
    texture: np.ndarray = field(repr=False)


class FaceModel:
    """Loads the model from the cache, building it first where it is missing.

    Training builds one of its own in `path`, of the photos that `keep` says yes to."""

    def __init__(self, path=nets.CACHE / FILE, keep=lambda photo: True):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **build(keep))
        data = np.load(path)
        for key in data.files:
            setattr(self, key, data[key])
        self.skin_mask = texture_mask(self.mean_points)
        self._learn_attributes()

    def _learn_attributes(self):
        """Fits linear functions of the coefficients, and the direction that changes each alone."""
        z, s = self.scores, self.shapes
        span = s[:, 45, 0] - s[:, 36, 0]
        known = np.stack([(s[:, 66, 1] - s[:, 62, 1]) / span,
                          (s[:, 54, 0] - s[:, 48, 0]) / span,
                          (s[:, [40, 41, 46, 47], 1].mean(1) - s[:, [37, 38, 43, 44], 1].mean(1)) / span,
                          (s[:, 33, 1] - s[:, 27, 1]) / (s[:, 8, 1] - s[:, 33, 1]),
                          self.tone], 1)
        known = (known - known.mean(0)) / known.std(0)
        first = np.array([str(f).split("_")[0] for f in self.used])
        label = np.where(np.isin(first, FEMALE), 1.0, np.where(np.isin(first, MALE), -1.0, 0.0))
        named = label != 0
        weight = np.where(label > 0, 1 / (label > 0).sum(), 1 / (label < 0).sum())[named]
        def fit(x, y, w, ridge):
            return np.linalg.solve((x * w[:, None]).T @ x + ridge * np.eye(x.shape[1]), (x * w[:, None]).T @ y)
        one = np.full(len(z), 1 / len(z))
        rows = [fit(z, known[:, i], one, .002) for i in range(known.shape[1])]
        rows.append(fit(z[named], label[named], weight / 2, .05))
        self.attribute_of = np.stack(rows)
        fitted = z @ self.attribute_of.T
        self.attribute_of /= fitted.std(0)[:, None]
        fitted /= fitted.std(0)
        self.attribute_move = (z.T @ fitted) @ np.linalg.inv(fitted.T @ fitted)
        # A closed mouth, a slight smile, open eyes, looking straight ahead.
        self.neutral = np.array([np.percentile(fitted[:, 0], 15), np.percentile(fitted[:, 1], 30), .3, 0.0])
        w, v = np.linalg.eigh(np.cov(z.T))
        self.root = v * np.sqrt(np.clip(w, 0, None))

    def draw(self, random, sex, tone, spread=1.0):
        """A new person's coefficients, neutral in expression and pose.

        `sex` and `tone` are in deviations: +1.5 is clearly female, -1 male; tone -2 is dark skin."""
        e = np.clip(random.standard_normal(JOINT_MODES), -2.2, 2.2)
        return self.posed(spread * (self.root @ e), neutral=True, sex=sex, tone=tone)

    def attributes(self, z):
        """Mouth opening, smile, eye opening, nod, skin tone and sex, in deviations."""
        return self.attribute_of @ z

    def posed(self, z, neutral=False, mouth=None, smile=None, eyes=None, nod=None, tone=None, sex=None):
        """Moves coefficients along the attribute directions, leaving the rest as it is."""
        goal = self.attributes(z)
        if neutral:
            goal[:4] = self.neutral
        for i, v in enumerate((mouth, smile, eyes, nod, tone, sex)):
            if v is not None:
                goal[i] = v
        return z + self.attribute_move @ (goal - self.attributes(z))

    def face(self, z, side=None):
        """Points (68×2) and texture (SIZE×SIZE×3 float BGR) of joint coefficients."""
        both = self.joint_basis.T @ z
        s = both[:SHAPE_MODES] * self.shape_sd
        t = both[SHAPE_MODES:] * self.texture_sd
        points = (self.mean_points.reshape(-1) + s @ self.shape_basis).reshape(68, 2)
        half = self.texture_mean + t @ self.texture_basis
        texture = np.zeros((SIZE, SIZE, 3), np.float32)
        full = np.zeros((SIZE * SIZE // 2, 3), np.float32)
        full[self.half_index] = half.reshape(-1, 3)
        texture[:, :SIZE // 2] = full.reshape(SIZE, SIZE // 2, 3)
        texture[:, SIZE // 2:] = texture[:, SIZE // 2 - 1::-1]
        if side is not None:
            anti = np.zeros((SIZE * SIZE // 2, 3), np.float32)
            anti[self.half_index] = ((side * self.side_sd) @ self.side_basis).reshape(-1, 3)
            anti = anti.reshape(SIZE, SIZE // 2, 3)
            texture[:, :SIZE // 2] += anti
            texture[:, SIZE // 2:] -= anti[:, ::-1]
        return Face(z, points.astype(np.float32), texture)


def texture_mask(points):
    """Where the texture model holds skin: the 68 points' hull with some forehead, 0 or 1."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    eye = points[36:48].mean(0)
    brow = points[17:27] + (eye - points[8]) * [[.30]] * np.ones((10, 1))
    hull = cv2.convexHull(np.vstack([points[:17], brow]).round().astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1)
    return cv2.dilate(mask, np.ones((9, 9), np.uint8))


def _landmarks():
    """68 points, box and five points of every LFW photo that shows one clear frontal face."""
    store = nets.CACHE / "landmarks.npz"
    if store.exists():
        return dict(np.load(store))
    rows = dict(photo=[], points=[], five=[], sharp=[], foam=[], retail=[])
    root = nets.SHARED / "faces/lfw/images"
    for path in sorted(glob.glob(str(root / "*" / "*.jpg"))):
        if path[-8:-4] not in ("0001", "0002"):
            continue
        image = cv2.imread(path)
        found = nets.detect(image, .8)
        if not len(found):
            continue
        middle = np.abs((found[:, 0] + found[:, 2]) / 2 - 125) + np.abs((found[:, 1] + found[:, 3]) / 2 - 125)
        row = found[middle.argmin()]
        five = row[5:].reshape(5, 2)
        span = five[1] - five[0]
        nose = (five[2] - (five[0] + five[1]) / 2) @ span / (span @ span)
        if abs(nose) > .11 or not 75 < row[2] - row[0] < 130:
            continue
        points = nets.points68(image, row)
        foam, retail = nets.embed(image, five)
        x0, y0, x1, y1 = row[:4].astype(int)
        grey = cv2.cvtColor(image[max(y0, 0):y1, max(x0, 0):x1], cv2.COLOR_BGR2GRAY)
        rows["photo"].append(path[len(str(root)) + 1:])
        rows["points"].append(points)
        rows["five"].append(five)
        rows["sharp"].append(cv2.Laplacian(grey, cv2.CV_32F).var() / (grey.std() + 1) ** 2)
        rows["foam"].append(foam)
        rows["retail"].append(retail)
    rows = {k: np.array(v) for k, v in rows.items()}
    store.parent.mkdir(parents=True, exist_ok=True)
    np.savez(store, **rows)
    return rows


def build(keep):
    """Builds the model of the photos that `keep` says yes to; some minutes on one core, most of them for the landmarks."""
    began = time.time()
    found = _landmarks()
    kept = np.array([keep(str(photo)) for photo in found["photo"]])
    found = {k: v[kept] for k, v in found.items()}
    print(f"landmarks of {len(found['photo'])} frontal photos, {time.time() - began:.0f} s", flush=True)
    first = np.array([f[-8:-4] == "0001" for f in found["photo"]])
    order = np.argsort(-(found["sharp"] + 1e3 * first))[:int(PHOTOS / .82)]
    points = found["points"][order]

    # Procrustes alignment to a mean of fixed width, symmetric about CENTRE[0].
    mean = points[0]
    for _ in range(4):
        aligned = np.stack([p @ (m := nets.similarity(p, mean))[:, :2].T + m[:, 2] for p in points])
        mean = aligned.mean(0)
        eye = mean[36:48].mean(0)
        mean = (mean - eye) * (JAW / np.linalg.norm(mean[16] - mean[0])) + CENTRE
        mean = (mean + mirror_points(mean)) / 2
    aligned = np.stack([p @ (m := nets.similarity(p, mean))[:, :2].T + m[:, 2] for p in points])
    # Photos whose points lie far from the model are bad fits of the landmark network.
    odd = np.sqrt(((aligned - aligned.mean(0)) ** 2).sum(2).mean(1))
    good = np.sort(np.argsort(odd)[:PHOTOS])
    order, points, aligned = order[good], points[good], aligned[good]
    shapes = (aligned + mirror_points(aligned)) / 2
    mean = shapes.mean(0)

    # The warp from the mean shape to a photo is linear in the photo's points.
    mask = texture_mask(mean)
    half_index = np.flatnonzero(mask[:, :SIZE // 2].reshape(-1))
    ys, xs = np.mgrid[:SIZE, :SIZE]
    grid = np.stack([xs, ys], -1).reshape(-1, 2)
    warp = tps(np.vstack([mean, crown(mean)]), grid, 1e-4).astype(np.float32)
    root = nets.SHARED / "faces/lfw/images"
    even = np.zeros((len(order), len(half_index) * 3), np.float32)
    anti = np.zeros((len(order), len(half_index) * 3), np.float16)
    for i, (k, p) in enumerate(zip(order, points)):
        image = cv2.imread(str(root / found["photo"][k]))
        at = (warp @ np.vstack([p, crown(p)])).astype(np.float32).reshape(SIZE, SIZE, 2)
        t = cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        t = t.astype(np.float32)
        left, right = t[:, :SIZE // 2], t[:, :SIZE // 2 - 1:-1]
        even[i] = ((left + right) / 2).reshape(-1, 3)[half_index].reshape(-1)
        anti[i] = ((left - right) / 2).reshape(-1, 3)[half_index].reshape(-1)
    print(f"warped {len(order)} photos, {time.time() - began:.0f} s", flush=True)

    def components(x, n):
        g = x @ x.T
        value, vector = np.linalg.eigh(g)
        value, vector = value[::-1][:n], vector[:, ::-1][:, :n]
        basis = (vector.T @ x) / np.sqrt(value)[:, None]
        return basis.astype(np.float32), np.sqrt(value / len(x)).astype(np.float32), value.sum() / np.trace(g)

    texture_mean = even.mean(0)
    even -= texture_mean
    texture_basis, texture_sd, share = components(even, TEXTURE_MODES)
    print(f"texture: {TEXTURE_MODES} modes hold {share:.3f} of the variance, {time.time() - began:.0f} s", flush=True)
    side_basis, side_sd, _ = components(anti.astype(np.float32), SIDE_MODES)
    flat = (shapes - mean).reshape(len(order), -1)
    shape_basis, shape_sd, share = components(flat.astype(np.float32), SHAPE_MODES)
    print(f"shape: {SHAPE_MODES} modes hold {share:.3f}", flush=True)

    both = np.hstack([flat @ shape_basis.T / shape_sd, even @ texture_basis.T / texture_sd])
    # Shape counts as much as texture: twelve times the weight of one texture mode.
    _, vector = np.linalg.eigh(np.cov(both.T))
    joint_basis = (vector[:, ::-1][:, :JOINT_MODES]).T
    # How light the cheeks are, from the photos themselves.
    cheeks = np.zeros((SIZE, SIZE), np.uint8)
    cv2.circle(cheeks, tuple(int(v) for v in mean[[1, 41, 31, 3]].mean(0)), 10, 1, -1)
    inside = cheeks[:, :SIZE // 2].reshape(-1)[half_index] > 0
    tone = (even + texture_mean).reshape(len(order), -1, 3)[:, inside].mean((1, 2))
    return dict(mean_points=mean.astype(np.float32), half_index=half_index,
                texture_mean=texture_mean, texture_basis=texture_basis, texture_sd=texture_sd,
                side_basis=side_basis, side_sd=side_sd, shape_basis=shape_basis, shape_sd=shape_sd,
                joint_basis=joint_basis, scores=(both @ joint_basis.T).astype(np.float32),
                shapes=shapes.astype(np.float32), tone=tone, used=found["photo"][order],
                foam=found["foam"], retail=found["retail"], photo=found["photo"])


def seed_of(*parts):
    """A random generator that depends on the given words and numbers only."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
