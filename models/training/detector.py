"""Train the built-in detector: a small dense ReLU network with YuNet's outputs that copies YuNet.

    python detector.py pictures --count 10000   # draw and label training pictures, in chunks
    python detector.py train --samples 80000    # resumes from detector.pt, stop and start at will
    python detector.py train --samples 80000 --from ../builtin/detector.onnx
    python detector.py export [FILE.onnx]       # default models/builtin/detector.onnx
    python detector.py evaluate [FILE.onnx]
    python detector.py bench [FILE.onnx]        # CPU time against the teacher's

The teacher (yunet_n_dynamic) labels every picture densely and at the same resolution: the student
learns, cell by cell, the score that a caller thresholds, √(cls·obj), and where that is a face's the
box and the points. Nothing is matched or assigned, so whatever a picture holds, cut, mirrored or
drawn, has a label. Mirroring happens before the teacher looks, never on its maps: with stride-2
convolutions a cell looks at its upper left corner, and a mirrored map would look at the other one.

The rate is constant after a warm-up and falls linearly to zero over the last part of `--samples`.
Training reads the chunks that exist, so it may start while `pictures` still draws, and looks for
new ones as it goes.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import augment
import teachers as t
from embedder import Block, average, conv, log, optimisers, save
from prepare import subject

SEED = 41
STRIDES = (8, 16, 32)
SIDE, CHUNK = 256, 250  # pictures are SIDE×SIDE, CHUNK of them a file
FACE = (14, 220)  # width of a pasted face in pixels, log-uniform
BATCH, RATE, WARM_UP, FALL = 16, 4e-3, 3_200, 0.6
FACE_SCORE = 0.3  # cells from which box and points are learned
SCALE = 1 / 128  # of the input, folded into the first convolution; no mean, so that padding is black
HEADLESS, HEADLESS_FROM = 0.5, 40  # share of photos without heads, from that chunk on
CHECKPOINT_S = 60
BUILTIN = t.REPOSITORY / "models/builtin/detector.onnx"
DEMO = t.REPOSITORY / "data/demo"
TRAIN_CLIPS = ("door", "idle", "turned-away", "too-far")  # night and dark are kept for the test
TEACHER = "yunet_n_dynamic.onnx"


# --- the network ---------------------------------------------------------------------------


class Detector(nn.Module):
    """BGR/128, H and W multiples of 32, to one 15-channel map a stride: score logit, box, points."""

    def __init__(self, stem=16, width=32):
        super().__init__()
        self.stem = nn.Sequential(conv(3, stem, stride=2), conv(stem, stem, stride=2))
        self.c8 = conv(stem, width, stride=2)
        self.c16 = nn.Sequential(conv(width, width, stride=2), Block(width))
        self.c32 = nn.Sequential(conv(width, width, stride=2), Block(width))
        self.up32, self.up16 = conv(width, width, 1, act=False), conv(width, width, 1, act=False)
        self.out = nn.ModuleList(nn.Conv2d(width, 15, 3, padding=1) for _ in STRIDES)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out")
        for m in self.out:
            nn.init.normal_(m.weight, std=0.01)
            nn.init.zeros_(m.bias)
            nn.init.constant_(m.bias[:1], -4.6)  # a face in one cell of a hundred

    def forward(self, x):
        c8 = self.c8(self.stem(x))
        c16 = self.c16(c8)
        p32 = self.c32(c16)
        p16 = F.relu(c16 + F.interpolate(self.up32(p32), scale_factor=2, mode="nearest"))
        p8 = F.relu(c8 + F.interpolate(self.up16(p16), scale_factor=2, mode="nearest"))
        return [f(p) for f, p in zip(self.out, (p8, p16, p32))]


def flat(maps):
    """The three maps as one N×cells×15 tensor, strides in order, row-major."""
    return torch.cat([m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps], 1).float()


def losses(x, target):
    """Score and geometry loss of N×cells×15 outputs against the teacher's (score, not logit)."""
    score = target[..., 0]
    # Quality focal loss (Li et al. 2020): the distance to a soft target weighs its cross entropy.
    entropy = F.binary_cross_entropy_with_logits(x[..., 0], score, reduction="none")
    distance = (x[..., 0].detach().sigmoid() - score).abs()
    faces = score > FACE_SCORE
    count = score[faces].sum() + 8  # the constant keeps a batch without faces from exploding
    fit = (distance * entropy).sum() / count
    a, b, weight = x[faces], target[faces], score[faces]
    # Lengths are measured in the face's own size, so that a large face does not weigh more.
    size = b[:, 3:5].exp().clamp(min=0.5)
    centre = (a[:, 1:3] - b[:, 1:3]) / size
    points = ((a[:, 5:] - b[:, 5:]).unflatten(1, (5, 2)) / size[:, None]).flatten(1)
    error = torch.cat([centre, a[:, 3:5] - b[:, 3:5], points], 1)
    place = F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.02, reduction="none")
    place = (place.sum(1) * weight).sum() / count
    return fit, place


# --- the pictures --------------------------------------------------------------------------


class Sources:
    """Training photos, frames and backgrounds, and pictures made of them."""

    def __init__(self):
        photos = sorted((t.shared_dir() / "faces/lfw/images").glob("*/*.jpg"))
        counts = {}
        for p in photos:
            counts[p.parent.name] = counts.get(p.parent.name, 0) + 1
        self.photos = [p for p in photos if not t.is_held_out(p.parent.name, counts[p.parent.name])]
        self.scenes, self.empty = [], []
        for name in TRAIN_CLIPS:
            truth = json.loads((DEMO / f"{name}.json").read_text())["frames"]
            step = 30 if name == "idle" else 4
            for i, frame in frames(DEMO / f"{name}.mp4", step):
                boxes = [f["box"] for f in truth[i]]
                (self.scenes if boxes else self.empty).append((encode(frame), boxes))
        # Intel's corridor (CC BY 4.0): people, mostly without a usable face. The other clips are the test.
        for _, frame in frames(t.shared_dir() / "clips/one-by-one-person-detection.mp4", 12):
            self.empty.append((encode(frame), []))

    def photo(self, rng):
        return cv2.imread(str(self.photos[rng.integers(len(self.photos))]))

    def frame(self, of, rng):
        data, boxes = of[rng.integers(len(of))]
        return cv2.imdecode(data, cv2.IMREAD_COLOR), boxes

    def face(self, h, w, rng, width=None):
        """`h`×`w` pixels of a photo, its face somewhere in them; LFW's faces are 90 pixels wide."""
        width = width or np.exp(rng.uniform(*np.log(FACE)))
        scale = min(width, 1.1 * max(h, w)) / 90
        turn = np.deg2rad(rng.normal(0, 8)) + (np.pi * rng.integers(1, 4) / 2 if rng.random() < 0.04 else 0)
        mirror = -1 if rng.random() < 0.5 else 1
        c, s = scale * np.cos(turn), scale * np.sin(turn)
        linear = np.array([[c * mirror, -s], [s * mirror, c]])
        middle = np.array([w, h]) * rng.uniform(0.15, 0.85, 2) - linear @ [125, 125]
        border = [cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE][rng.integers(3)]
        photo = self.photo(rng)
        if scale < 0.6:  # area-like: warping alone would alias
            photo = cv2.GaussianBlur(photo, (0, 0), 0.4 / scale)
        return cv2.warpAffine(photo, np.hstack([linear, middle[:, None]]), (w, h), borderMode=border)

    def mosaic(self, rng):
        """One photo, or the picture cut in two again and again, with a photo in every part."""
        out = np.zeros((SIDE, SIDE, 3), np.uint8)
        parts, depth = [(0, 0, SIDE, SIDE)], [0, 1, 2, 2, 3, 4][rng.integers(6)]
        for _ in range(depth):
            halves = []
            for x, y, w, h in parts:
                at = rng.uniform(0.35, 0.65)
                if w > h:
                    a = int(w * at)
                    halves += [(x, y, a, h), (x + a, y, w - a, h)]
                else:
                    a = int(h * at)
                    halves += [(x, y, w, a), (x, y + a, w, h - a)]
            parts = halves
        for x, y, w, h in parts:
            out[y : y + h, x : x + w] = self.face(h, w, rng)
        return out

    def background(self, of, rng, near=0.0):
        """A window of a frame at a random zoom, with the chance `near` around one of its faces."""
        frame, boxes = self.frame(of, rng)
        if rng.random() < 0.5:
            frame = frame[:, ::-1]
            boxes = [(frame.shape[1] - x1, y0, frame.shape[1] - x0, y1) for x0, y0, x1, y1 in boxes]
        # A door camera's 1280×720 is looked at at 640×384, so half size is the common case.
        scale = 0.5 if rng.random() < 0.3 else np.exp(rng.uniform(np.log(0.3), np.log(1.3)))
        small = cv2.resize(
            frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 0.8 else cv2.INTER_LINEAR
        )
        low = np.minimum(0, [small.shape[1] - SIDE, small.shape[0] - SIDE])
        high = np.maximum(0, [small.shape[1] - SIDE, small.shape[0] - SIDE])
        corner = rng.uniform(low, high + 1)
        if boxes and rng.random() < near:
            x0, y0, x1, y1 = np.array(boxes[rng.integers(len(boxes))]) * scale
            corner = np.clip(np.array([x0 + x1, y0 + y1]) / 2 - SIDE * rng.uniform(0.1, 0.9, 2), low, high)
        x, y = -corner
        return cv2.warpAffine(small, np.float32([[1, 0, int(x)], [0, 1, int(y)]]), (SIDE, SIDE))

    def pasted(self, rng):
        """Heads or whole photos on an empty frame."""
        out = self.background(self.empty, rng)
        for _ in range(rng.integers(1, 4)):
            width = np.exp(rng.uniform(np.log(FACE[0]), np.log(130)))
            w = int(width * rng.uniform(1.4, 2.6))
            h = int(min(w * rng.uniform(0.9, 1.5), SIDE))
            w = min(w, SIDE)
            x, y = rng.integers(0, SIDE - w + 1), rng.integers(0, SIDE - h + 1)
            patch = self.face(h, w, rng, width).astype(np.float32)
            mask = np.ones((h, w), np.float32)
            if rng.random() < 0.6:
                mask[:] = 0
                cv2.ellipse(mask, (w // 2, h // 2), (int(w * 0.42), int(h * 0.45)), 0, 0, 360, 1, -1)
                mask = cv2.GaussianBlur(mask, (0, 0), max(0.6, w / 25))
            part = out[y : y + h, x : x + w]
            part[:] = (patch * mask[..., None] + part * (1 - mask[..., None])).astype(np.uint8)
        return out

    def texture(self, rng):
        """No face: noise at a random grain, or a corner of a photo enlarged."""
        if rng.random() < 0.4:
            n = int(np.exp(rng.uniform(np.log(2), np.log(SIDE))))
            small = rng.integers(0, 256, (n, n, 3)).astype(np.uint8)
            return cv2.resize(small, (SIDE, SIDE), interpolation=int(rng.integers(3)))
        photo, n = self.photo(rng), int(rng.integers(40, 80))
        y, x = rng.integers(0, 2, 2) * (250 - n)
        return cv2.resize(photo[y : y + n, x : x + n], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)

    def headless(self, rng):
        """Photos whose heads are hidden, at all zooms: what is in real pictures beside faces."""
        out = np.zeros((SIDE, SIDE, 3), np.uint8)
        n = int(rng.integers(1, 4))
        edges = np.linspace(0, SIDE, n + 1).astype(int)
        for y0, y1 in zip(edges, edges[1:]):
            for x0, x1 in zip(edges, edges[1:]):
                photo, other = self.photo(rng), self.photo(rng)
                if rng.random() < 0.5:
                    photo = photo[:, ::-1].copy()
                # LFW centres its face, so the centre gives way to a corner of another photo.
                y, x = rng.integers(0, 2, 2) * 125
                patch = cv2.resize(other[y : y + 125, x : x + 125], (150, 180))
                mask = np.zeros((250, 250), np.uint8)
                cv2.ellipse(mask, (125, 120), (70, 85), 0, 0, 360, 255, -1)
                full = np.zeros_like(photo)
                full[30:210, 50:200] = patch
                photo[mask > 0] = full[mask > 0]
                h, w = y1 - y0, x1 - x0
                side = int(np.exp(rng.uniform(np.log(60), np.log(250))))
                at = rng.integers(0, 250 - side + 1, 2)
                out[y0:y1, x0:x1] = cv2.resize(
                    photo[at[0] : at[0] + side, at[1] : at[1] + side], (w, h), interpolation=cv2.INTER_AREA
                )
        return out

    def picture(self, rng, headless=0.0):
        kind = rng.random()
        if rng.random() < headless:
            x = self.headless(rng)
        elif kind < 0.46:
            x = self.mosaic(rng)
        elif kind < 0.62:
            x = self.pasted(rng)
        elif kind < 0.85:
            x = self.background(self.scenes, rng, near=0.85)
        elif kind < 0.95:
            x = self.background(self.empty, rng)
        else:
            x = self.texture(rng)
        for chance, change in (
            (0.10, augment.side_light),
            (0.12, augment.blur),
            (0.40, augment.tone),
            (0.15, augment.noise),
            (0.25, augment.jpeg),
            (0.10, lambda p, r: (p * r.uniform(0.12, 0.6)).astype(np.uint8)),
            (0.08, lambda p, _: cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)),
        ):
            if rng.random() < chance:
                x = change(x, rng)
        return np.ascontiguousarray(x)


def frames(path, step):
    """Every `step`-th frame of a clip, with its number."""
    clip, i = cv2.VideoCapture(str(path)), 0
    while clip.grab():
        if i % step == 0:
            yield i, clip.retrieve()[1]
        i += 1


def encode(frame):
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]


def label(session, picture):
    """The teacher's maps of one picture: cells×15 float16 with the score first."""
    x = picture.astype(np.float32).transpose(2, 0, 1)[None]
    values = dict(zip([o.name for o in session.get_outputs()], session.run(None, {session.get_inputs()[0].name: x})))
    rows = []
    for s in STRIDES:
        cls, obj, box, kps = (values[f"{k}_{s}"][0] for k in ("cls", "obj", "bbox", "kps"))
        score = np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))
        rows.append(np.hstack([score, box, kps]))
    return np.concatenate(rows).astype(np.float16)


def draw(count):
    """Write the chunks that are missing, each a function of the seed and its number."""
    work = t.work_dir() / "pictures"
    work.mkdir(exist_ok=True)
    sources, teacher = Sources(), t.session(TEACHER)
    print(
        f"{len(sources.photos)} photos, {len(sources.scenes)} frames with and {len(sources.empty)} without a face",
        flush=True,
    )
    for chunk in range(-(-count // CHUNK)):
        path = work / f"{chunk:04}.npz"
        if path.exists():
            continue
        rng, began = np.random.default_rng((SEED, chunk)), time.process_time()
        pictures = [sources.picture(rng, HEADLESS if chunk >= HEADLESS_FROM else 0.0) for _ in range(CHUNK)]
        maps = [label(teacher, p) for p in pictures]
        unfinished = path.with_suffix(".part.npz")
        np.savez(unfinished, pictures=np.stack(pictures), maps=np.stack(maps))
        unfinished.rename(path)
        print(path.name, f"{(time.process_time() - began) / CHUNK * 1e3:.1f} CPU-ms a picture", flush=True)


# --- training ------------------------------------------------------------------------------


class Pictures:
    """The chunks that exist, and batches of them by step number."""

    def __init__(self):
        self.chunks = []

    def look(self):
        paths = sorted((t.work_dir() / "pictures").glob("????.npz"))
        for path in paths[len(self.chunks) :]:
            with np.load(path) as f:
                self.chunks.append((f["pictures"], f["maps"]))
        return len(self.chunks) * CHUNK

    def batch(self, step):
        rng = np.random.default_rng((SEED, 1, step))
        rows = [
            (self.chunks[c], i)
            for c, i in zip(rng.integers(len(self.chunks), size=BATCH), rng.integers(CHUNK, size=BATCH))
        ]
        x = torch.from_numpy(np.stack([c[0][i] for c, i in rows])).permute(0, 3, 1, 2).float()
        # A slight change of tone after labelling: the answer should not depend on it.
        gain = torch.from_numpy(
            rng.uniform(0.75, 1.2, (BATCH, 1, 1, 1)) * rng.normal(1, 0.03, (BATCH, 3, 1, 1))
        ).float()
        x = (x * gain + torch.from_numpy(rng.normal(0, 6, (BATCH, 1, 1, 1))).float()).clamp_(0, 255)
        target = torch.from_numpy(np.stack([c[1][i] for c, i in rows])).float()
        return (x * SCALE).contiguous(memory_format=torch.channels_last), target


def rate_at(samples, total):
    return min(1.0, (samples + BATCH) / WARM_UP, max(0.0, (total - samples) / (FALL * total)))


def train(total, start=None):
    work = t.work_dir()
    path, journal = work / "detector.pt", work / "detector.jsonl"
    torch.manual_seed(SEED)
    pictures = Pictures()
    while not pictures.look():
        time.sleep(1)
    model, shadow = Detector(), Detector()
    step = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        shadow.load_state_dict(state["ema"])
        step = state["step"]
    else:
        if start:
            unfold(model, onnx.load(start), pictures.batch(0)[0])
        shadow.load_state_dict(model.state_dict())
    model = model.to(memory_format=torch.channels_last)
    opts = optimisers(model, RATE)
    if path.exists():
        for o, s in zip(opts, state["optimisers"]):
            o.load_state_dict(s)

    def checkpoint():
        save(
            path,
            model=model.state_dict(),
            ema=shadow.state_dict(),
            optimisers=[o.state_dict() for o in opts],
            step=step,
        )

    log(journal, event="start", step=step, total=total)
    saved, cpu, sums, count = time.monotonic(), time.process_time(), np.zeros(2), 0
    while step * BATCH < total:
        rate = RATE * rate_at(step * BATCH, total)
        for group in (g for o in opts for g in o.param_groups):
            group["lr"] = rate
        x, target = pictures.batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            maps = model(x)
        fit, place = losses(flat(maps), target)
        for o in opts:
            o.zero_grad()
        (fit + place).backward()
        for o in opts:
            o.step()
        step += 1
        average(shadow, model, step)
        sums, count = sums + [float(fit.detach()), float(place.detach())], count + 1
        if count == 100:
            have, spent = pictures.look(), time.process_time() - cpu
            fit, place = sums / count
            log(
                journal,
                samples=step * BATCH,
                rate=rate,
                fit=fit,
                place=place,
                pictures=have,
                per_cpu_s=count * BATCH / spent,
            )
            sums, count, cpu = np.zeros(2), 0, time.process_time()
        if time.monotonic() - saved > CHECKPOINT_S:
            checkpoint()
            saved = time.monotonic()
    checkpoint()


# --- the file ------------------------------------------------------------------------------


def pairs(model):
    """(name, convolution, its batch norm) for every normalised convolution."""
    for name, m in model.named_modules():
        if isinstance(m, nn.Sequential) and len(m) > 1 and isinstance(m[1], nn.BatchNorm2d):
            yield name, m[0], m[1]


def folded(model):
    """Weight and bias of every convolution by name, batch norm and input scale folded in."""
    out = {}
    for name, c, norm in pairs(model):
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        out[name] = c.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain
    for i, c in enumerate(model.out):
        out[f"out.{i}"] = c.weight, c.bias
    out["stem.0"] = out["stem.0"][0] * SCALE, out["stem.0"][1]
    return {k: (w.detach().numpy(), b.detach().numpy()) for k, (w, b) in out.items()}


@torch.no_grad()
def unfold(model, file, x):
    """Load an exported file's weights; the batch norms take the statistics of the batch `x`.

    Each norm is set, just before it runs, to the mean and deviation of what reaches it and to the
    gain and bias that undo them, so that the network's answers stay those of the file.
    """
    weights = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in file.graph.initializer}
    hooks = []
    for name, c, norm in pairs(model):
        c.weight.copy_(weights[f"{name}.weight"] / (SCALE if name == "stem.0" else 1))

        def settle(_, __, y, norm=norm, bias=weights[f"{name}.bias"]):
            variance, mean = torch.var_mean(y, (0, 2, 3))
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(bias + mean)

        hooks.append(c.register_forward_hook(settle))
    for i, c in enumerate(model.out):
        c.weight.copy_(weights[f"out.{i}.weight"])
        c.bias.copy_(weights[f"out.{i}.bias"])
    model.eval()(x)
    model.train()
    for h in hooks:
        h.remove()


def export(path):
    """Write the averaged weights as ONNX: convolutions, ReLU, additions, two resizes.

    Written node by node, so that there is no Shape in it (tract fixes the input's shape first) and
    the initialisers carry the training code's names, from which `--from` resumes.
    """
    state = torch.load(t.work_dir() / "detector.pt", weights_only=True)
    model = Detector()
    model.load_state_dict(state["ema"])
    model.eval()
    nodes, tensors = [], []

    def constant(name, values, kind=np.float32):
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=kind), name))
        return name

    def add(op, inputs, out, **attributes):
        nodes.append(helper.make_node(op, inputs, [out], name=out, **attributes))
        return out

    weights = folded(model)

    def convolve(x, name, stride=1, relu=True):
        w, b = weights[name]
        k = w.shape[-1]
        inputs = [x, constant(f"{name}.weight", w), constant(f"{name}.bias", b)]
        y = add("Conv", inputs, f"{name}/conv", kernel_shape=[k, k], pads=[k // 2] * 4, strides=[stride, stride])
        return add("Relu", [y], f"{name}/relu") if relu else y

    def block(x, name):
        y = convolve(convolve(x, f"{name}.a"), f"{name}.b", relu=False)
        return add("Relu", [add("Add", [x, y], f"{name}/sum")], f"{name}/relu")

    constant("twice", [1, 1, 2, 2])

    def join(c, p, name):
        y = convolve(p, name, relu=False)
        y = add(
            "Resize", [y, "", "twice"], f"{name}/twice",
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        return add("Relu", [add("Add", [c, y], f"{name}/sum")], f"{name}/relu")

    c8 = convolve(convolve(convolve("input", "stem.0", 2), "stem.1", 2), "c8", 2)
    c16 = block(convolve(c8, "c16.0", 2), "c16.1")
    p32 = block(convolve(c16, "c32.0", 2), "c32.1")
    p16 = join(c16, p32, "up32")
    p8 = join(c8, p16, "up16")
    made = {}
    for i, (s, p) in enumerate(zip(STRIDES, (p8, p16, p32))):
        rows = add("Transpose", [convolve(p, f"out.{i}", relu=False)], f"rows_{s}", perm=[0, 2, 3, 1])
        rows = add("Reshape", [rows, constant(f"shape_{s}", [0, -1, 15], np.int64)], f"cells_{s}")
        for name, low, high in (("score", 0, 1), ("bbox", 1, 5), ("kps", 5, 15)):
            limits = [
                constant(f"{name}_{s}/{k}", [v], np.int64) for k, v in (("low", low), ("high", high), ("axis", 2))
            ]
            add("Slice", [rows, *limits], f"logit_{s}" if name == "score" else f"{name}_{s}")
        # One score, given under both names: its root of the product is itself.
        for name in ("cls", "obj"):
            add("Sigmoid", [f"logit_{s}"], f"{name}_{s}")
        for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            made[name, s] = helper.make_tensor_value_info(
                f"{name}_{s}", TensorProto.FLOAT, ["batch", f"cells_{s}", width]
            )
    outputs = [made[name, s] for name in ("cls", "obj", "bbox", "kps") for s in STRIDES]
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    graph = helper.make_graph(nodes, "faceid-detector", [entry], outputs, tensors)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="faceid detector.py")
    file.ir_version = 8
    helper.set_model_props(file, dict(samples=str(state["step"] * BATCH), licence="Apache-2.0", card="detector.md"))
    onnx.checker.check_model(file)
    path.parent.mkdir(exist_ok=True)
    onnx.save(file, path)
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 96, 160)).astype(np.float32)
    with torch.no_grad():
        mine = flat(model(torch.from_numpy(picture) * SCALE))[..., 1:5].numpy()
    run = t.session(path)
    theirs = np.concatenate(run.run([f"bbox_{s}" for s in STRIDES], {"input": picture}), 1)
    differs, samples = np.abs(mine - theirs).max(), state["step"] * BATCH
    print(f"{path.name}: {path.stat().st_size} bytes, {samples} samples, differs by {differs:.1e}")


# --- measuring -----------------------------------------------------------------------------


class Network:
    """A file with YuNet's outputs, run at a fixed size with the picture letterboxed into it."""

    def __init__(self, path, width, height):
        self.session = t.session(path)
        self.size = width, height
        self.names = [o.name for o in self.session.get_outputs()]
        self.input = self.session.get_inputs()[0].name

    def __call__(self, image, threshold=0.6):
        """Boxes, points (in the picture's pixels) and scores."""
        width, height = self.size
        scale = min(width / image.shape[1], height / image.shape[0])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)[:height, :width]
        x = np.zeros((height, width, 3), np.float32)
        x[: small.shape[0], : small.shape[1]] = small
        values = self.session.run(None, {self.input: x.transpose(2, 0, 1)[None]})
        boxes, scores, points = t.decode_yunet(dict(zip(self.names, values)), width, threshold)
        return boxes / scale, points / scale, scores


def overlap(a, b):
    """IoU of every box of `a` with every box of `b`."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), 2)
    return inter / (np.prod(a[:, 2:] - a[:, :2], 1)[:, None] + np.prod(b[:, 2:] - b[:, :2], 1) - inter)


class Tally:
    """Found and missed faces, false positives and the points' error over pictures.

    The error of a face is its points' mean distance, in percent of the distance between its eyes.
    """

    def __init__(self):
        self.pictures = self.faces = self.found = self.false = 0
        self.errors = []

    def add(self, boxes, points, true_boxes, true_points, ignored=()):
        """`ignored` are indices of true faces that are neither missed nor falsely found."""
        self.pictures += 1
        if len(true_boxes):
            iou = overlap(boxes, true_boxes)
            self.false += int((iou.max(1) < 0.4).sum()) if len(boxes) else 0
        else:
            self.false += len(boxes)
        for j in range(len(true_boxes)):
            if j in ignored:
                continue
            self.faces += 1
            if len(boxes) and iou[:, j].max() >= 0.5:
                self.found += 1
                eyes = np.linalg.norm(true_points[j][0] - true_points[j][1])
                error = np.linalg.norm(points[iou[:, j].argmax()] - true_points[j], axis=1).mean()
                self.errors.append(error / max(eyes, 1e-3))

    def __str__(self):
        recall = 100 * self.found / max(1, self.faces)
        errors = 100 * np.array(self.errors or [np.nan])
        return (
            f"{recall:6.2f} % of {self.faces:4} faces, {self.false:3} false in {self.pictures:4} pictures, "
            f"points off by {errors.mean():5.2f} % (median {np.median(errors):.2f})"
        )


def evaluate(path, thresholds, photos=1000):
    """Recall, false positives and point error; the teacher at 640 is the truth where there is none."""

    def compare(title, pictures, truth, sizes):
        for name, file in (("student", path), ("teacher", TEACHER)):
            for size in sizes:
                network = Network(file, *size)
                tallies = {v: Tally() for v in (thresholds if name == "student" else (0.6,))}
                for picture, true in zip(pictures, truth):
                    # Suppression goes from the best score down, so a higher threshold only takes a part.
                    boxes, points, scores = network(picture, min(tallies))
                    for threshold, tally in tallies.items():
                        tally.add(boxes[scores > threshold], points[scores > threshold], *true)
                for threshold, tally in tallies.items():
                    print(f"{title:12} {name} {size[0]}x{size[1]} > {threshold}: {tally}", flush=True)

    held = (Path(__file__).parent / "held_out.txt").read_text().split()
    paths = [p for n in held for p in sorted((t.shared_dir() / "faces/lfw/images" / n).glob("*.jpg"))]
    order = np.random.default_rng(0).permutation(len(paths))[:photos]
    pictures = [cv2.imread(str(paths[i])) for i in order]
    large = Network(TEACHER, 640, 640)
    truth = [large(p)[:2] for p in pictures]
    compare("lfw held out", pictures, truth, [(320, 320)])
    # The person whom the photo is of; those behind are small, cut or turned away.
    subjects = []
    for picture, (boxes, points) in zip(pictures, truth):
        i = subject(boxes, np.ones(len(boxes)), picture.shape) if len(boxes) else -1
        subjects.append((boxes, points, [j for j in range(len(boxes)) if j != i]))
    compare("lfw subjects", pictures, subjects, [(320, 320)])

    pictures = [f for p in sorted((t.shared_dir() / "clips").glob("*.mkv")) for _, f in frames(p, 5)]
    large = Network(TEACHER, 640, 480)
    compare("clips", pictures, [large(p)[:2] for p in pictures], [(640, 480), (320, 256)])

    for name in (*TRAIN_CLIPS, "night", "dark"):
        truth, pictures = [], []
        frames_of = json.loads((DEMO / f"{name}.json").read_text())["frames"]
        for i, frame in frames(DEMO / f"{name}.mp4", 10 if name == "idle" else 5):
            faces = frames_of[i]
            boxes = np.float32([f["box"] for f in faces]).reshape(-1, 4)
            points = np.float32([f["points"] for f in faces]).reshape(-1, 5, 2)
            truth.append((boxes, points, [j for j, f in enumerate(faces) if abs(f["yaw"]) > 45]))
            pictures.append(frame)
        compare(name, pictures, truth, [(640, 384)])


def bench(path, rounds=60):
    """Milliseconds of one core at 640×384, the two networks in turn; the median and the least."""
    x = np.random.default_rng(0).integers(0, 256, (1, 3, 384, 640)).astype(np.float32)
    runs = {name: t.session(file) for name, file in (("student", path), ("teacher", TEACHER))}
    spent = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.process_time()
            run.run(None, {run.get_inputs()[0].name: x})
            spent[name].append((time.process_time() - begin) * 1e3)
    for name, ms in spent.items():
        print(f"{name}: {np.median(ms):.2f} ms, least {min(ms):.2f} (n = {rounds})")
    print(f"{macs(320, 320) / 1e6:.1f} MMAC at 320x320, {macs(640, 384) / 1e6:.1f} at 640x384")


def macs(width, height):
    """Multiplications of the convolutions."""
    model, total = Detector().eval(), [0]

    def count(m, _, out):
        total[0] += out.shape[2] * out.shape[3] * m.weight.numel()

    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, height, width))
    return total[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("pictures", "train", "export", "evaluate", "bench"))
    parser.add_argument("file", nargs="?", type=Path, default=BUILTIN)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=80_000)
    parser.add_argument("--from", dest="start", type=Path, help="an exported file to start from")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.6])
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if args.verb == "pictures":
        draw(args.count)
    elif args.verb == "train":
        train(args.samples, args.start)
    elif args.verb == "export":
        export(args.file)
    elif args.verb == "evaluate":
        evaluate(args.file, args.thresholds)
    else:
        bench(args.file)


if __name__ == "__main__":
    main()
