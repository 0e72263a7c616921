"""The third-party networks that label the training data, and the geometry they share.

Nothing here is trained. Each class wraps one ONNX file of `FACEID_SHARED/models` (default
`../shared` beside the checkout) and hides how that network wants its pixels; images are
OpenCV's `H×W×3` uint8 BGR everywhere, points are `(5, 2)` float32 in pixels in the template's
order (eye on the image's left, other eye, nose, mouth left, mouth right), boxes are
`x0, y0, x1, y1`.
"""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

REPOSITORY = Path(__file__).resolve().parents[2]


def shared_dir():
    """The folder with the photos and the teachers, which are never committed."""
    return Path(os.environ.get("FACEID_SHARED", REPOSITORY.parent / "shared"))


def work_dir():
    """The folder for caches, logs and checkpoints; it must be named, so that it is never the tree."""
    if "FACEID_TRAIN_DIR" not in os.environ:
        raise SystemExit("set FACEID_TRAIN_DIR to a folder outside the repository")
    path = Path(os.environ["FACEID_TRAIN_DIR"])
    path.mkdir(parents=True, exist_ok=True)
    return path


def is_held_out(name, photos):
    """Whether a person is kept out of all training.

    A tenth of all people by a hash of the name, and half of those with ten photos or more, so
    that the identification test has a gallery. The two choices use different bytes of the hash.
    """
    digest = hashlib.sha256(str(name).encode()).digest()
    tenth = int.from_bytes(digest[:4], "big") % 10 == 0
    half = digest[8] % 2 == 0
    return bool(tenth or (photos >= 10 and half))


# The ArcFace template on 112×112, and the one of retail-0095 on 128×128.
ARCFACE_112 = np.float32(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
RETAIL_128 = 128 * np.float32(
    [
        [0.31556875, 0.46157411],
        [0.68262292, 0.46157411],
        [0.50026250, 0.64050536],
        [0.34947188, 0.82469196],
        [0.65343646, 0.82469196],
    ]
)


def umeyama(source, target):
    """The 2×3 similarity that maps `source` to `target` with least squares (Umeyama 1991)."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    s, t = source - source_mean, target - target_mean
    u, d, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / s.var(0).sum()
    return np.hstack([scale * rotation, (target_mean - scale * rotation @ source_mean)[:, None]])


def align(image, points, template=ARCFACE_112, size=112, margin=0):
    """The face on the template's square, with `margin` more pixels on each side."""
    matrix = umeyama(points.astype(np.float64), template.astype(np.float64) + margin)
    side = size + 2 * margin
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)


def shifted(image, box, scale, side):
    """The crop of Silent-Face-Anti-Spoofing, as src/vision/liveness.rs does it, or None.

    The scale is lowered until the crop fits the picture, then the crop, centred on the box, is
    shifted inside; both corners are cut to whole pixels and belong to it.
    """
    (height, width), (x0, y0, x1, y1) = image.shape[:2], map(float, box)
    w, h = x1 - x0, y1 - y0
    if not (w >= 1 and h >= 1 and x0 < width and y0 < height and x1 > 0 and y1 > 0):
        return None
    scale = min(scale, (width - 1) / w, (height - 1) / h)

    def span(middle, length, end):
        low, high = middle - length * scale / 2, middle + length * scale / 2
        if low < 0:
            low, high = 0.0, high - low
        if high > end:
            low, high = low - (high - end), float(end)
        low, high = int(max(low, 0.0)), int(min(max(high, 0.0), end))
        return slice(low, max(high, low) + 1)

    part = image[span((y0 + y1) / 2, h, height - 1), span((x0 + x1) / 2, w, width - 1)]
    return cv2.resize(part, (side, side), interpolation=cv2.INTER_LINEAR)


def normalised(x):
    """Rows of length one."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def session(name, threads=1):
    """An ONNX Runtime session on a file of the shared models; one thread, so that nothing spins."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    path = name if Path(name).exists() else shared_dir() / "models" / name
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def nms(boxes, scores, iou=0.3):
    """Indices of the boxes that survive greedy suppression, best first."""
    order, keep = np.argsort(-scores), []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        i, rest = order[0], order[1:]
        keep.append(i)
        low = np.maximum(boxes[i, :2], boxes[rest, :2])
        high = np.minimum(boxes[i, 2:], boxes[rest, 2:])
        inter = np.prod(np.clip(high - low, 0, None), 1)
        order = rest[inter / (area[i] + area[rest] - inter) <= iou]
    return np.array(keep, int)


def decode_yunet(outputs, width, threshold=0.6, iou=0.3):
    """Boxes, scores and points of one image from the twelve YuNet outputs (dict by name)."""
    boxes, scores, points = [], [], []
    for stride in (8, 16, 32):
        cls, obj, box, kps = (outputs[f"{k}_{stride}"][0] for k in ("cls", "obj", "bbox", "kps"))
        score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        keep = np.where(score > threshold)[0]
        cell = np.stack([keep % (width // stride), keep // (width // stride)], 1).astype(np.float32)
        centre = (cell + box[keep, :2]) * stride
        half = np.exp(box[keep, 2:]) * stride / 2
        boxes.append(np.hstack([centre - half, centre + half]))
        scores.append(score[keep])
        points.append((kps[keep].reshape(-1, 5, 2) + cell[:, None]) * stride)
    boxes, scores, points = map(np.concatenate, (boxes, scores, points))
    keep = nms(boxes, scores, iou)
    return boxes[keep], scores[keep], points[keep]


class YuNet:
    """A detector with YuNet's outputs, at any input size that its file allows."""

    def __init__(self, name="yunet_n_dynamic.onnx", threads=1):
        self.session = session(name, threads)
        self.names = [o.name for o in self.session.get_outputs()]
        self.input = self.session.get_inputs()[0].name

    def __call__(self, image, size, threshold=0.6):
        """Detect on the image scaled into `size`×`size` (top left, zero padding)."""
        scale = size / max(image.shape[:2])
        padded = np.zeros((size, size, 3), np.float32)
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        resized = resized[:size, :size]
        padded[: resized.shape[0], : resized.shape[1]] = resized
        values = self.session.run(None, {self.input: padded.transpose(2, 0, 1)[None]})
        boxes, scores, points = decode_yunet(dict(zip(self.names, values)), size, threshold)
        return boxes / scale, scores, points / scale


class Foamliu:
    """MobileFaceNet, 128 numbers, on ArcFace crops."""

    def __init__(self, threads=1):
        self.session = session("mobilefacenet_foamliu_128d.onnx", threads)

    def __call__(self, crop):
        x = crop[..., ::-1].astype(np.float32) / 255
        x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        return self.session.run(None, {"input0": x.transpose(2, 0, 1)[None]})[0][0]


class Retail:
    """face-reidentification-retail-0095, 256 numbers, on crops of its own template."""

    def __init__(self, threads=1):
        self.session = session("face_reid_retail_0095.onnx", threads)

    def __call__(self, crop):
        x = crop.astype(np.float32).transpose(2, 0, 1)[None]
        return self.session.run(None, {"input": x})[0][0]


def flip_averaged(teacher, crop):
    """The mean direction of a crop and its mirror image, of length one."""
    a, b = teacher(crop), teacher(np.ascontiguousarray(crop[:, ::-1]))
    return normalised(normalised(a) + normalised(b)).astype(np.float32)


class BatchedTeachers:
    """Both embedders on many 144-pixel crops (the template with 16 pixels around it) at once.

    OpenVINO computes them in bfloat16 where the CPU has it, at more than twice the speed of float32.
    """

    def __init__(self, batch, threads=1):
        import openvino

        core = openvino.Core()

        def compiled(name):
            model = core.read_model(shared_dir() / "models" / name)
            model.reshape({model.inputs[0]: [batch, *list(model.inputs[0].partial_shape)[1:]]})
            return core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})

        self.foamliu, self.retail = compiled("mobilefacenet_foamliu_128d.onnx"), compiled("face_reid_retail_0095.onnx")
        self.to_retail = umeyama(ARCFACE_112.astype(np.float64) + 16, RETAIL_128.astype(np.float64))

    def __call__(self, crops):
        """(retail, foamliu): N×256 and N×128, rows of length one."""
        x = np.stack([c[16:-16, 16:-16, ::-1] for c in crops]).astype(np.float32) / 255
        x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        y = np.stack([cv2.warpAffine(c, self.to_retail, (128, 128), flags=cv2.INTER_LINEAR) for c in crops]).astype(np.float32)
        foamliu = self.foamliu(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))[0]
        retail = self.retail(np.ascontiguousarray(y.transpose(0, 3, 1, 2)))[0]
        # foamliu's file flattens to one row whatever the batch.
        return normalised(np.array(retail)), normalised(np.array(foamliu).reshape(len(crops), 128))
