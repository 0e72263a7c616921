#!/usr/bin/env python3
"""Reference vectors of every vision stage, from an implementation that shares nothing with the crate: OpenCV, NumPy, ONNX Runtime.

    python3 models/reference/make_reference.py                        drawn pictures -> tests/golden/drawn/, tests/golden/drawn.json
    python3 models/reference/make_reference.py --shared ../shared     networks on photos and clips -> tests/golden/shared.json

Needs numpy, opencv-python-headless, onnxruntime (and ffmpeg's libraries inside OpenCV for clips). The drawn pictures are made here and
belong to the project. Of photos of people only boxes, points, scores and cosines between listed photos are written, never a picture
and never an embedding.
"""
import argparse
import json
import pathlib
import tomllib

import cv2
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
ARCFACE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
RETAIL = [[40.3928, 59.081486], [87.375734, 59.081486], [64.0336, 81.984686], [44.732401, 105.560571], [83.639867, 105.560571]]


def rounded(value, digits=4):
    return np.round(np.asarray(value, np.float64), digits).tolist()


# ---- the steps ------------------------------------------------------------------------------------------------------------------

def view(image, x, y, w, h):
    """The part of `image` in a rectangle; where it reaches outside, the visible part is reflected."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    return cv2.copyMakeBorder(image[y0:y1, x0:x1], y0 - y, y + h - y1, x0 - x, x + w - x1, cv2.BORDER_REFLECT_101)


def umeyama(points, template):
    """Umeyama 1991 by singular values, as scikit-image's `_umeyama`."""
    src, dst = np.asarray(points, np.float64), np.asarray(template, np.float64)
    src_mean, dst_mean = src.mean(0), dst.mean(0)
    a, b = src - src_mean, dst - dst_mean
    u, s, v = np.linalg.svd(b.T @ a / len(src))
    d = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(d) @ v
    scale = (s * d).sum() / a.var(0).sum()
    return np.hstack([scale * rotation, (dst_mean - scale * rotation @ src_mean)[:, None]])


def minifasnet_crop(box, scale, width, height):
    """Silent-Face-Anti-Spoofing's rule: x, y, w, h of the crop."""
    x, y, w, h = box
    scale = min((height - 1) / h, (width - 1) / w, scale)
    w, h, cx, cy = w * scale, h * scale, x + w / 2, y + h / 2
    x0, y0, x1, y1 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    if x0 < 0:
        x0, x1 = 0, x1 - x0
    if y0 < 0:
        y0, y1 = 0, y1 - y0
    if x1 > width - 1:
        x0, x1 = x0 - (x1 - width + 1), width - 1
    if y1 > height - 1:
        y0, y1 = y0 - (y1 - height + 1), height - 1
    return [int(x0), int(y0), int(x1) - int(x0) + 1, int(y1) - int(y0) + 1]


def facenox_crop(box, scale):
    x, y, w, h = box
    side = int(max(w, h) * scale)
    return [int(x + w / 2 - side / 2), int(y + h / 2 - side / 2), side, side]


def decode(outputs, kind, strides, anchors, size, threshold):
    """Boxes (x, y, w, h), points and scores in the input's pixels; `outputs` is a list a stride."""
    boxes, points, scores = [], [], []
    for stride, output in zip(strides, outputs):
        columns, rows = size[0] // stride, size[1] // stride
        grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2).astype(np.float64)
        if kind == "yunet":
            score = np.sqrt(np.clip(output[0].ravel(), 0, 1) * np.clip(output[1].ravel(), 0, 1))
            raw = output[2].reshape(-1, 4)
            wh = np.exp(raw[:, 2:]) * stride
            box = np.hstack([(grid + raw[:, :2]) * stride - wh / 2, wh])
            point = (output[3].reshape(-1, 5, 2) + grid[:, None]) * stride
        else:
            score = output[0].ravel()
            centre = np.repeat(grid * stride, anchors, 0)
            raw = output[1].reshape(-1, 4) * stride
            box = np.hstack([centre - raw[:, :2], raw[:, :2] + raw[:, 2:]])
            point = output[2].reshape(-1, 5, 2) * stride + centre[:, None]
        keep = score >= threshold
        boxes.append(box[keep]), points.append(point[keep]), scores.append(score[keep])
    return np.concatenate(boxes), np.concatenate(points), np.concatenate(scores)


def suppress(boxes, points, scores, threshold, nms_iou):
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), threshold, nms_iou)
    return [(boxes[i], points[i], scores[i]) for i in np.asarray(kept).ravel()]


def softmax(logits):
    e = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return e / e.sum()


# ---- drawn pictures -------------------------------------------------------------------------------------------------------------

def scene(width, height):
    """Gradients, a checker, and two shapes like faces. RGB."""
    ys, xs = np.mgrid[:height, :width].astype(np.float64)
    image = np.stack([40 + 180 * xs / width, 200 - 150 * ys / height, 90 + 60 * np.sin(xs / 9) * np.cos(ys / 7)], -1)
    checker = ((xs // 6 + ys // 6) % 2 == 0) & (xs > width * 0.75)
    image[checker] = [230, 220, 40]
    image = np.ascontiguousarray(np.clip(np.round(image), 0, 255).astype(np.uint8))
    for cx, cy, size, skin in [(0.3, 0.5, 0.3, (205, 160, 130)), (0.62, 0.35, 0.16, (120, 80, 60))]:
        at = lambda dx, dy: (int(cx * width + dx * size * height), int(cy * height + dy * size * height))
        r = lambda k: max(1, int(k * size * height))
        cv2.ellipse(image, at(0, 0), (r(0.75), r(1.0)), 0, 0, 360, skin, -1, cv2.LINE_AA)
        for side in (-1, 1):
            cv2.circle(image, at(side * 0.3, -0.25), r(0.1), (250, 250, 250), -1, cv2.LINE_AA)
            cv2.circle(image, at(side * 0.3, -0.25), r(0.05), (30, 30, 60), -1, cv2.LINE_AA)
        cv2.line(image, at(0, -0.15), at(0, 0.15), (90, 60, 50), r(0.05), cv2.LINE_AA)
        cv2.ellipse(image, at(0, 0.45), (r(0.3), r(0.1)), 0, 0, 180, (170, 50, 60), -1, cv2.LINE_AA)
    return image


def save(folder, name, rgb):
    cv2.imwrite(str(folder / name), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def yuv_planes(rgb, bt709, full):
    kr, kb = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    r, g, b = [rgb[..., i].astype(np.float64) for i in range(3)]
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    black, luma, chroma = (0, 1, 1) if full else (16, 219 / 255, 224 / 255)
    half = lambda p: (p[0::2, 0::2] + p[1::2, 0::2] + p[0::2, 1::2] + p[1::2, 1::2]) / 4
    planes = [y * luma + black, half(u) * chroma + 128, half(v) * chroma + 128]
    return [np.clip(np.round(p), 0, 255).astype(np.uint8) for p in planes]


def yuv_to_rgb(planes, bt709, full):
    kr, kb = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    height, width = planes[0].shape
    black, luma, chroma = (0, 1, 1) if full else (16, 219 / 255, 224 / 255)
    y = (planes[0].astype(np.float64) - black) / luma
    u, v = [cv2.resize((p.astype(np.float64) - 128) / chroma, (width, height), interpolation=cv2.INTER_LINEAR) for p in planes[1:]]
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return np.stack([r, (y - kr * r - kb * b) / (1 - kr - kb), b], -1)


def taps(count, start, length, total):
    """Weights (count x total) of a bilinear resize of `length` samples from `start`, reflected where they lie outside."""
    low, high = max(start, 0), min(start + length, total) - 1
    at = np.clip((np.arange(count) + 0.5) * length / count - 0.5, 0, length - 1) + start
    folded = (at - low) % (2 * (high - low))
    return low + np.minimum(folded, 2 * (high - low) - folded)


def weights(at, total):
    return np.stack([np.interp(at, np.arange(total), unit) for unit in np.eye(total)], -1)


def resize_planes(planes, rectangle, size, bt709, full):
    """Every plane resized alone, in exact arithmetic, then RGB. Chroma lies in the middle of its four luma pixels."""
    x, y, w, h = rectangle
    height, width = planes[0].shape
    columns, rows = taps(size[0], x, w, width), taps(size[1], y, h, height)
    resized = [weights(rows, height) @ planes[0] @ weights(columns, width).T]
    for plane in planes[1:]:
        resized.append(weights((rows + 0.5) / 2 - 0.5, plane.shape[0]) @ plane @ weights((columns + 0.5) / 2 - 0.5, plane.shape[1]).T)
    return yuv_to_rgb(resized, bt709, full)


def posed(yaw, pitch, roll):
    """Five points of an average face (millimetres, x right, y down, z towards the camera), turned and projected without perspective."""
    face = np.array([[-31.5, 0, 0], [31.5, 0, 0], [0, 36.0, 38.0], [-26, 72.7, 4.0], [26, 72.7, 4.0]])
    yaw, pitch, roll = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return (face @ about_x.T @ about_y.T @ about_z.T)[:, :2] + 200


def drawn():
    folder = GOLDEN / "drawn"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    pictures = {"scene.png": scene(192, 144), "noise.png": rng.integers(0, 256, (35, 53, 3), np.uint8)}
    for name, rgb in pictures.items():
        save(folder, name, rgb)
    out = {"resize": [], "align": [], "yuv": [], "decode": [], "softmax": [], "crops": [], "quality": [], "pose": []}
    for i, (name, rectangle, size) in enumerate([
        ("scene.png", (0, 0, 192, 144), (64, 48)), ("scene.png", (0, 0, 192, 144), (96, 72)), ("scene.png", (0, 0, 192, 144), (80, 60)),
        ("scene.png", (31, 17, 75, 99), (80, 80)), ("scene.png", (100, 40, 20, 20), (80, 80)), ("scene.png", (-20, -30, 120, 120), (64, 64)),
        ("scene.png", (130, 90, 100, 100), (128, 128)), ("noise.png", (0, 0, 53, 35), (20, 33)), ("noise.png", (-40, 3, 90, 90), (45, 45)),
    ]):
        expected = f"resize_{i}.png"
        save(folder, expected, cv2.resize(view(pictures[name], *rectangle), size, interpolation=cv2.INTER_LINEAR))
        out["resize"].append({"picture": name, "view": rectangle, "size": size, "expected": expected})
    base = np.asarray(ARCFACE)
    for i, (name, template, side, scale, turn, shift, jitter) in enumerate([
        ("scene.png", ARCFACE, 112, 0.75, 12, (5, 20), 1.5), ("scene.png", RETAIL, 128, 1.4, -25, (-10, 20), 3.0),
        ("scene.png", ARCFACE, 112, 0.4, 80, (110, 40), 0.5), ("scene.png", ARCFACE, 112, 1.2, 3, (90, 60), 2.0),
    ]):
        c, s = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
        points = base @ np.array([[c, -s], [s, c]]).T + shift + rng.normal(0, jitter, (5, 2))
        points = np.round(points, 3).astype(np.float32).astype(np.float64)
        matrix = umeyama(points, template)
        warped = cv2.warpAffine(pictures[name], matrix, (side, side), flags=cv2.INTER_LINEAR, borderValue=0)
        expected = f"align_{i}.png"
        save(folder, expected, warped)
        gray = cv2.cvtColor(warped, cv2.COLOR_RGB2GRAY)
        inner = (slice(side // 3, side - side // 8), slice(side // 4, side - side // 4))
        out["align"].append({"picture": name, "points": points.tolist(), "template": template, "side": side,
                             "matrix": rounded(matrix, 6), "expected": expected})
        out["quality"].append({"aligned": expected, "sharpness": rounded(cv2.Laplacian(gray, cv2.CV_64F)[inner].var()),
                               "luma": rounded(gray[inner].mean())})
    # Colours of a camera are smooth; the checker's one-pixel colour edges are not, so chroma comes from a blurred scene.
    small = cv2.GaussianBlur(scene(96, 72), (5, 5), 1.2)
    for i, (bt709, full, rectangle, size) in enumerate([
        (False, False, (0, 0, 96, 72), (48, 36)), (True, False, (0, 0, 96, 72), (32, 24)), (False, True, (11, 7, 50, 40), (80, 80)),
        (True, True, (-13, 30, 60, 60), (40, 40)),
    ]):
        planes = yuv_planes(small, bt709, full)
        name, expected = f"yuv_{i}.i420", f"yuv_{i}.png"
        (folder / name).write_bytes(b"".join(p.tobytes() for p in planes))
        rgb = resize_planes(planes, rectangle, size, bt709, full)
        save(folder, expected, np.clip(np.round(rgb), 0, 255).astype(np.uint8))
        points = np.round(base * 0.5 + [8, 2], 3)
        full_rgb = np.clip(np.round(yuv_to_rgb(planes, bt709, full)), 0, 255).astype(np.uint8)
        save(folder, f"yuv_align_{i}.png", cv2.warpAffine(full_rgb, umeyama(points, ARCFACE), (112, 112), flags=cv2.INTER_LINEAR))
        out["yuv"].append({"file": name, "picture_size": [96, 72], "bt709": bt709, "full_range": full, "view": rectangle, "size": size,
                           "expected": expected, "points": points.tolist(), "aligned": f"yuv_align_{i}.png"})
    for kind, anchors, threshold, nms_iou in [("yunet", 1, 0.6, 0.3), ("scrfd", 2, 0.5, 0.4)]:
        strides, size, outputs = [8, 16, 32], (96, 64), []
        for stride in strides:
            n = (size[0] // stride) * (size[1] // stride) * anchors
            score = np.where(rng.random(n) < 0.35, rng.uniform(0.3, 1.05, n), rng.uniform(0, 0.2, n))
            if kind == "yunet":
                output = [score, np.clip(score + rng.normal(0, 0.1, n), -0.1, 1.1), rng.normal(0, 0.7, (n, 4)), rng.normal(0, 0.8, (n, 10))]
            else:
                output = [np.minimum(score, 1), rng.uniform(0.2, 2.0, (n, 4)), rng.normal(0, 1.5, (n, 10))]
            outputs.append([np.round(o, 3).astype(np.float32) for o in output])
        boxes, points, scores = decode([[o.astype(np.float64) for o in s] for s in outputs], kind, strides, anchors, size, threshold)
        faces = suppress(boxes, points, scores, threshold, nms_iou)
        out["decode"].append({
            "kind": kind, "anchors": anchors, "size": size, "strides": strides, "confidence": threshold, "nms_iou": nms_iou,
            "outputs": [[rounded(o.ravel(), 3) for o in s] for s in outputs],
            "faces": [{"box": rounded(b), "points": rounded(p), "confidence": rounded(s, 5)} for b, p, s in faces]})
    for logits in [[0.0, 0.0, 0.0], [2.5, -1.25, 0.5], [-40.0, 60.0], [1000.0, 999.0, -1000.0]]:
        out["softmax"].append({"logits": logits, "shares": rounded(softmax(logits), 6)})
    for box in [(50, 40, 30, 36), (0, 0, 30.5, 40.25), (150.3, 100.9, 40, 60), (-5.5, 20, 60, 50), (170, 10, 12.5, 12.5), (30, -20, 100, 160)]:
        out["crops"].append({"box": box, "size": [192, 144], "minifasnet_2.7": minifasnet_crop(box, 2.7, 192, 144),
                             "minifasnet_4.0": minifasnet_crop(box, 4.0, 192, 144), "facenox_1.5": facenox_crop(box, 1.5)})
    for yaw, pitch, roll in [(0, 0, 0), (20, 0, 0), (-35, 0, 0), (0, 20, 0), (0, -20, 0), (0, 0, 25), (15, 10, -20), (50, 0, 0)]:
        out["pose"].append({"points": rounded(posed(yaw, pitch, roll)), "yaw": yaw, "pitch": pitch, "roll": roll})
    (GOLDEN / "drawn.json").write_text(json.dumps(out, separators=(",", ":")).replace('},{"', '},\n{"') + "\n")


# ---- networks on shared photos and clips ----------------------------------------------------------------------------------------

PHOTOS = [f"faces/lfw/images/{p}/{p}_{n:04d}.jpg" for p in
          ("Abdullah_Gul", "Colin_Powell", "George_W_Bush", "Serena_Williams") for n in (1, 2)]
STILLS = [f"faces/spoof/image_{n}.jpg" for n in ("F1", "F2", "T1")]
FRAMES = [("clips/again.mkv", 20), ("clips/brother.mkv", 21), ("clips/bird.mkv", 20), ("clips/milk.mkv", 21)]
DETECTORS = ["yunet-n-320", "yunet-2023mar", "yunet-n-640x384", "scrfd-500m"]
LIVENESS = ["minifasnet-v2", "minifasnet-v1se", "facenox"]
EMBEDDERS = ["retail-0095", "mobilefacenet-foamliu", "w600k-mbf-dequant"]


class Net:
    def __init__(self, folder, entry):
        import onnxruntime
        self.entry, self.input = entry, entry["input"]
        self.session = onnxruntime.InferenceSession(str(folder / entry["file"]), providers=["CPUExecutionProvider"])
        self.names = [o.name for o in self.session.get_outputs()]

    def run(self, rgb):
        """`rgb` is a picture of the input's size."""
        x = rgb.astype(np.float32)
        if self.input["color"] == "bgr":
            x = x[..., ::-1]
        x = (x - np.float32(self.input["mean"])) / np.float32(self.input["deviation"])
        outputs = self.session.run(None, {self.session.get_inputs()[0].name: np.ascontiguousarray(x.transpose(2, 0, 1)[None])})
        return dict(zip(self.names, outputs))


def detect(net, rgb):
    role = net.entry["role"]["detector"]
    width, height = net.input["width"], net.input["height"]
    ratio = min(width / rgb.shape[1], height / rgb.shape[0])
    placed = int(round(rgb.shape[1] * ratio)), int(round(rgb.shape[0] * ratio))
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[:placed[1], :placed[0]] = cv2.resize(rgb, placed, interpolation=cv2.INTER_LINEAR)
    outputs = net.run(canvas)
    if "yunet" in role["decode"]:
        strides, anchors, kind = role["decode"]["yunet"]["strides"], 1, "yunet"
        lists = [[outputs[f"{k}_{s}"] for k in ("cls", "obj", "bbox", "kps")] for s in strides]
    else:
        scrfd = role["decode"]["scrfd"]
        strides, anchors, kind = scrfd["strides"], scrfd["anchors"], "scrfd"
        lists = [[outputs[scrfd["outputs"][i + k * len(strides)]] for k in range(3)] for i in range(len(strides))]
    found = decode(lists, kind, strides, anchors, (width, height), role["confidence"])
    faces = []
    for box, points, score in suppress(*found, role["confidence"], role["nms-iou"]):
        # Neighbouring cells of nearly equal confidence: a grey level decides which of them is kept.
        rivals = [{"box": rounded(b / ratio, 2), "points": rounded(p / ratio, 2)} for b, p, s in zip(*found)
                  if score - 0.005 < s < score and np.abs(b - box).max() < 0.5 * box[2:].max()]
        faces.append({"box": rounded(box / ratio, 2), "points": rounded(points / ratio, 2), "confidence": rounded(score), "rivals": rivals})
    return faces


def shared(folder, manifest):
    entries = tomllib.loads(manifest.read_text())["models"]
    nets = {name: Net(folder / "models", entries[name]) for name in DETECTORS + LIVENESS + EMBEDDERS}
    pictures = []
    for name in PHOTOS + STILLS:
        image = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)  # turned as its EXIF says
        pictures.append(({"file": name}, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    for name, number in FRAMES:
        capture = cv2.VideoCapture(str(folder / name))
        for _ in range(number + 1):
            ok, image = capture.read()
        pictures.append(({"file": name, "frame": number}, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    out, embeddings = {"detectors": DETECTORS, "liveness": LIVENESS, "pictures": [], "cosines": {}}, {name: [] for name in EMBEDDERS}
    for place, rgb in pictures:
        entry = {**place, "faces": {}, "live": {}}
        for name in DETECTORS:
            entry["faces"][name] = detect(nets[name], rgb)
        # The later stages start from the numbers that are written, so that each stage is judged alone.
        box, points = (entry["faces"][DETECTORS[0]][0][key] for key in ("box", "points"))
        for name in LIVENESS:
            role, size = nets[name].entry["role"]["liveness"], (nets[name].input["width"], nets[name].input["height"])
            rule = minifasnet_crop(box, role["scale"], rgb.shape[1], rgb.shape[0]) if role["crop"] == "shifted" else facenox_crop(box, role["scale"])
            crop = cv2.resize(view(rgb, *rule), size, interpolation=cv2.INTER_LINEAR)
            (logits,) = nets[name].run(crop).values()
            entry["live"][name] = rounded(softmax(logits.ravel())[role["live-class"]])
        for name in EMBEDDERS:
            role, side = nets[name].entry["role"]["embedder"], nets[name].input["width"]
            aligned = cv2.warpAffine(rgb, umeyama(points, role["template"]), (side, side), flags=cv2.INTER_LINEAR, borderValue=0)
            (vector,) = nets[name].run(aligned).values()
            embeddings[name].append(vector.ravel() / np.linalg.norm(vector))
        out["pictures"].append(entry)
    for name in EMBEDDERS:
        vectors = np.stack(embeddings[name]).astype(np.float64)
        out["cosines"][name] = [rounded(row[:i]) for i, row in enumerate(vectors @ vectors.T)]
    (GOLDEN / "shared.json").write_text(json.dumps(out, separators=(",", ":")).replace('},{"file', '},\n{"file') + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=pathlib.Path, help="folder with models/, faces/ and clips/")
    parser.add_argument("--manifest", type=pathlib.Path, default=ROOT / "models" / "manifest.toml")
    arguments = parser.parse_args()
    if arguments.shared:
        shared(arguments.shared, arguments.manifest)
    else:
        drawn()
