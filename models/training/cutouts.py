"""Cut-out pictures held up to a camera, composited: attacks for training and for measurement.

    python cutouts.py measure OUT [--count 100]   # OUT/room and OUT/photos, a folder a species, and `live` beside them
    faceid --pack PACK eval liveness --live OUT/room/live --attack outline-face=OUT/room/outline-face …

A liveness network reads the frame around a face: the border of a sheet, the bezel of a phone. A picture that
is cut along its contour has none. Each species here (a presentation attack instrument species of ISO/IEC 30107)
is a shape and what it is held before:

    sheet-face     a rectangular print with fingers at its edges, before the bearer's face
    sheet-chest    the same before the chest, the bearer's living head above it
    outline-face   a head cut along hair and jaw, before the bearer's face
    outline-chest  the same before the bearer's clothes
    outline-wall   the same before an empty wall
    oval-face      an oval of the face alone, before the bearer's face
    oval-chest     the same before the bearer's clothes
    eye-holes      an outline whose eyes are cut out, on the bearer's own eyes
    bent           an outline bent round an upright cylinder, before the bearer's face

`re-pasted` is no attack but the control: a living face's own pixels, pasted back a little shifted through the
same warp, blur and grain. A network that refuses it has learned the simulator, not the print.

Two sets. *room*: the bearers are people of the shared clips before that room's wall, at some 60 pixels a face.
*photos*: the bearers are the people of other photos of LFW, wherever those were taken, at some 95 pixels.
Measurement draws pictured people and photo bearers from those held out of all training (`held_out.txt`), and room bearers
from two people (`MEASURED_CLIPS`) whom no cut-out of the training is held by; the room itself is the same in both.

These are composites of photos of photos: nobody printed or held anything. They show what a network does with the
shape of the attack; good prints before a real camera may be better or worse.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

import teachers as t

SEED = 31
SPECIES = (
    "sheet-face",
    "sheet-chest",
    "outline-face",
    "outline-chest",
    "outline-wall",
    "oval-face",
    "oval-chest",
    "eye-holes",
    "bent",
)
CONTROL = "re-pasted"
BEFORE_A_FACE = ("sheet-face", "outline-face", "oval-face", "eye-holes", "bent")  # all that a portrait has room for
TRAINED_CLIPS = ("brother", "help", "no", "student", "bird", "please", "sorry")  # persons 0 and 1
MEASURED_CLIPS = ("school", "night")  # persons 2 and 3; neither clip is in any training


# --- the picture and its shape ---------------------------------------------------------------------


def head_mask(photo, box):
    """The head with its hair, as scissors would follow it: GrabCut above the jaw, an ellipse below."""
    x0, y0, x1, y1 = (float(v) for v in box[:4])
    w, h, cx, cy = x1 - x0, y1 - y0, (x0 + x1) / 2, (y0 + y1) / 2
    half = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)

    def ellipse(middle, axes):
        m = np.zeros(half.shape[:2], np.uint8)
        centre, size = (int(middle[0] / 2), int(middle[1] / 2)), (max(int(axes[0] / 2), 1), max(int(axes[1] / 2), 1))
        cv2.ellipse(m, centre, size, 0, 0, 360, 1, -1)
        return m > 0

    around, face = ellipse((cx, cy - 0.15 * h), (0.82 * w, 0.88 * h)), ellipse((cx, cy), (0.42 * w, 0.46 * h))
    likely = ellipse((cx, cy - 0.1 * h), (0.6 * w, 0.66 * h))
    marks = np.full(half.shape[:2], cv2.GC_BGD, np.uint8)
    marks[around], marks[likely], marks[face] = cv2.GC_PR_BGD, cv2.GC_PR_FGD, cv2.GC_FGD
    try:
        cv2.grabCut(half, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
        mask = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    except cv2.error:  # too little of one side to tell colours apart
        mask = likely
    rows = np.arange(half.shape[0])[:, None] * 2
    mask &= ellipse((cx, cy), (0.6 * w, 0.53 * h)) | (rows < cy)  # the jaw; no neck
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    count, parts = cv2.connectedComponents(mask)
    if count > 2:
        mask = (parts == parts[min(int(cy / 2), half.shape[0] - 1), min(int(cx / 2), half.shape[1] - 1)]).astype(np.uint8)
    mask = cv2.resize(mask * 255, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return (cv2.GaussianBlur(mask, (0, 0), 2.5) > 127).astype(np.uint8)


def oval_mask(photo, box, rng):
    x0, y0, x1, y1 = (float(v) for v in box[:4])
    mask = np.zeros(photo.shape[:2], np.uint8)
    size = int((x1 - x0) * rng.uniform(0.46, 0.58)), int((y1 - y0) * rng.uniform(0.50, 0.60))
    cv2.ellipse(mask, (int((x0 + x1) / 2), int((y0 + y1) / 2)), size, 0, 0, 360, 1, -1)
    return mask


def sheet_mask(photo, box, rng):
    x0, y0, x1, y1 = (float(v) for v in box[:4])
    w, h = x1 - x0, y1 - y0
    left, right = x0 - w * rng.uniform(0.2, 0.6), x1 + w * rng.uniform(0.2, 0.6)
    top, low = y0 - h * rng.uniform(0.3, 0.6), y1 + h * rng.uniform(0.15, 0.5)
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[max(int(top), 2) : int(low), max(int(left), 2) : int(right)] = 1
    mask[-2:], mask[:, -2:] = 0, 0
    return mask


def printed(photo, light, rng):
    """The photo as ink on paper in light that gives a face the mean `light`: less contrast and colour, a dot screen or stripes at times."""
    x = photo.astype(np.float32)
    grey = x @ np.float32([0.114, 0.587, 0.299])
    x += (grey[..., None] - x) * rng.uniform(0, 0.45)
    low, high = rng.uniform(5, 45), rng.uniform(190, 245)
    x = (low + x * ((high - low) / 255)) * rng.normal(1, 0.03, 3)
    if rng.random() < 0.3:
        rows, columns = np.mgrid[: x.shape[0], : x.shape[1]].astype(np.float32)
        period, turn = rng.uniform(2.2, 5), rng.uniform(0, np.pi)
        x += rng.uniform(1, 5) * np.sin((np.cos(turn) * columns + np.sin(turn) * rows) * (2 * np.pi / period))[..., None]
    return x * np.clip(light * rng.uniform(0.8, 1.2) / max(float(x.mean()), 1), 0.5, 2.0)


def bend(picture, mask, points, middle, radius, rng):
    """Picture and mask bent round an upright cylinder about the column `middle`; the sides turn away and darken."""
    angle = rng.uniform(0.5, 1.05)
    columns = np.arange(picture.shape[1], dtype=np.float32)
    u = (columns - middle) / radius
    inside = np.abs(u * np.sin(angle)) < 0.98
    source = np.where(inside, middle + np.arcsin(np.clip(u * np.sin(angle), -0.98, 0.98)) / angle * radius, -9)
    map_x = np.repeat(source[None].astype(np.float32), picture.shape[0], 0)
    map_y = np.repeat(np.arange(picture.shape[0], dtype=np.float32)[:, None], picture.shape[1], 1)
    shade = np.sqrt(1 - np.clip(u * np.sin(angle), -0.98, 0.98) ** 2) ** rng.uniform(0.3, 1.0)
    picture = cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR) * shade[None, :, None].astype(np.float32)
    mask = cv2.remap(mask, map_x, map_y, cv2.INTER_NEAREST)
    points = points.copy()
    points[:, 0] = middle + radius * np.sin((points[:, 0] - middle) / radius * angle) / np.sin(angle)
    return picture, mask, points


# --- the composite ---------------------------------------------------------------------------------


def paste(scene, picture, alpha, matrix, rng, shadow, rim):
    """`picture` where `alpha` shows it, warped into the scene with a paper rim and a shadow behind its edge."""
    h, w = scene.shape[:2]
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if rim:  # scissors leave some of the paper
        n = 2 * max(int(round(rim / scale)), 1) + 1
        wide = cv2.dilate(alpha, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (n, n)))
        paper = float(np.percentile(picture[alpha > 0], 97)) * rng.uniform(0.95, 1.1)
        picture = np.where((alpha == 0)[..., None], np.float32(min(paper, 250)), picture)
        alpha = wide
    if scale < 0.7:  # as a lens would: no aliasing
        picture = cv2.GaussianBlur(picture, (0, 0), 0.5 / scale)
    seen = cv2.warpAffine(picture.astype(np.float32), matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    soft = cv2.warpAffine(cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), max(0.4 / scale, 0.3)), matrix, (w, h))
    out = scene.astype(np.float32)
    if shadow:
        far = np.float32([[1, 0, rng.normal(0, 3)], [0, 1, abs(rng.normal(0, 3)) + 1]])
        dark = cv2.GaussianBlur(cv2.warpAffine(soft, far, (w, h)), (0, 0), rng.uniform(1.5, 5))
        out *= 1 - shadow * dark[..., None]
    seen = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.35, 0.8))
    cv2.setRNGSeed(int(rng.integers(1 << 30)))
    grain = np.empty(seen.shape, np.float32)
    cv2.randn(grain, (0, 0, 0), (rng.uniform(0.8, 2.5),) * 3)
    out += (seen + grain - out) * soft[..., None]
    return np.clip(out, 0, 255).astype(np.uint8), soft > 0.5


def fingers(scene, shown, skin, face, rng):
    """Finger tips over the left and right edge of what is held."""
    rows, columns = np.where(shown)
    if not len(rows):
        return scene
    low, high = rows.min(), rows.max()
    for side in (columns.min(), columns.max()):
        if rng.random() < 0.85:
            y, into = rng.uniform(low + 0.4 * (high - low), high), 1 if side == columns.min() else -1
            for i in range(int(rng.integers(1, 4))):
                tone = np.clip(np.array(skin) * rng.uniform(0.75, 1.1), 0, 255)
                centre = int(side + into * face * rng.uniform(-0.02, 0.1)), int(y + i * face * 0.17)
                axes = max(int(face * rng.uniform(0.14, 0.24)), 2), max(int(face * rng.uniform(0.06, 0.09)), 2)
                cv2.ellipse(scene, centre, axes, rng.normal(0, 12), 0, 360, tone.tolist(), -1, cv2.LINE_AA)
    return scene


class Bearer:
    """A living person in a picture: who holds the cut-out."""

    def __init__(self, image, box, points):
        self.image, self.box, self.points = image, np.float64(box[:4]), np.float64(points)
        x0, y0, x1, y1 = (int(max(v, 0)) for v in self.box)
        part = image[y0 : y1 + 1, x0 : x1 + 1]
        self.light = float(part.mean())
        n, m = part.shape[:2]
        self.skin = np.median(part[n // 2 : n * 3 // 4, m // 4 : m * 3 // 4].reshape(-1, 3), 0)


def compose(species, pictured, bearer, wall, rng):
    """One attack: (scene, box of the pictured face), or None where it would not fit. `pictured` is photo, box, points, head mask."""
    photo, box, points, head = pictured
    points, (bw, bh) = np.float64(points), (bearer.box[2] - bearer.box[0], bearer.box[3] - bearer.box[1])
    shape = species.split("-")[0]
    mask = sheet_mask(photo, box, rng) if shape == "sheet" else oval_mask(photo, box, rng) if shape == "oval" else head.copy()
    picture = printed(photo, bearer.light, rng)
    middle = (box[0] + box[2]) / 2
    if species == "bent":
        picture, mask, points = bend(picture, mask, points, middle, 0.85 * (box[2] - box[0]), rng)
    if species == "eye-holes":
        apart = np.hypot(*(points[1] - points[0]))
        for eye in points[:2]:
            size = int(apart * rng.uniform(0.2, 0.27)), int(apart * rng.uniform(0.11, 0.17))
            cv2.ellipse(mask, tuple(int(v) for v in eye), size, 0, 0, 360, 0, -1)
    scene = bearer.image
    if species.endswith("-chest") or species.endswith("-wall"):
        h, w = scene.shape[:2]
        size = bh * rng.uniform(0.85, 1.25) / (box[3] - box[1])
        centre = np.array([(bearer.box[0] + bearer.box[2]) / 2, bearer.box[3]])
        if species.endswith("-chest"):
            centre += [rng.normal(0, 0.15) * bw, bh * rng.uniform(0.95, 1.5)]
        else:
            scene = wall
            centre = np.array([w * rng.uniform(0.4, 0.6), h * rng.uniform(0.3, 0.6)])
        turn = np.deg2rad(rng.normal(0, 4))
        linear = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        own = np.array([middle, (box[1] + box[3]) / 2], np.float64)
        matrix = np.hstack([linear, (centre - linear @ own)[:, None]])
    else:
        larger = 1.0 if species == "eye-holes" else rng.uniform(1.05, 1.3)
        about = bearer.points.mean(0)
        shift = 0 if species == "eye-holes" else rng.normal(0, 0.04, 2) * bw
        matrix = t.umeyama(points, about + (bearer.points - about) * larger + shift)
    shadow = rng.uniform(0.1, 0.45) if rng.random() < 0.7 else 0
    rim = rng.uniform(0.5, 2.5) if shape == "sheet" or rng.random() < 0.5 else 0
    scene, shown = paste(scene, picture, mask, matrix, rng, shadow, rim)
    if shape == "sheet" or rng.random() < 0.25:
        scene = fingers(scene, shown, bearer.skin, bh, rng)
    corners = np.array([[x, y] for x in (box[0], box[2]) for y in (box[1], box[3])], np.float64)
    corners = corners @ matrix[:, :2].T + matrix[:, 2]
    return scene, np.array([*corners.min(0), *corners.max(0)])


def repaste(bearer, rng):
    """The control: the bearer's own face pasted back a little shifted."""
    mask = oval_mask(bearer.image, bearer.box, rng)
    if rng.random() < 0.5:
        mask = head_mask(bearer.image, bearer.box)
    size, turn, middle = np.exp(rng.normal(0, 0.02)), np.deg2rad(rng.normal(0, 1.5)), bearer.points.mean(0)
    linear = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shift = rng.normal(0, 0.01, 2) * (bearer.box[2] - bearer.box[0])
    matrix = np.hstack([linear, (middle + shift - linear @ middle)[:, None]])
    scene, _ = paste(bearer.image, bearer.image.astype(np.float32), mask, matrix, rng, 0, 0)
    return scene, bearer.box


# --- who ---------------------------------------------------------------------------------------------


class People:
    """The pictured, their bearers and empty walls of one side: `held` for measurement, the others for training."""

    def __init__(self, held, most=None):
        faces = dict(np.load(t.work_dir() / "faces.npz"))
        rows = np.where(faces["held"] == held)[0]
        names = np.array([str(p).split("/")[0] for p in faces["photo"][rows]])
        rows = rows[np.unique(names, return_index=True)[1]]  # a photo a person
        rows = np.random.default_rng(SEED).permutation(rows)[:most]
        self.faces = [(str(faces["photo"][i]), faces["box"][i][:4], faces["points"][i]) for i in rows]
        detector, self.room, self.walls = t.YuNet(), [], []
        for clip in MEASURED_CLIPS if held else TRAINED_CLIPS:
            video, frames = cv2.VideoCapture(str(t.shared_dir() / f"clips/{clip}.mkv")), []
            while (read := video.read())[0]:
                frames.append(read[1])
            for frame in frames[:: 2 if held else 4]:
                boxes, _, points = detector(frame, 640)
                if len(boxes):
                    i = int(np.argmax(np.prod(boxes[:, 2:] - boxes[:, :2], 1)))
                    self.room.append(Bearer(frame, boxes[i], points[i]))
            # A wall: the part of the room beside the person, as wide as the picture.
            wall = frames[0][:, 395:]
            self.walls.append(cv2.resize(wall, None, fx=1.6, fy=1.6, interpolation=cv2.INTER_LINEAR)[: frames[0].shape[0]])
            self.walls.append(np.ascontiguousarray(self.walls[-1][:, ::-1]))

    def photo(self, i):
        name, box, points = self.faces[i % len(self.faces)]
        return cv2.imread(str(t.shared_dir() / "faces/lfw/images" / name)), box, points

    def pictured(self, i):
        photo, box, points = self.photo(i)
        return photo, box, points, head_mask(photo, box)

    def bearer(self, room, i, rng):
        if room:
            return self.room[rng.integers(len(self.room))]
        other = (i + 1 + int(rng.integers(len(self.faces) - 1))) % len(self.faces)
        return Bearer(*self.photo(other))

    def attack(self, species, room, i, rng, pictured=None):
        wall = self.walls[rng.integers(len(self.walls))]
        return compose(species, pictured or self.pictured(i), self.bearer(room, i, rng), wall, rng)


# --- measurement -------------------------------------------------------------------------------------


def claims(boxes, shape):
    """Of each face how much the photo is about it, as src/pipeline/still.rs has it."""
    middle = np.array([shape[1], shape[0]]) / 2
    return (boxes[:, 2:] - boxes[:, :2]).max(1) - np.hypot(*((boxes[:, :2] + boxes[:, 2:]) / 2 - middle).T)


def about(scene, box, detector):
    """As much of the scene as is still about the face in `box`, as `faceid eval` chooses a photo's subject; None if it is not found."""
    for top in range(0, scene.shape[0] // 2, 12):
        part = scene[top:]
        boxes, _, _ = detector(part, 640 if max(part.shape) > 320 else 320)
        if not len(boxes):
            return None
        mine = boxes[int(np.argmax(claims(boxes, part.shape)))]
        inside = np.array(box) - [0, top, 0, top]
        low, high = np.maximum(mine[:2], inside[:2]), np.minimum(mine[2:], inside[2:])
        common = np.prod(np.clip(high - low, 0, None))
        if common / (np.prod(mine[2:] - mine[:2]) + np.prod(inside[2:] - inside[:2]) - common) > 0.3:
            return part
        if inside[1] < (inside[3] - inside[1]):
            return None
    return None


def measure(out, count):
    people, detector = People(held=True), t.YuNet()
    for setting, kinds in (("room", SPECIES), ("photos", BEFORE_A_FACE)):
        room = setting == "room"
        for kind in (*kinds, CONTROL, "live"):
            folder = out / setting / kind
            folder.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([SEED, *f"{setting} {kind}".encode()])
            made = tried = 0
            while made < count and tried < 2 * count:
                if kind == "live":
                    if room and tried >= len(people.room):
                        break
                    b = people.room[tried] if room else Bearer(*people.photo(tried))
                    scene, box = b.image, b.box
                elif kind == CONTROL:
                    scene, box = repaste(people.room[tried % len(people.room)] if room else Bearer(*people.photo(tried)), rng)
                else:
                    scene, box = people.attack(kind, room, tried, rng)
                tried += 1
                part = about(scene, box, detector)
                if part is not None:
                    cv2.imwrite(str(folder / f"{tried:04}.png"), part)
                    made += 1
            print(setting, kind, made, "of", tried, "drawn", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("measure",))
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=100, help="pictures a species")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    measure(args.out, args.count)


if __name__ == "__main__":
    main()
