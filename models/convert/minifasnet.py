#!/usr/bin/env python3
"""Exports a MiniFASNet checkpoint of minivision-ai/Silent-Face-Anti-Spoofing to ONNX.

    git clone https://github.com/minivision-ai/Silent-Face-Anti-Spoofing
    python3 minifasnet.py Silent-Face-Anti-Spoofing 2.7_80x80_MiniFASNetV2.pth 2.7_80x80_MiniFASNetV2.onnx

Needs torch and onnx. The pinned files were exported by torch 2.15 (opset 11, input `input`, output `logits`); another version may
write other bytes for the same network, and `faceid models verify` then says so. Not run by this project's tests: the checkpoints are
not part of it.
"""

import sys

import torch

repository, checkpoint, target = sys.argv[1:]
sys.path.insert(0, repository)
from src.model_lib.MiniFASNet import MiniFASNetV1SE, MiniFASNetV2  # noqa: E402  (upstream's own definition)

kind = MiniFASNetV1SE if "V1SE" in checkpoint else MiniFASNetV2
# An 80x80 input leaves 5x5 before the last depthwise convolution.
network = kind(conv6_kernel=(5, 5))
state = torch.load(checkpoint, map_location="cpu", weights_only=True)
network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
network.eval()
torch.onnx.export(network, torch.zeros(1, 3, 80, 80), target, input_names=["input"], output_names=["logits"],
                  opset_version=11, dynamo=False)
