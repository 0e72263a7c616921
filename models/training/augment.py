"""Turn a clean aligned crop into what a door camera might have made of it.

Everything is drawn from the `numpy.random.Generator` that the caller gives, so that a batch is a
function of the seed and the step number and a resumed run sees what an unbroken one would have.
"""

import cv2
import numpy as np


def geometry(crop, out, rng):
    """Mirror, turn, scale and shift a 144×144 crop (16 pixels of margin) into `out`×`out`."""
    side = crop.shape[0]
    angle = np.deg2rad(rng.normal(0, 4.5))
    scale = out / 112 * np.exp(rng.normal(0, 0.045))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    linear = np.array([[c * mirror, -s], [s * mirror, c]])
    shift = out / 2 + rng.normal(0, 1.6, 2) * out / 112
    middle = (side - 1) / 2
    matrix = np.hstack([linear, (shift - 0.5 - linear @ [middle, middle])[:, None]])
    border = cv2.BORDER_REFLECT_101 if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    return cv2.warpAffine(crop, matrix, (out, out), flags=cv2.INTER_LINEAR, borderMode=border)


def tone(x, rng):
    """Gamma, contrast, brightness and white balance as one table per channel."""
    gamma = np.exp(rng.normal(0, 0.3))
    contrast, brightness = rng.uniform(0.6, 1.3), rng.normal(0, 0.08)
    base = ((np.linspace(0, 1, 256) ** gamma) - 0.5) * contrast + 0.5 + brightness
    gains = rng.normal(1, 0.08, 3) if rng.random() < 0.5 else np.ones(3)
    table = np.clip(base[:, None] * gains * 255, 0, 255).astype(np.uint8)
    return cv2.LUT(x, table[None])


def side_light(x, rng):
    """A linear fall-off across the face."""
    h = x.shape[0]
    ramp = np.linspace(-1, 1, h, dtype=np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    field = 1 + rng.uniform(0.15, 0.6) * (ramp[None] * np.cos(turn) + ramp[:, None] * np.sin(turn))
    return np.clip(x * field[..., None], 0, 255).astype(np.uint8)


def blur(x, rng):
    """Lack of resolution, lack of focus, or motion."""
    h, kind = x.shape[0], rng.integers(3)
    if kind == 0:
        n = int(h * rng.uniform(0.22, 0.65))
        small = cv2.resize(x, (n, n), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (h, h), interpolation=cv2.INTER_LINEAR)
    if kind == 1:
        return cv2.GaussianBlur(x, (0, 0), h / 112 * rng.uniform(0.5, 2.0))
    length = max(3, int(h / 112 * rng.uniform(3, 9)))
    kernel = np.zeros((length, length), np.float32)
    turn, middle = rng.uniform(0, np.pi), (length - 1) / 2
    for d in np.linspace(-middle, middle, 2 * length):
        kernel[int(round(middle + d * np.sin(turn))), int(round(middle + d * np.cos(turn)))] = 1
    return cv2.filter2D(x, -1, kernel / kernel.sum())


def noise(x, rng):
    """Sensor noise, the same in the channels or not, stronger in the dark."""
    h = x.shape[0]
    grain = rng.standard_normal((h, h, 1 if rng.random() < 0.5 else 3), dtype=np.float32)
    return np.clip(x + grain * rng.uniform(2, 14), 0, 255).astype(np.uint8)


def jpeg(x, rng):
    """Block artefacts as of a video codec at a low rate."""
    quality = int(rng.integers(20, 85))
    return cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def cover(x, rng):
    """A plain or noisy rectangle over part of the face: a hand, a scarf, a door frame."""
    h = x.shape[0]
    a, b = (rng.uniform(0.1, 0.4, 2) * h).astype(int)
    y, z = int(rng.integers(0, h - a)), int(rng.integers(0, h - b))
    x = x.copy()
    x[y : y + a, z : z + b] = rng.integers(0, 256, 3)
    return x


def augment(crop, out, rng):
    """One training picture, `out`×`out`×3 uint8 BGR."""
    x = geometry(crop, out, rng)
    for chance, change in (
        (0.12, side_light),
        (0.22, blur),
        (0.65, tone),
        (0.15, noise),
        (0.20, jpeg),
        (0.12, cover),
    ):
        if rng.random() < chance:
            x = change(x, rng)
    if rng.random() < 0.12:
        x = cv2.cvtColor(cv2.cvtColor(x, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return x
