"""Third-party networks as measuring tools: detection, points, embeddings, liveness.

The files lie in `$FACEID_SHARED/models` and are never part of this repository. How each is
read (channel order, scaling, crops) follows the README beside them. Images are H×W×3 uint8 in
OpenCV's BGR order throughout.
"""
from functools import lru_cache
from pathlib import Path
import os

import cv2
import numpy as np
import onnxruntime as ort

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
SHARED = Path(os.environ.get("FACEID_SHARED", REPOSITORY.parent / "shared"))
# The face model is made from photos of real people: it stays in the ignored cache folder.
CACHE = Path(os.environ.get("FACEID_DEMO_CACHE", REPOSITORY / ".cache" / "demo"))

ARCFACE_112 = np.float32([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366],
                          [41.5493, 92.3655], [70.7299, 92.2041]])
RETAIL_128 = 128 * np.float32([[.31556875, .46157411], [.68262292, .46157411],
                               [.50026250, .64050536], [.34947188, .82469196],
                               [.65343646, .82469196]])


@lru_cache(maxsize=None)
def _session(name):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(SHARED / "models" / name), options,
                                   providers=["CPUExecutionProvider"])
    return session, session.get_inputs()[0].name


def _run(name, blob):
    session, entry = _session(name)
    return session.run(None, {entry: np.ascontiguousarray(blob, np.float32)})


def _names(name):
    return [o.name for o in _session(name)[0].get_outputs()]


def unit(x):
    """Scales the last axis to L2 norm one."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def similarity(source, target):
    """2×3 similarity transform that maps `source` points onto `target` (Umeyama 1991)."""
    source, target = np.float64(source), np.float64(target)
    ms, mt = source.mean(0), target.mean(0)
    u, s, vt = np.linalg.svd((target - mt).T @ (source - ms) / len(source))
    d = np.diag([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ d @ vt
    scale = (s * np.diag(d)).sum() / ((source - ms) ** 2).sum(1).mean()
    return np.hstack([scale * rotation, (mt - scale * rotation @ ms)[:, None]])


def detect(image, threshold=.6, longest=None, name="yunet_n_dynamic.onnx"):
    """YuNet. Gives rows of x0 y0 x1 y1 score and five points (15 columns), best first."""
    h, w = image.shape[:2]
    r = 1.0 if longest is None else longest / max(h, w)
    small = image if r == 1.0 else cv2.resize(image, None, fx=r, fy=r, interpolation=cv2.INTER_AREA)
    sh, sw = small.shape[:2]
    ph, pw = -(-sh // 32) * 32, -(-sw // 32) * 32
    canvas = np.zeros((ph, pw, 3), np.float32)
    canvas[:sh, :sw] = small
    out = dict(zip(_names(name), _run(name, canvas.transpose(2, 0, 1)[None])))
    rows = []
    for s in (8, 16, 32):
        cls, obj = (np.clip(out[f"{k}_{s}"].reshape(-1), 0, 1) for k in ("cls", "obj"))
        score = np.sqrt(cls * obj)
        keep = np.flatnonzero(score > threshold)
        if not len(keep):
            continue
        cell = np.stack([keep % (pw // s), keep // (pw // s)], 1).astype(np.float32)
        b = out[f"bbox_{s}"].reshape(-1, 4)[keep]
        centre, size = (cell + b[:, :2]) * s, np.exp(b[:, 2:]) * s
        points = (out[f"kps_{s}"].reshape(-1, 5, 2)[keep] + cell[:, None]) * s
        rows.append(np.hstack([centre - size / 2, centre + size / 2, score[keep, None],
                               points.reshape(-1, 10)]))
    if not rows:
        return np.zeros((0, 15), np.float32)
    rows = np.concatenate(rows)
    rows = rows[np.argsort(-rows[:, 4])]
    kept = []
    for row in rows:
        if all(iou(row[:4], k[:4]) < .3 for k in kept):
            kept.append(row)
    kept = np.stack(kept)
    kept[:, :4] /= r
    kept[:, 5:] /= r
    return kept


def iou(a, b):
    """Intersection over union of two x0 y0 x1 y1 boxes."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(w * h / (area - w * h))


def points68(image, box):
    """PFLD's 68 points in image coordinates (a tool only: its repository states no licence)."""
    x0, y0, x1, y1 = box[:4]
    side = max(x1 - x0, y1 - y0) * 1.1
    m = np.float32([[112 / side, 0, 56 - (x0 + x1) / 2 * 112 / side],
                    [0, 112 / side, 56 - (y0 + y1) / 2 * 112 / side]])
    crop = cv2.warpAffine(image, m, (112, 112), flags=cv2.INTER_LINEAR)
    blob = crop[:, :, ::-1].transpose(2, 0, 1)[None] / 255.0
    p = _run("pfld_68.onnx", blob)[0].reshape(68, 2) * 112
    return ((p - m[:, 2]) / m[0, 0]).astype(np.float32)


def embed(image, five):
    """foamliu 128-D and retail-0095 256-D embeddings of one face, each of unit length."""
    five = np.float32(five).reshape(5, 2)
    a = cv2.warpAffine(image, similarity(five, ARCFACE_112), (112, 112))
    a = (a[:, :, ::-1] / 255.0 - [.485, .456, .406]) / [.229, .224, .225]
    b = cv2.warpAffine(image, similarity(five, RETAIL_128), (128, 128))
    return (unit(_run("mobilefacenet_foamliu_128d.onnx", a.transpose(2, 0, 1)[None])[0].reshape(-1)),
            unit(_run("face_reid_retail_0095.onnx", b.transpose(2, 0, 1)[None])[0].reshape(-1)))


def _softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def _fas_crop(image, box, wanted):
    h, w = image.shape[:2]
    bw, bh = box[2] - box[0], box[3] - box[1]
    scale = min((h - 1) / bh, (w - 1) / bw, wanted)
    cw, ch = bw * scale, bh * scale
    x0 = min(max((box[0] + box[2]) / 2 - cw / 2, 0), w - 1 - cw)
    y0 = min(max((box[1] + box[3]) / 2 - ch / 2, 0), h - 1 - ch)
    crop = image[int(y0):int(y0 + ch) + 1, int(x0):int(x0 + cw) + 1]
    return cv2.resize(crop, (80, 80))


def liveness(image, box):
    """P(live) by the MiniFASNet pair (mean of both) and by facenox."""
    pair = []
    for name, scale in (("2.7_80x80_MiniFASNetV2.onnx", 2.7), ("4_0_0_80x80_MiniFASNetV1SE.onnx", 4.0)):
        blob = _fas_crop(image, box, scale).transpose(2, 0, 1)[None]
        pair.append(_softmax(_run(name, blob)[0].reshape(-1))[1])
    side = int(max(box[2] - box[0], box[3] - box[1]) * 1.5)
    pad = side
    padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
    x = int((box[0] + box[2]) / 2 - side / 2) + pad
    y = int((box[1] + box[3]) / 2 - side / 2) + pad
    x, y = max(x, 0), max(y, 0)
    crop = cv2.resize(padded[y:y + side, x:x + side], (128, 128), interpolation=cv2.INTER_AREA)
    facenox = _softmax(_run("antispoof_facenox_98.20.onnx",
                            crop[:, :, ::-1].transpose(2, 0, 1)[None] / 255.0)[0].reshape(-1))[0]
    return float(np.mean(pair)), float(facenox), [float(p) for p in pair]
