#!/usr/bin/env python3
"""Writes an OpenVINO IR (version 10, FP32) as ONNX: enough for face-reidentification-retail-0095, whose operations it knows.

    python3 openvino_ir.py face-reidentification-retail-0095.xml face_reid_retail_0095.onnx

Needs numpy and onnx; the .bin lies beside the .xml. The pinned file was made by an earlier converter of the same kind, so this one's
file has the same numbers and other bytes: pin its hash in a manifest of your own. Not run by this project: the IR was not at hand.
An operation that it does not know is an error, never a guess.
"""

import sys
import xml.etree.ElementTree as ElementTree

import numpy
from onnx import TensorProto, checker, helper, numpy_helper, save

KINDS = {"f32": numpy.float32, "FP32": numpy.float32, "i64": numpy.int64, "I64": numpy.int64, "i32": numpy.int32, "I32": numpy.int32}
PLAIN = {"Add": "Add", "Multiply": "Mul", "Subtract": "Sub", "Divide": "Div", "PReLU": "PRelu", "ReLU": "Relu", "Sigmoid": "Sigmoid"}


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def window(data):
    """Strides and paddings, which convolutions and poolings share."""
    if data.get("auto_pad", "explicit") not in ("explicit", "valid"):
        sys.exit("automatic padding is not known here")
    return {"strides": numbers(data.get("strides")), "pads": numbers(data.get("pads_begin")) + numbers(data.get("pads_end"))}


source, target = sys.argv[1:]
tree = ElementTree.parse(source).getroot()
weights = open(source.removesuffix(".xml") + ".bin", "rb").read()
edges = {(e.get("to-layer"), e.get("to-port")): e.get("from-layer") for e in tree.find("edges")}
names, constants, nodes, initializers, inputs, outputs = {}, {}, [], [], [], []

for layer in tree.find("layers"):
    number, kind, data = layer.get("id"), layer.get("type"), layer.find("data")
    ports = [port.get("id") for port in layer.iterfind("input/port")]
    parents = [edges[number, port] for port in ports]
    taken = [names[parent] for parent in parents]
    name = names[number] = f"t{number}"
    shape = [int(dim.text) for dim in layer.iterfind("output/port/dim")]
    if kind == "Parameter":
        name = names[number] = "input"
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    elif kind == "Const":
        start, size = int(data.get("offset")), int(data.get("size"))
        array = numpy.frombuffer(weights[start : start + size], KINDS[data.get("element_type")])
        constants[number] = array.reshape(numbers(data.get("shape", "")))
        initializers.append(numpy_helper.from_array(constants[number].copy(), name))
    elif kind == "Result":
        shape = [int(dim.text) for dim in layer.iterfind("input/port/dim")]
        nodes.append(helper.make_node("Reshape", [taken[0], "embedding_shape"], ["embedding"]))
        initializers.append(numpy_helper.from_array(numpy.array([1, -1], numpy.int64), "embedding_shape"))
        outputs.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, int(numpy.prod(shape))]))
    elif kind in ("Convolution", "GroupConvolution"):
        kernel, group = constants[parents[1]], 1
        if kind == "GroupConvolution":
            group = kernel.shape[0]
            kernel = kernel.reshape(-1, *kernel.shape[2:])
        initializers.append(numpy_helper.from_array(kernel.copy(), f"{name}_kernel"))
        nodes.append(helper.make_node("Conv", [taken[0], f"{name}_kernel"], [name], group=group, kernel_shape=kernel.shape[2:],
                                      dilations=numbers(data.get("dilations")), **window(data)))
    elif kind in ("MaxPool", "AvgPool"):
        extra = {} if kind == "MaxPool" else {"count_include_pad": int(data.get("exclude-pad") == "false")}
        nodes.append(helper.make_node("MaxPool" if kind == "MaxPool" else "AveragePool", [taken[0]], [name],
                                      kernel_shape=numbers(data.get("kernel")), **window(data), **extra))
    elif kind == "PReLU":
        slope = constants[parents[1]].reshape(-1, 1, 1)
        initializers.append(numpy_helper.from_array(slope.copy(), f"{name}_slope"))
        nodes.append(helper.make_node("PRelu", [taken[0], f"{name}_slope"], [name]))
    elif kind == "Reshape":
        nodes.append(helper.make_node("Reshape", taken, [name]))
    elif kind in PLAIN:
        nodes.append(helper.make_node(PLAIN[kind], taken, [name]))
    else:
        sys.exit(f"the operation {kind} is not known here")

used = {name for node in nodes for name in node.input}
graph = helper.make_graph(nodes, "retail-0095", inputs, outputs, [i for i in initializers if i.name in used])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6, producer_name="ir2onnx")
checker.check_model(model)
save(model, target)
