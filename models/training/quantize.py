"""Make the INT8 form of a network: weights and activations in 8 bits, said in the file itself.

    python quantize.py faceid-embedder                 # writes ../builtin/embedder_int8.onnx
    python quantize.py mobilefacenet-foamliu --out DIR # a network of FACEID_SHARED, never into the tree
    python quantize.py w600k-mbf-dequant --out DIR --form tensorrt

The result holds QuantizeLinear and DequantizeLinear pairs (explicit quantisation), so that whatever
runs it rounds at the same places. Ranges are those that calibration photos reach, of people who are
in no list that anything is evaluated on. Weights have a scale a channel. The first and the last
convolution stay in float: the first one's output has too wide a range for 8 bits before its ReLU,
the last one's is the answer.

Two forms, because the two runtimes want different things:
`cpu`       activations in 0..255 with a zero point; a convolution and its ReLU become one integer kernel of
            ONNX Runtime. TensorRT takes no zero points.
`tensorrt`  signed and symmetric, the pairs after the ReLU, where TensorRT fuses them. On a processor this runs at
            no gain.

Prints what the rounding costs on people that the calibration did not see: the cosine between both
forms' answers, and the same for weights rounded to 16 bits, the least that FP16 loses.
"""

import argparse
import hashlib
import json
import logging
import tempfile
import tomllib
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import teachers as t

PER_CHANNEL_OPSET = 13
BUILTIN = t.REPOSITORY / "models/builtin"


def free_people():
    """People in neither list of LFW that is evaluated on, nor among those held out of the training."""
    lfw = t.shared_dir() / "faces/lfw"
    taken = set((Path(__file__).parent / "held_out.txt").read_text().split())
    taken |= {word for word in (lfw / "pairs.txt").read_text().split() if not word.isdigit()}
    taken |= {line.split("/")[0] for line in (lfw / "gallery-and-probes.txt").read_text().split()}
    people = sorted(folder.name for folder in (lfw / "images").iterdir() if folder.name not in taken)
    np.random.default_rng(0).shuffle(people)
    return [sorted((lfw / "images" / name).glob("*.jpg"))[0] for name in people]


def subject(detector, image):
    """Box and points of the photo's subject, or None."""
    boxes, _, points = detector(image, 320)
    if not len(boxes):
        return None
    off = np.hypot(*((boxes[:, :2] + boxes[:, 2:]) / 2 - np.float32(image.shape[1::-1]) / 2).T)
    i = int(np.argmax(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], 1)) - off))
    return boxes[i], points[i]


def pictures(model, paths, count):
    """What the network sees of `count` photos, as its own input tensors."""
    detector, out, rng = t.YuNet(), [], np.random.default_rng(1)
    entry, role = model["input"], model["role"]
    width, height = entry["width"], entry["height"]
    for path in paths:
        image = cv2.imread(str(path))
        if "detector" in role:
            # A face near the camera, and smaller ones.
            side = int(min(width, height) * rng.choice([1.0, 0.7, 0.4, 0.25]))
            crop = np.zeros((height, width, 3), np.uint8)
            for y in range(0, height - side + 1, side):
                for x in range(0, width - side + 1, side):
                    photo = cv2.imread(str(paths[rng.integers(len(paths))]))
                    crop[y : y + side, x : x + side] = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
        else:
            found = subject(detector, image)
            if found is None:
                continue
            box, points = found
            if "embedder" in role:
                template = np.float32(role["embedder"]["template"])
                crop = cv2.warpAffine(image, t.umeyama(points.astype(np.float64), template.astype(np.float64)), (width, height))
            else:
                crop = t.shifted(image, box, role["liveness"]["scale"], width)
        x = crop[..., ::-1] if entry["color"] == "rgb" else crop
        x = (x.astype(np.float32) - np.float32(entry["mean"])) / np.float32(entry["deviation"])
        out.append(np.ascontiguousarray(x.transpose(2, 0, 1)[None]))
        if len(out) == count:
            return out
    return out


class Calibration(CalibrationDataReader):
    """Hands the tensors out one by one."""

    def __init__(self, name, tensors):
        self.rest = iter([{name: x} for x in tensors])

    def get_next(self):
        return next(self.rest, None)


def prepared(source, target, shape):
    """A copy with the operator set that a scale a channel needs, one input shape, norms folded, and a name at each node."""
    model = onnx.load(source)
    if next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) < PER_CHANNEL_OPSET:
        model = onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape):
        dim.dim_value = size
    onnx.save(model, target)
    quant_pre_process(target, target, skip_symbolic_shape=True)
    model = onnx.load(target)
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{i}"
    onnx.save(model, target)
    return model


def ends(model):
    """The first convolution and the last weighted layer before each output, and all convolutions."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    convolutions = {node.name for node in model.graph.node if node.op_type == "Conv"}
    last = set()
    for output in model.graph.output:
        node = made_by[output.name]
        while node.op_type not in ("Conv", "Gemm", "MatMul"):
            node = made_by[next(name for name in node.input if name in made_by)]
        last.add(node.name)
    first = next(node.name for node in model.graph.node if node.op_type == "Conv")
    return {first} | last, convolutions


def quantize(source, out, calibration, form):
    """Writes the INT8 form; gives how many of how many convolutions are in 8 bits."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        graph = prepared(source, ready, calibration[0].shape)
        exempt, convolutions = ends(graph)
        extra = {"ActivationSymmetric": form == "tensorrt", "WeightSymmetric": True}
        if form == "tensorrt":
            extra["OpTypesToExcludeOutputQuantization"] = ["Conv"]
        quantize_static(
            ready,
            out,
            Calibration(graph.graph.input[0].name, calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8 if form == "tensorrt" else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "Add", "Relu", "Clip", "MaxPool"],
            nodes_to_exclude=sorted(exempt),
            extra_options=extra,
        )
    return len(convolutions - exempt), len(convolutions)


def halved(source, target):
    """The network with every weight rounded to 16 bits."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    onnx.save(model, target)


def answers(path, tensors):
    """All outputs of each tensor in one row, and the shares that belong to one output."""
    run = t.session(str(path))
    name = run.get_inputs()[0].name
    return [[part.reshape(-1) for part in run.run(None, {name: x})] for x in tensors]


def loss(one, other):
    """1 − cosine of the answers, worst and mean over inputs and outputs."""
    cosines = []
    for a, b in zip(one, other):
        for left, right in zip(a, b):
            cosines.append(float(left @ right / max(np.linalg.norm(left) * np.linalg.norm(right), 1e-12)))
    return dict(worst=float(1 - min(cosines)), mean=float(1 - np.mean(cosines)))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("model")
    arguments.add_argument("--out", type=Path, default=None)
    arguments.add_argument("--form", choices=("cpu", "tensorrt"), default="cpu")
    arguments.add_argument("--photos", type=int, default=256)
    given = arguments.parse_args()
    logging.disable(logging.WARNING)
    model = tomllib.loads((t.REPOSITORY / "models/manifest.toml").read_text())["models"][given.model]
    bundled = "bundled" in model["origin"]
    if given.out is None and not bundled:
        raise SystemExit("name a folder with --out: a network of others and what is made of it stay out of the tree")
    out = (given.out or BUILTIN) / f"{Path(model['file']).stem}_int8.onnx"
    source = (BUILTIN if bundled else t.shared_dir() / "models") / model["file"]

    paths = free_people()
    calibration = pictures(model, paths[: len(paths) // 2], given.photos)
    test = pictures(model, paths[len(paths) // 2 :], given.photos)
    eight, convolutions = quantize(source, out, calibration, given.form)
    data = out.read_bytes()
    plain = answers(source, test)
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / "half.onnx"
        halved(source, half)
        fp16 = loss(plain, answers(half, test))
    report = dict(
        file=out.name,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        form=given.form,
        calibrated_on=len(calibration),
        tested_on=len(test),
        convolutions_in_8_bits=f"{eight} of {convolutions}",
        int8_loss=loss(plain, answers(out, test)),
        fp16_weights_loss=fp16,
    )
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
