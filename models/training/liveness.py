"""Train the built-in liveness network: one small dense ReLU network that copies a pair of larger ones.

    python liveness.py prepare [--share I N]       # crops and the pair's verdicts; resumes, ten minutes of a core
    python liveness.py train --samples 540000      # resumes; --from ONNX starts from a committed file
    python liveness.py export [--out FILE]         # the averaged weights as ../builtin/liveness.onnx
    python liveness.py evaluate [--onnx FILE]      # stills, clips and the demo's visits, beside the pair's own figures

Labels of our own are used beside cut-outs alone. Labels of simulated attacks taught an earlier network the simulator: 2 %
errors on more simulation, and every real attack passed. Here the target of a crop is what the
MiniFASNet pair says of that very scene, the mean of the softmax of its two networks, whose crops of
the same box are 2.7 and 4.0 boxes wide; the student sees the first only. Simulated attacks are just
pictures to ask the pair about. After its labels a crop is only mirrored.

Cut-outs (`cutouts.py`) are the exception, since the pair takes most of them for living: their target is `CUT_OUT`.
Beside them stand living faces that were pasted back with the same warp, blur and grain, whose target is what the
pair says of the picture before and, as much, that it is living; the same holds for whole photos. So the paste alone tells nothing.

`prepare.py` must have run before: the photos' boxes are in `faces.npz` of FACEID_TRAIN_DIR. Everything
of this file's own lies in its folder `liveness/`.
"""

import argparse
import hashlib
import json
import math
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import augment
import cutouts
import teachers as t

SEED = 27
SIDE, SCALE, WIDE_SCALE, LIVE = 80, 2.7, 4.0, 1
THRESHOLD = 0.5  # the pair's
BUILT_IN_THRESHOLD = 0.7  # the student's: it is less sure of itself than the pair, and a doubt is a refusal
KINDS = ("shared", "demo", "photo", "placed", "attack", "cut-out", "re-pasted")  # where a sample came from
TEST_CLIPS = ("again", "milk", "night", "school")  # whole shared clips that are never trained on
DEMO_CLIPS = ("door", "night", "turned-away", "too-far", "dark")
PHOTOS_A_PART = 400
# Our own labels: a cut-out is more print than screen, and not wholly sure; whole photos and pasted-back faces are of living people,
# which counts as much as what the pair says of them: without it cut-outs teach the network to refuse new faces.
CUT_OUT = np.float32([0.9, 0.06, 0.04])
LIVING, LIVING_KINDS = np.float32([0.04, 0.93, 0.03]), ("photo", "re-pasted")

BATCH = 128
RATE, DECAY, WARM_UP = 2.0e-3, 0.05, 100
EMA = 0.998
BORDERLINE = 3.0  # the extra weight of a sample of which the pair is wholly undecided
CHECKPOINT_S = 60

BUILT_IN = t.REPOSITORY / "models/builtin/liveness.onnx"


def folder():
    path = t.work_dir() / "liveness"
    path.mkdir(exist_ok=True)
    return path


# --- the crop and the pair -----------------------------------------------------------------


def shifted(image, box, scale):
    """The crop of Silent-Face-Anti-Spoofing at this network's size, or None."""
    return t.shifted(image, box, scale, SIDE)


class Pair:
    """The MiniFASNet networks; gives the student's crop and the mean of their probabilities."""

    def __init__(self):
        names = "2.7_80x80_MiniFASNetV2.onnx", "4_0_0_80x80_MiniFASNetV1SE.onnx"
        self.networks = [(t.session(n), s) for n, s in zip(names, (SCALE, WIDE_SCALE))]

    def __call__(self, image, box):
        crops, total = [shifted(image, box, s) for _, s in self.networks], 0.0
        if crops[0] is None:
            return None
        for (network, _), crop in zip(self.networks, crops):
            x = crop.astype(np.float32).transpose(2, 0, 1)[None]
            logits = network.run(None, {network.get_inputs()[0].name: x})[0][0]
            e = np.exp(logits - logits.max())
            total = total + e / e.sum()
        return crops[0], (total / 2).astype(np.float32)


# --- the samples ---------------------------------------------------------------------------


def jitter(box, rng, share=0.08):
    """The box as another detector, or the same one a frame later, would have drawn it."""
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    return np.array(box, np.float64) + rng.uniform(-share, share, 4) * [w, h, w, h]


def degrade(image, face, rng):
    """What a camera does to a picture in which a face is `face` pixels wide."""
    if rng.random() < 0.35:
        sigma = face / 80 * rng.uniform(0.2, 1.3)
        image = cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3))
    if rng.random() < 0.6:
        image = augment.tone(image, rng)
    if rng.random() < 0.25:
        cv2.setRNGSeed(int(rng.integers(1 << 30)))
        grain = np.empty(image.shape, np.int16)
        cv2.randn(grain, (0, 0, 0), (rng.uniform(2, 12),) * 3)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        image = augment.jpeg(image, rng)
    return image


def print_look(photo, rng):
    """A photo as ink on paper: less contrast, less colour, perhaps a white border."""
    low, high = rng.uniform(10, 60), rng.uniform(170, 245)
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    photo = cv2.addWeighted(photo, keep := rng.uniform(0.3, 1.0), grey, 1 - keep, 0)
    tint = rng.normal(1, 0.04, 3)
    photo = np.clip((low + photo.astype(np.float32) * ((high - low) / 255)) * tint, 0, 255).astype(np.uint8)
    edge = int(rng.uniform(0, 0.12) * photo.shape[0])
    paper = int(rng.uniform(190, 250))
    return cv2.copyMakeBorder(photo, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(paper,) * 3), edge


def screen_look(photo, rng):
    """A photo as light from a screen: bright, bluish, in a dark bezel."""
    gain = rng.uniform(0.9, 1.35) * np.array([rng.uniform(1.0, 1.2), 1.0, rng.uniform(0.85, 1.05)])
    photo = np.clip(photo.astype(np.float32) * gain + rng.uniform(0, 25), 0, 255).astype(np.uint8)
    edge, bezel = int(rng.uniform(0.02, 0.14) * photo.shape[0]), int(rng.uniform(0, 60))
    return cv2.copyMakeBorder(photo, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(bezel,) * 3), edge


def screen_surface(scene, mask, rng):
    """Moiré stripes and a reflection over the part of the scene that `mask` shows."""
    h, w = scene.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    field = np.zeros((h, w, 3), np.float32)
    for _ in range(rng.integers(1, 3)):
        turn, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(2.2), np.log(25)))
        phase = (np.cos(turn) * x + np.sin(turn) * y) * (2 * np.pi / period)
        colour = rng.uniform(0, 2 * np.pi, 3) if rng.random() < 0.5 else np.zeros(3)
        field += rng.uniform(3, 18) * np.stack([np.sin(phase + c) for c in colour], -1)
    if rng.random() < 0.5:
        distance = ((x - rng.uniform(0, w)) ** 2 + (y - rng.uniform(0, h)) ** 2) / (w * rng.uniform(0.05, 0.3)) ** 2
        field += (rng.uniform(40, 200) * np.exp(-distance))[..., None]
    return np.clip(scene + field * mask[..., None], 0, 255).astype(np.uint8)


def backdrop(side, backdrops, rng):
    """A square piece of some frame, or a plain wall with a fall-off."""
    if rng.random() < 0.75:
        frame = backdrops[rng.integers(len(backdrops))]
        n = int(min(frame.shape[:2]) * rng.uniform(0.4, 1.0))
        y, x = (int(rng.integers(0, s - n + 1)) for s in frame.shape[:2])
        return cv2.resize(frame[y : y + n, x : x + n], (side, side), interpolation=cv2.INTER_LINEAR)
    wall = np.full((side, side, 3), rng.uniform(20, 240, 3) * 0.4 + rng.uniform(10, 150), np.float32)
    return augment.side_light(np.clip(wall, 0, 255).astype(np.uint8), rng)


def place(photo, box, backdrops, attack, rng):
    """The whole photo somewhere in a scene. Gives the scene and the face's box there.

    A head alone would be a cut-out, and the pair would call it living: those are in `cutouts.py`.
    """
    edge, look = 0, None
    if attack:
        look = ("print", "screen")[rng.integers(2)]
        if look == "print":
            photo, edge = print_look(photo, rng)
        elif look == "screen":
            photo, edge = screen_look(photo, rng)
    box = np.array(box, np.float64) + edge
    side = int(np.exp(rng.uniform(np.log(180), np.log(420))))
    face = side / np.exp(rng.uniform(np.log(1.5), np.log(7.0)))
    scale = face / (box[3] - box[1])
    if scale < 0.7:  # as a lens would: no aliasing before the picture is taken
        photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        box, scale = box * scale, 1.0
    middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    turn = np.deg2rad(rng.normal(0, 5))
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    target = rng.uniform(0.25, 0.75, 2) * side
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, target - linear @ middle
    if attack and rng.random() < 0.5:  # a picture held askew: perspective about the face's middle
        there, back, tilt = np.eye(3), np.eye(3), np.eye(3)
        there[:2, 2], back[:2, 2] = -target, target
        tilt[2, :2] = rng.normal(0, 0.12, 2) / (face * 2)
        matrix = back @ tilt @ there @ matrix
    mask = np.full(photo.shape[:2], 255, np.uint8)
    scene = backdrop(side, backdrops, rng)
    mask = cv2.warpPerspective(mask, matrix, (side, side)).astype(np.float32) / 255
    if not attack:
        mask = cv2.GaussianBlur(mask, (0, 0), face * rng.uniform(0.01, 0.08))
    warped = cv2.warpPerspective(photo, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    scene = (scene + (warped.astype(np.float32) - scene) * mask[..., None]).astype(np.uint8)
    if look == "screen":
        scene = screen_surface(scene, mask, rng)
    half = np.array([box[2] - box[0], box[3] - box[1]]) / 2 * (face / (box[3] - box[1]))
    return scene, np.array([*(target - half), *(target + half)])


def frames(path):
    """The frames of a clip, in order."""
    clip = cv2.VideoCapture(str(path))
    while True:
        good, frame = clip.read()
        if not good:
            return
        yield frame


def window(frame, box):
    """A part of the frame that holds every crop of the box, so that less must be degraded.

    Six boxes wide and shifted inside as a crop is: a crop at scale 4 then meets the window's border
    only where that is the frame's own.
    """
    (height, width), (x0, y0, x1, y1) = frame.shape[:2], box
    low, high = [], []
    for middle, length, end in (((x0 + x1) / 2, x1 - x0, width), ((y0 + y1) / 2, y1 - y0, height)):
        n = int(min(6 * length, end))
        start = int(np.clip(middle - n / 2, 0, end - n))
        low.append(start)
        high.append(start + n)
    part = frame[low[1] : high[1], low[0] : high[0]]
    return part, np.array(box, np.float64) - [*low, *low]


def views(frame, box, count, rng):
    """The box in the frame as it is, then `count` − 1 times jittered, degraded or at another size."""
    yield frame, box
    part, inside = window(frame, box)
    for _ in range(count - 1):
        image, b = part, jitter(inside, rng)
        if rng.random() < 0.3:
            f = rng.uniform(0.4, 1.2)
            image = cv2.resize(image, None, fx=f, fy=f, interpolation=cv2.INTER_AREA if f < 1 else cv2.INTER_LINEAR)
            b = b * f
        if rng.random() < 0.6:
            image = degrade(image, b[2] - b[0], rng)
        yield image, b


def largest(detector, frame):
    """The box and points of the largest face of a frame, or None."""
    boxes, _, points = detector(frame, 640)
    if not len(boxes):
        return None
    i = int(np.argmax(np.prod(boxes[:, 2:] - boxes[:, :2], 1)))
    return boxes[i], points[i]


class Source:
    """Yields (kind, picture, box) of one job, a function of the job's name alone; a fourth is the picture to ask the pair about."""

    def __init__(self):
        faces = dict(np.load(t.work_dir() / "faces.npz"))
        photos = [(photo, box[:4]) for photo, box in zip(faces["photo"], faces["box"])]
        self.photos = [photo for photo, held in zip(photos, faces["held"]) if not held]
        self.held_photos = [photo for photo, held in zip(photos, faces["held"]) if held]
        shared, demo = t.shared_dir() / "clips", t.REPOSITORY / "data/demo"
        self.shared = [p for p in sorted(shared.glob("*.mkv")) if p.stem not in TEST_CLIPS]
        self.demo = [demo / f"{c}.mp4" for c in DEMO_CLIPS]
        self.detector, self.backdrops, self.people = t.YuNet(), [], None
        for path, every in [(demo / "idle.mp4", 150)] + [(p, 40) for p in self.shared] + [(p, 60) for p in self.demo]:
            self.backdrops += [f for i, f in enumerate(frames(path)) if i % every == 5]

    def jobs(self):
        photos = [f"photos-{i:05}" for i in range(0, len(self.photos), PHOTOS_A_PART)]
        clips = [f"shared-{p.stem}" for p in self.shared] + [f"demo-{p.stem}" for p in self.demo]
        cut_outs = [f"cutouts-{i:05}" for i in range(0, len(self.photos), PHOTOS_A_PART)]
        return ["held-00000", *clips, *photos, *cut_outs]

    def cut_outs(self, start, rng):
        """Two attacks of each of a part's photos, and as many living faces pasted back as half of that, in the room and in photos."""
        if self.people is None:
            self.people = cutouts.People(held=False)
        people = self.people
        for i in range(start, min(start + PHOTOS_A_PART, len(people.faces))):
            pictured = people.pictured(i)
            for room in (True, False):
                kinds = cutouts.SPECIES if room else cutouts.BEFORE_A_FACE
                scene, box = people.attack(kinds[rng.integers(len(kinds))], room, i, rng, pictured)
                part, b = window(scene, jitter(box, rng))
                if rng.random() < 0.6:
                    part = degrade(part, b[2] - b[0], rng)
                yield "cut-out", part, b
            bearer = people.bearer(rng.random() < 0.5, i, rng)
            scene, box = cutouts.repaste(bearer, rng)
            box, seed = jitter(box, rng), int(rng.integers(1 << 30))
            changed = rng.random() < 0.6
            views = []
            for image in (scene, bearer.image):  # the same lens, light and grain for both
                part, b = window(image, box)
                views.append(degrade(part, b[2] - b[0], np.random.default_rng(seed)) if changed else part)
            yield "re-pasted", views[0], b, views[1]

    def __call__(self, job):
        kind, name = job.split("-", 1)
        rng = np.random.default_rng([SEED, *hashlib.sha256(job.encode()).digest()])
        if kind == "shared":
            path = next(p for p in self.shared if p.stem == name)
            for frame in frames(path):
                if found := largest(self.detector, frame):
                    yield from (("shared", *v) for v in views(frame, found[0], 10, rng))
        elif kind == "demo":
            path = next(p for p in self.demo if p.stem == name)
            for frame, seen in zip(frames(path), json.loads(path.with_suffix(".json").read_text())["frames"]):
                for face in seen:
                    yield from (("demo", *v) for v in views(frame, face["box"], 4, rng))
        elif kind == "cutouts":
            yield from self.cut_outs(int(name), rng)
        else:
            photos = self.held_photos if kind == "held" else self.photos
            for photo, box in photos[int(name) : int(name) + PHOTOS_A_PART]:
                image = cv2.imread(str(t.shared_dir() / "faces/lfw/images" / photo))
                b = jitter(box, rng)
                yield "photo", degrade(image, b[2] - b[0], rng) if rng.random() < 0.6 else image, b
                for attack in (False, True):
                    scene, b = place(image, box, self.backdrops, attack, rng)
                    if rng.random() < 0.7:
                        scene = degrade(scene, b[2] - b[0], rng)
                    yield ("attack" if attack else "placed"), scene, jitter(b, rng)


def prepare(share):
    """Label every job of this process's share (I of N, from 0) that has no file yet."""
    parts = folder() / "parts"
    parts.mkdir(exist_ok=True)
    source, pair = Source(), Pair()
    for job in source.jobs()[share[0] :: share[1]]:
        out = parts / f"{job}.npz"
        if out.exists():
            continue
        begin, crops, target, kinds = time.monotonic(), [], [], []
        for kind, image, box, *asked in source(job):
            if kind == "cut-out":
                labelled = (shifted(image, box, SCALE), CUT_OUT)
            else:
                labelled = pair(*asked, box) if asked else pair(image, box)
            if labelled is not None and (crop := shifted(image, box, SCALE)) is not None:
                crops.append(crop)
                target.append((labelled[1] + LIVING) / 2 if kind in LIVING_KINDS and job != "held-00000" else labelled[1])
                kinds.append(KINDS.index(kind))
        unfinished = out.with_suffix(".part.npz")
        np.savez(unfinished, crops=np.array(crops), target=np.array(target), kind=np.array(kinds, np.uint8))
        unfinished.rename(out)
        live = float((np.array(target)[:, LIVE] >= THRESHOLD).mean())
        log(job=job, samples=len(crops), live=live, seconds=time.monotonic() - begin)


def samples(held=False):
    """All labelled samples so far: crops N×80×80×3, the pair's probabilities N×3, kinds N.

    For training, or with `held` those of people who are held out, which are for the test.
    """
    names = sorted(p for p in (folder() / "parts").glob("*.npz") if not p.name.endswith(".part.npz"))
    loaded = [np.load(p) for p in names if p.name.startswith("held-") == held]
    return tuple(np.concatenate([p[k] for p in loaded]) for k in ("crops", "target", "kind"))


# --- the network ---------------------------------------------------------------------------


def conv(i, o, k=3, stride=1):
    return nn.Sequential(nn.Conv2d(i, o, k, stride, k // 2, bias=False), nn.BatchNorm2d(o))


class Block(nn.Module):
    """Two dense 3×3 convolutions around a shortcut."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b = conv(c, c), conv(c, c)

    def forward(self, x):
        return F.relu(x + self.b(F.relu(self.a(x))))


class Liveness(nn.Module):
    """Raw BGR 0..255, N×3×80×80, to three logits; the mean of the pixels is left to the first norm.

    The last map is read as a whole, not averaged: where a bezel or an edge of paper is matters.
    """

    def __init__(self, widths=(12, 24, 48, 80), head=32):
        super().__init__()
        a, b, c, d = widths
        self.stem, self.second, self.first_block = conv(3, a, stride=2), conv(a, b, stride=2), Block(b)
        self.third, self.second_block = conv(b, c, stride=2), Block(c)
        self.fourth, self.third_block = conv(c, d, stride=2), Block(d)
        self.head = conv(d, head, 1)
        self.fc = nn.Linear(head * 25, 3)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        # The scale alone, so that it folds into the first convolution without changing its border.
        x = F.relu(self.stem(x * (1 / 255)))
        x = self.first_block(F.relu(self.second(x)))
        x = self.second_block(F.relu(self.third(x)))
        x = self.third_block(F.relu(self.fourth(x)))
        return self.fc(F.relu(self.head(x)).flatten(1))

    def convolutions(self):
        """(name, convolution with its norm) in the order of the graph."""
        for name, m in self.named_modules():
            if isinstance(m, nn.Sequential):
                yield name, m


def cost(model):
    """(MMAC, thousand parameters after folding)."""
    macs = [0]

    def count(m, _, out):
        macs[0] += m.weight.numel() * (out.shape[2] * out.shape[3] if out.dim() == 4 else 1)

    counted = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [m.register_forward_hook(count) for m in counted]
    was = model.training
    model.eval()(torch.zeros(1, 3, SIDE, SIDE))
    model.train(was)
    for h in hooks:
        h.remove()
    return macs[0] / 1e6, sum(m.weight.numel() + m.weight.shape[0] for m in counted) / 1e3


# --- training ------------------------------------------------------------------------------


def log(**record):
    line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()})
    with open(folder() / "liveness.jsonl", "a") as f:
        f.write(line + "\n")
    print(line, flush=True)


def tensor(crops):
    """uint8 BGR N×80×80×3 to the network's input."""
    return torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float()


def batch(crops, target, step):
    """Pictures and targets of one step, half of them mirrored; a function of the seed and the step."""
    epoch, place = divmod(step, len(crops) // BATCH)
    order = np.random.default_rng((SEED, 1, epoch)).permutation(len(crops))
    rows = order[place * BATCH : (place + 1) * BATCH]
    pictures = crops[rows]
    mirror = np.random.default_rng((SEED, 2, step)).random(BATCH) < 0.5
    pictures[mirror] = pictures[mirror, :, ::-1]
    return tensor(pictures), torch.from_numpy(target[rows])


def loss_of(logits, target):
    """Soft cross-entropy less the target's own entropy, heavier where the pair is undecided."""
    live = target[:, LIVE]
    weight = 1 + BORDERLINE * 4 * live * (1 - live)
    divergence = F.kl_div(F.log_softmax(logits.float(), 1), target, reduction="none").sum(1)
    return (weight * divergence).sum() / weight.sum()


@torch.no_grad()
def average(shadow, model, step):
    """Exponential moving average of weights and of batch statistics."""
    keep = min(EMA, (1 + step) / (10 + step))
    for a, b in zip(shadow.state_dict().values(), model.state_dict().values()):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)


def load_onnx(model, path):
    """Weights of a committed file, as if each norm did nothing; training moves on from there."""
    import onnx
    from onnx import numpy_helper

    stored = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in onnx.load(str(path)).graph.initializer}
    with torch.no_grad():
        for name, (c, norm) in model.convolutions():
            c.weight.copy_(stored[f"{name}.weight"] * (255 if name == "stem" else 1))
            norm.weight.fill_(1)
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
            norm.bias.copy_(stored[f"{name}.bias"])
        model.fc.weight.copy_(stored["fc.weight"])
        model.fc.bias.copy_(stored["fc.bias"])


@torch.no_grad()
def settle(model, crops):
    """Set the norms' statistics to the data's without changing what the network computes."""
    for _, (c, norm) in model.convolutions():

        def hook(m, inputs, norm=norm):
            y = inputs[0]
            mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
            ratio = ((var + norm.eps) / (norm.running_var + norm.eps)).sqrt()
            norm.bias += (mean - norm.running_mean) * norm.weight / (norm.running_var + norm.eps).sqrt()
            norm.weight *= ratio
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)

        handle = norm.register_forward_pre_hook(hook)
        norm.handle = handle
    model.eval()(tensor(crops))
    for _, (c, norm) in model.convolutions():
        norm.handle.remove()
        del norm.handle


def train(total, start=None, rate=RATE):
    """Train until `total` samples, resuming train.pt or, if that is absent, from the ONNX file `start`."""
    path = folder() / "train.pt"
    torch.manual_seed(SEED)
    model, shadow = (Liveness().to(memory_format=torch.channels_last) for _ in range(2))
    crops, target, kind = samples()
    step, steps = 0, total // BATCH
    if start and not path.exists():
        load_onnx(model, start)
        settle(model, crops[np.random.default_rng(SEED).permutation(len(crops))[:512]])
    shadow.load_state_dict(model.state_dict())
    matrices = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    ids = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in ids]
    optimiser = torch.optim.AdamW(
        [dict(params=matrices, weight_decay=DECAY), dict(params=rest, weight_decay=0.0)], rate
    )
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        shadow.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    mmac, thousand = cost(model)
    log(event="start", step=step, steps=steps, samples=len(crops), mmac=mmac, thousand_parameters=thousand)
    log(
        by_kind={k: int((kind == i).sum()) for i, k in enumerate(KINDS)},
        live=float((target[:, LIVE] >= THRESHOLD).mean()),
    )

    def checkpoint():
        state = dict(model=model.state_dict(), ema=shadow.state_dict(), optimiser=optimiser.state_dict(), step=step)
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    began, first, cpu, saved, shown = time.monotonic(), step, time.process_time(), time.monotonic(), []
    model.train()
    while step < steps:
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        x, y = batch(crops, target, step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits, y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step += 1
        average(shadow, model, step)
        agree = (
            ((F.softmax(logits.detach().float(), 1)[:, LIVE] >= THRESHOLD) == (y[:, LIVE] >= THRESHOLD)).float().mean()
        )
        shown.append((float(loss.detach()), float(agree)))
        if step % 100 == 0:
            mean, done = np.mean(shown, 0), (step - first) * BATCH
            speed = dict(per_s=done / (time.monotonic() - began), per_cpu_s=done / (time.process_time() - cpu))
            log(step=step, epochs=step * BATCH / len(crops), loss=float(mean[0]), agreement=float(mean[1]), **speed)
            shown = []
        if time.monotonic() - saved > CHECKPOINT_S:
            checkpoint()
            saved = time.monotonic()
    checkpoint()


# --- the file ------------------------------------------------------------------------------


def folded(c, norm):
    """Weight and bias of a convolution with its norm inside."""
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return c.weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor


@torch.no_grad()
def export(out):
    """Write the averaged weights as an ONNX file of Conv, Relu, Add, Flatten and Gemm, and check it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = Liveness()
    model.load_state_dict(torch.load(folder() / "train.pt", weights_only=True)["ema"])
    model.eval()
    nodes, tensors = [], []

    def store(name, value):
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(value.float().numpy()), name))

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def convolve(x, name, relu=True):
        c, norm = model.get_submodule(name)
        weight, bias = folded(c, norm)
        store(f"{name}.weight", weight / 255 if name == "stem" else weight)
        store(f"{name}.bias", bias)
        k, p = list(c.kernel_size), c.padding[0]
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        x = node("Conv", inputs, name, kernel_shape=k, strides=list(c.stride), pads=[p] * 4)
        return node("Relu", [x], f"{name}.relu") if relu else x

    def block(x, name):
        y = convolve(convolve(x, f"{name}.a"), f"{name}.b", relu=False)
        return node("Relu", [node("Add", [x, y], f"{name}.add")], f"{name}.relu")

    x = block(convolve(convolve("input", "stem"), "second"), "first_block")
    x = block(convolve(x, "third"), "second_block")
    x = block(convolve(x, "fourth"), "third_block")
    x = node("Flatten", [convolve(x, "head")], "flat", axis=1)
    store("fc.weight", model.fc.weight)
    store("fc.bias", model.fc.bias)
    node("Gemm", [x, "fc.weight", "fc.bias"], "logits", transB=1)
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "liveness", inputs, outputs, tensors)
    about = "FaceID+ built-in liveness: raw BGR, shifted crop at 2.7; logits, class 1 live. Apache-2.0."
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], doc_string=about)
    file.ir_version, file.producer_name = 8, "liveness.py"
    onnx.checker.check_model(file, full_check=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(file, str(out))

    pictures = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
    own = model(tensor(pictures)).numpy()
    theirs = t.session(str(out)).run(None, {"input": tensor(pictures).numpy()})[0]
    mmac, thousand = cost(model)
    difference, size = float(np.abs(own - theirs).max()), out.stat().st_size
    assert difference < 1e-3 and size <= 1_000_000, (difference, size)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    log(event="export", bytes=size, sha256=digest, mmac=mmac, thousand_parameters=thousand, difference=difference)


# --- evaluation ----------------------------------------------------------------------------


def turned(points):
    """How far the nose is from the middle of the eyes, in distances between the eyes: a sign of yaw."""
    middle, across = points[:2].mean(0), points[1] - points[0]
    return abs(float((points[2] - middle) @ across / max(across @ across, 1e-6)))


def overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inter = np.prod(np.clip(high - low, 0, None))
    return inter / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter)


def probes():
    """The test faces with the pair's verdicts, cached: every clip's, and the stills.

    Boxes are YuNet's at 640, as the daemon's. Of the demo's faces `usable` says whether the daemon's
    gate would take them, roughly: 24 pixels between the eyes, no strong yaw, not dark.
    """
    cache = folder() / "probes.npz"
    if cache.exists():
        return dict(np.load(cache))
    detector, pair, rows = t.YuNet(), Pair(), []

    def add(image, box, points, group, clip, kind, visit, frame):
        crop, p = pair(image, box)
        inner = image[max(int(box[1]), 0) : int(box[3]) + 1, max(int(box[0]), 0) : int(box[2]) + 1]
        luma = cv2.cvtColor(inner, cv2.COLOR_BGR2GRAY).mean()
        usable = np.hypot(*(points[1] - points[0])) >= 24 and turned(points) < 0.5 and luma >= 25
        names = dict(group=group, clip=clip, kind=kind, visit=visit, frame=frame)
        rows.append(dict(crop=crop, pair=p, usable=bool(usable), **names))

    for path in sorted((t.shared_dir() / "faces/spoof").glob("*.jpg")):
        image = cv2.imread(str(path))
        add(image, *largest(detector, image), "still", path.stem, "live" if "_T" in path.stem else "attack", 0, 0)
    for path in sorted((t.shared_dir() / "clips").glob("*.mkv")):
        group = "shared-test" if path.stem in TEST_CLIPS else "shared-train"
        for i, image in enumerate(frames(path)):
            if found := largest(detector, image):
                add(image, *found, group, path.stem, "live", 0, i)
    for clip in DEMO_CLIPS:
        path = t.REPOSITORY / f"data/demo/{clip}.mp4"
        truth = json.loads(path.with_suffix(".json").read_text())["frames"]
        for i, (image, seen) in enumerate(zip(frames(path), truth)):
            if not seen or i % 2:
                continue
            boxes, _, points = detector(image, 640)
            for face in seen:
                same = [overlap(b, np.array(face["box"])) for b in boxes]
                if same and max(same) > 0.4:
                    k = int(np.argmax(same))
                    add(image, boxes[k], points[k], "demo", clip, face["kind"], face["visit"], i)
    table = {k: np.array([r[k] for r in rows]) for k in rows[0]}
    np.savez(cache, **table)
    return table


def evaluate(onnx_file, threshold):
    """Print everything that the model card says of the file at its threshold; the pair's is THRESHOLD."""
    p = probes()
    network = t.session(str(onnx_file))

    def live(crops):
        logits = np.concatenate([network.run(None, {"input": tensor(c[None]).numpy()})[0] for c in crops])
        return torch.from_numpy(logits).softmax(1).numpy()[:, LIVE]

    mine, pair = live(p["crop"]), p["pair"][:, LIVE]

    def agreement(rows, name, mine=mine, pair=pair):
        mine, pair = mine[rows], pair[rows]
        passed, wanted = mine >= threshold, pair >= THRESHOLD
        parts = [
            f"{word} {passed[w].mean():.1%} passed"
            for w, word in ((wanted, "of its live"), (~wanted, "of its refused"))
            if w.any()
        ]
        print(
            f"{name:16} n={len(mine):5} agreement {(passed == wanted).mean():6.1%}, mean difference "
            f"{np.abs(mine - pair).mean():.3f}; the pair passed {wanted.mean():.1%}; {', '.join(parts)}"
        )

    print(
        f"threshold {threshold} on class {LIVE}, the pair's {THRESHOLD}\n\n"
        "stills: the student's and the pair's live score"
    )
    for i in np.where(p["group"] == "still")[0]:
        print(f"  {p['clip'][i]} ({p['kind'][i]}): {mine[i]:.3f} {pair[i]:.3f}")
    print("\nverdicts on single frames")
    for group in ("shared-test", "shared-train", "demo"):
        agreement(p["group"] == group, group)
        for clip in np.unique(p["clip"][p["group"] == group]):
            rows = (p["group"] == group) & (p["clip"] == clip)
            agreement(rows, f"  {clip}")
            kinds = np.unique(p["kind"][rows])
            for kind in kinds if len(kinds) > 1 else ():
                agreement(rows & (p["kind"] == kind), f"    {kind}")
    crops, target, kind = samples(held=True)
    scores = live(crops)
    print("\nphotos of held-out people, whole, placed in scenes, and as simulated attacks")
    for i, name in enumerate(KINDS):
        if (kind == i).any():
            agreement(kind == i, name, scores, target[:, LIVE])
    agreement(kind >= 0, "all", scores, target[:, LIVE])
    print("\nvisits: mean over the usable frames (least and most of the running mean from the third frame on)")
    for clip in DEMO_CLIPS:
        for visit in np.unique(p["visit"][(p["group"] == "demo") & (p["clip"] == clip)]):
            rows = (p["group"] == "demo") & (p["clip"] == clip) & (p["visit"] == visit)
            kind, rows = p["kind"][rows][0], rows & p["usable"]
            if not rows.any():
                print(f"  {clip} {visit} {kind}: no usable frame")
                continue
            line = f"  {clip} {visit} {kind} n={rows.sum()}:"
            for name, score, least in (("student", mine[rows], threshold), ("pair", pair[rows], THRESHOLD)):
                running = np.cumsum(score) / np.arange(1, len(score) + 1)
                right = (score.mean() >= least) == (kind == "live")
                late = running[2:] if len(running) > 2 else running
                verdict = "right" if right else "WRONG"
                line += f" {name} {score.mean():.3f} ({late.min():.3f} to {late.max():.3f}) {verdict};"
            print(line)
    picture, times = tensor(p["crop"][:1]).numpy(), []
    for _ in range(300):
        begin = time.process_time()
        network.run(None, {"input": picture})
        times.append(time.process_time() - begin)
    print(f"\n{np.median(times) * 1e3:.2f} ms of one core, {Path(onnx_file).stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("prepare", "train", "export", "evaluate"))
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), help="this process's part of the jobs: I N")
    parser.add_argument("--samples", type=int, default=540_000)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--from", dest="start", type=Path, help="a committed ONNX file to start from")
    parser.add_argument("--out", type=Path, default=BUILT_IN)
    parser.add_argument("--threshold", type=float, default=BUILT_IN_THRESHOLD, help="of the file under evaluation")
    parser.add_argument("--onnx", type=Path, default=BUILT_IN)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if args.verb == "prepare":
        prepare(args.share)
    elif args.verb == "train":
        train(args.samples, args.start, args.rate)
    elif args.verb == "export":
        export(args.out)
    else:
        evaluate(args.onnx, args.threshold)


if __name__ == "__main__":
    main()
