#!/usr/bin/env python3
"""Puts an ONNX file and the weights it keeps beside it (`NAME.onnx.data`) into one file, which is what faceid reads.

    python3 one_file.py MobileFaceNet.onnx mobilefacenet_foamliu_128d.onnx

Needs onnx. Both upstream files must lie in one folder. The bytes may depend on onnx's version; `faceid models verify` tells. Not run by
this project's tests: the networks are not part of it.
"""

import sys

import onnx

source, target = sys.argv[1:]
onnx.save(onnx.load(source), target)
