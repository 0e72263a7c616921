"""Train the built-in embedder: a small dense ReLU network that copies two larger ones.

    python embedder.py trunk --samples 6000000     # resumes from trunk.pt, stop and start at will
    python embedder.py cooldown --samples 600000   # branches from trunk.pt into cooldown.pt
    python embedder.py ablation --samples 128000   # the same schedule on photos alone, and with faces of nobody
    python embedder.py compare --rate 2e-3 [--adam] --samples 12800   # a short schedule at 64 pixels
    python embedder.py export --name cooldown      # writes ../builtin/embedder.onnx from cooldown.pt
    python embedder.py trunk --weights FILE.onnx   # begins with an export's weights where the checkpoint is gone
    python embedder.py bench                       # training pictures per second by resolution

The target of a picture is fixed: the embeddings of retail-0095 and foamliu (of a photo, averaged
with those of its mirror image), weighted and rotated into the 128 directions that keep most of the
photos' inner products. The student sees the picture augmented and learns the direction of that
target (cosine) and the batch's similarities (relational). A batch is a share of photos and shares of
the faces of nobody that synthetic.py made. Training is one long trunk at a constant rate and
cooldowns that branch off whenever a model is wanted (warm-up, stable, decay). A batch is a function
of the seed, its step number and the pictures at hand, so the checkpoint holds all the randomness
there is.
"""

import argparse
import json
import os
import queue
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import augment
import evaluate
import synthetic
import teachers as t

SEED = 20
DIM = 128
BATCH, CHUNK, WORKERS = 128, 32, 2  # a step is BATCH pictures, cut into chunks that the workers take
RETAIL_WEIGHT = 0.6  # its licence is the cleaner one and its figures the better ones
RELATIONAL = 20.0
RATE, DECAY, WARM_UP = 4.0e-3, 0.02, 6_400
EMA = 0.998
BFLOAT16 = torch.backends.cpu.get_cpu_capability() == "AVX512" and "avx512_bf16" in Path("/proc/cpuinfo").read_text()
CHECKPOINT_S, EVALUATE_S = 120, 600

# What share of a batch each kind of picture has; the rest are photos.
SHARES = dict(mixtures=0.5, generated=0.15)
ABLATION = {
    "photos": {},
    "generated": dict(generated=0.5),
    "mixtures": dict(mixtures=0.5),
    "both": dict(mixtures=0.5, generated=0.25),
}


# --- the network ---------------------------------------------------------------------------


def conv(i, o, k=3, stride=1, act=True):
    layers = [nn.Conv2d(i, o, k, stride, k // 2, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if act else nn.Sequential(*layers)


class Block(nn.Module):
    """Two dense 3×3 convolutions around a shortcut."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b = conv(c, c), conv(c, c, act=False)

    def forward(self, x):
        return F.relu(x + self.b(self.a(x)))


def pool_at(pool, k):
    """The 7×7 pooling weights for a k×k map: interpolated, at the same total weight."""
    if k == 7:
        return pool
    return F.interpolate(pool, size=(k, k), mode="bilinear", antialias=True) * (49 / (k * k))


class Embedder(nn.Module):
    """RGB (x − 127.5)/127.5, 112×112, to 128 numbers (not normalised)."""

    def __init__(self, widths=(16, 48, 96, 152), head=256, dim=DIM):
        super().__init__()
        a, b, c, d = widths
        self.body = nn.Sequential(
            conv(3, a, stride=2),
            conv(a, b, stride=2),
            Block(b),
            conv(b, c, stride=2),
            Block(c),
            conv(c, d, stride=2),
            Block(d),
            conv(d, head, 1),
        )
        self.pool = nn.Parameter(torch.randn(head, 1, 7, 7) / 7)
        self.pool_norm = nn.BatchNorm2d(head)
        self.fc = nn.Conv2d(head, dim, 1, bias=False)
        self.norm = nn.BatchNorm1d(dim)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out")

    def forward(self, x):
        x = self.body(x)
        x = F.conv2d(x, pool_at(self.pool, x.shape[-1]), groups=x.shape[1])
        return self.norm(self.fc(self.pool_norm(x)).flatten(1))


def cost(model):
    """(MMAC at 112×112, million parameters)."""
    macs = [0]

    def count(m, _, out):
        macs[0] += out.shape[2] * out.shape[3] * m.weight.numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    model.eval()(torch.zeros(1, 3, 112, 112))
    for h in hooks:
        h.remove()
    model.train()
    return (macs[0] + model.pool.numel()) / 1e6, sum(p.numel() for p in model.parameters()) / 1e6


# --- the network as a file -------------------------------------------------------------------


def stages(model):
    """(name, convolution weight, stride, groups, its norm, whether ReLU follows) in the order of the data's path.

    A block's second convolution ends in the shortcut's sum, which `export` knows by its name.
    """

    def of(name, s, relu=True):
        return name, s[0].weight, s[0].stride[0], 1, s[1], relu

    for i, m in enumerate(model.body):
        if isinstance(m, Block):
            yield of(f"body.{i}.a", m.a)
            yield of(f"body.{i}.b", m.b, False)
        else:
            yield of(f"body.{i}", m)
    yield "pool", model.pool, 1, model.pool.shape[0], model.pool_norm, False
    yield "fc", model.fc.weight, 1, 1, model.norm, False


def folded(weight, norm):
    """Weight and bias of the convolution that does what the convolution and its norm do together."""
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    return weight.detach() * gain.view(-1, 1, 1, 1), (norm.bias - norm.running_mean * gain).detach()


def export(model, path, resolution=112):
    """Write the network with its norms folded: N×3×112×112 to N×128, operator set 17.

    A network trained at a lower resolution shrinks its input first, by the two products that are a bilinear resize.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, x, shortcut = [], [], "input", None
    if resolution != 112:
        across = cv2.resize(np.eye(112, dtype=np.float32), (resolution, 112), interpolation=cv2.INTER_LINEAR)
        for name, value in (("shrink.across", across), ("shrink.down", np.ascontiguousarray(across.T))):
            weights.append(numpy_helper.from_array(value, name))
        nodes.append(helper.make_node("MatMul", ["input", "shrink.across"], ["narrow"]))
        nodes.append(helper.make_node("MatMul", ["shrink.down", "narrow"], ["shrunk"]))
        x = "shrunk"
    for name, weight, stride, groups, norm, relu in stages(model):
        if name == "pool":
            weight = pool_at(weight, resolution // 16)
        w, b = folded(weight, norm)
        for part, value in (("weight", w), ("bias", b)):
            weights.append(numpy_helper.from_array(value.numpy(), f"{name}.{part}"))
        k = weight.shape[-1]
        pad = 0 if name == "pool" else k // 2
        attributes = dict(kernel_shape=[k, k], strides=[stride] * 2, pads=[pad] * 4, group=groups)
        if name.endswith(".a"):
            shortcut = x
        nodes.append(helper.make_node("Conv", [x, f"{name}.weight", f"{name}.bias"], [name], **attributes))
        x = name
        if name.endswith(".b"):
            nodes.append(helper.make_node("Add", [x, shortcut], [f"{name}.sum"]))
            x, relu = f"{name}.sum", True
        if relu:
            nodes.append(helper.make_node("Relu", [x], [f"{x}.relu"]))
            x = f"{x}.relu"
    nodes.append(helper.make_node("Flatten", [x], ["embedding"], axis=1))
    value = helper.make_tensor_value_info
    inputs = [value("input", TensorProto.FLOAT, ["batch", 3, 112, 112])]
    outputs = [value("embedding", TensorProto.FLOAT, ["batch", DIM])]
    graph = helper.make_graph(nodes, "faceid-embedder", inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="faceid-plus")
    onnx.checker.check_model(made, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.SerializeToString())


@torch.no_grad()
def take_weights(model, path, pictures):
    """Give the model an exported file's weights.

    Training needs its norms back, which the file has folded away: each is set to undo what it does
    to `pictures`, so that the network still computes what the file says.
    """
    import onnx
    from onnx import numpy_helper

    stored = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in onnx.load(path).graph.initializer}

    def undo(bias):
        def hook(norm, inputs):
            x = inputs[0].transpose(0, 1).flatten(1)
            norm.running_mean.copy_(x.mean(1))
            norm.running_var.copy_(x.var(1, unbiased=False))
            norm.weight.copy_((norm.running_var + norm.eps).sqrt())
            norm.bias.copy_(bias + norm.running_mean)

        return hook

    k = stored["pool.weight"].shape[-1]
    if k != 7:  # the 7×7 weights of least size that give the stored ones
        down = pool_at(torch.eye(49).view(49, 1, 7, 7), k).flatten(1).T
        up = stored["pool.weight"].flatten(1) @ torch.linalg.pinv(down).T
        stored["pool.weight"] = up.view(-1, 1, 7, 7)
    hooks = []
    for name, weight, _, _, norm, _ in stages(model):
        weight.copy_(stored[f"{name}.weight"])
        hooks.append(norm.register_forward_pre_hook(undo(stored[f"{name}.bias"])))
    model.eval()(tensor(pictures))
    for h in hooks:
        h.remove()
    model.train()


# --- the optimiser -------------------------------------------------------------------------


def orthogonal(g, steps=5):
    """The nearest semi-orthogonal matrix, roughly, by Newton–Schulz steps (Jordan et al. 2024)."""
    x = g.flatten(1)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if tall else x).reshape(g.shape)


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonalised, scaled so that Adam's learning rates fit."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                step = orthogonal(p.grad.lerp(m, group["momentum"]).contiguous())
                scale = 0.2 * max(p.shape[0], p[0].numel()) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-group["lr"] * scale)


def optimisers(model, rate=RATE, adam=False):
    """Muon for the convolutions' matrices and AdamW for everything else, or AdamW alone."""
    matrices = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    ids = {id(p) for p in matrices}
    rest = torch.optim.AdamW([p for p in model.parameters() if id(p) not in ids], rate, weight_decay=0.0)
    first = torch.optim.AdamW if adam else Muon
    return [first(matrices, lr=rate, weight_decay=DECAY), rest]


class Workers:
    """Data parallelism by threads, one core each.

    Every worker has a copy of the model and takes the next chunk of the batch when it is free, so
    a core that other programs use half the time does half the work instead of holding up every
    single operation, as a convolution split over two threads would.
    """

    def __init__(self, model, count=WORKERS):
        self.model = model
        self.copies = [type(model)().to(memory_format=torch.channels_last) for _ in range(count)]
        self.pool = ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1))
        self.share()

    @torch.no_grad()
    def share(self):
        """Give every copy the model's weights and statistics."""
        for copy in self.copies:
            for a, b in zip(copy.state_dict().values(), self.model.state_dict().values()):
                a.copy_(b)
            for p in copy.parameters():
                p.grad = None

    def _work(self, copy, chunks):
        total = 0.0
        while chunks:
            try:
                x, target, weight = chunks.popleft()
            except IndexError:
                break
            # A CPU with bfloat16 dot products trains 1.7 times as many pictures a second in it; the weights stay float32.
            with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16):
                e = copy(x.contiguous(memory_format=torch.channels_last))
            loss, shown = losses(e.float(), target)
            (loss * weight).backward()
            total += float(shown.detach()) * weight
        return total

    def step(self, x, target):
        """Leave the batch's gradient in the model's parameters; return its mean cosine."""
        parts = list(zip(x.split(CHUNK), target.split(CHUNK)))
        chunks = deque((a, b, len(a) / len(x)) for a, b in parts)
        shown = sum(f.result() for f in [self.pool.submit(self._work, c, chunks) for c in self.copies])
        with torch.no_grad():
            for p, *ps in zip(self.model.parameters(), *(c.parameters() for c in self.copies)):
                grads = [q.grad for q in ps if q.grad is not None]
                p.grad = grads[0].clone() if len(grads) == 1 else torch.stack(grads).sum(0)
            for b, *bs in zip(self.model.buffers(), *(c.buffers() for c in self.copies)):
                b.copy_(torch.stack(bs).float().mean(0))
        return shown


# --- the data ------------------------------------------------------------------------------


class Pictures:
    """The training photos and the faces of nobody, their targets, and batches by step number."""

    def __init__(self, shares):
        work = t.work_dir()
        self.faces = dict(np.load(work / "faces.npz"))
        self.crops = np.load(work / "crops.npy")
        self.train = np.where(~self.faces["held"])[0]
        both = joined(self.faces["retail"], self.faces["foamliu"])
        _, vectors = np.linalg.eigh(both[self.train].T @ both[self.train])
        self.rotation = vectors[:, -DIM:]
        self.target = t.normalised(both @ self.rotation).astype(np.float32)
        self.pools = []
        for kind, share in shares.items():
            pool = synthetic.Pool(kind)
            target = t.normalised(joined(pool.retail, pool.foamliu) @ self.rotation).astype(np.float32)
            self.pools.append((pool, target, round(share * BATCH)))
        self.photos = BATCH - sum(count for _, _, count in self.pools)

    def describe(self):
        return dict(train=len(self.train), **{f"synthetic_{i}": len(pool) for i, (pool, _, _) in enumerate(self.pools)})

    def batch(self, step, resolution, seed=SEED):
        """Pictures (uint8 BGR) and targets of one step."""
        per_epoch = len(self.train) // self.photos
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, 1, epoch)).permutation(self.train)
        rows = order[place * self.photos : (place + 1) * self.photos]
        rng = np.random.default_rng((seed, 2, step))
        pictures, targets = [self.crops[i] for i in rows], [self.target[rows]]
        for pool, target, count in self.pools:
            rows = rng.integers(0, len(pool), count)
            pictures += [pool[i] for i in rows]
            targets.append(target[rows])
        # Every worker's chunk, whose statistics normalise it, gets its share of every kind.
        mixed = rng.permutation(BATCH)
        return np.stack([augment.augment(pictures[i], resolution, rng) for i in mixed]), np.concatenate(targets)[mixed]


def joined(retail, foamliu):
    """Both teachers' embeddings as one vector whose inner products weigh theirs."""
    return np.hstack([retail * RETAIL_WEIGHT**0.5, foamliu * (1 - RETAIL_WEIGHT) ** 0.5]).astype(np.float32)


def tensor(pictures):
    """uint8 BGR N×H×W×3 to the network's input."""
    x = torch.from_numpy(np.ascontiguousarray(pictures[..., ::-1])).permute(0, 3, 1, 2)
    return x.float().sub_(127.5).div_(127.5)


def batches(pictures, steps, resolution, seed=SEED):
    """Yield (step, pictures, targets) in order; a thread prepares a few steps ahead."""
    ready = queue.Queue(4)

    def work():
        for step in steps:
            ready.put((step, *pictures.batch(step, resolution, seed)))
        ready.put(None)

    threading.Thread(target=work, daemon=True).start()
    return iter(ready.get, None)


def embed(model, crops, resolution=112):
    """Embeddings of clean 144-pixel crops."""
    model.eval()
    out = []
    with torch.no_grad():
        for i in range(0, len(crops), 32):
            x = crops[i : i + 32, 16:-16, 16:-16]
            if resolution != 112:
                x = np.stack([cv2.resize(c, (resolution, resolution), interpolation=cv2.INTER_LINEAR) for c in x])
            out.append(model(tensor(x)).numpy())
    model.train()
    return np.concatenate(out)


# --- training ------------------------------------------------------------------------------


def losses(e, target):
    """Twice the mean cosine distance, and the batch's similarities against the target's."""
    n = F.normalize(e)
    cosine = (n * target).sum(1).mean()
    relational = (n @ n.T - target @ target.T).square().mean()
    return 2 * (1 - cosine) + RELATIONAL * relational, cosine


@torch.no_grad()
def average(shadow, model, step):
    """Exponential moving average of weights and of batch statistics."""
    keep = min(EMA, (1 + step) / (10 + step))
    for a, b in zip(shadow.state_dict().values(), model.state_dict().values()):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - keep)
        else:
            a.copy_(b)


def save(path, **state):
    """Write whole or not at all: a run may be stopped at any moment."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def log(path, **record):
    line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()})
    with open(path, "a") as f:
        f.write(line + "\n")
    print(line, flush=True)


def train(name, samples, rate_at, resolution, shares, start=None, weights=None, rate=RATE, adam=False, quick=False, workers=WORKERS):
    """Train until `samples`, resuming `name`.pt or, if that is absent, from the checkpoint `start` or the export `weights`."""
    work = t.work_dir()
    path, journal = work / f"{name}.pt", work / f"{name}.jsonl"
    torch.manual_seed(SEED)
    model, shadow = Embedder(), Embedder()
    opts = optimisers(model, rate, adam)
    step = first = 0
    if not quick and (path.exists() or start):
        state = torch.load(path if path.exists() else start, weights_only=True)
        model.load_state_dict(state["model"])
        shadow.load_state_dict(state["ema"])
        for o, s in zip(opts, state["optimisers"]):
            o.load_state_dict(s)
        step = state["step"]
    else:
        shadow.load_state_dict(model.state_dict())
    data = Pictures(shares)
    if weights and step == 0:
        take_weights(model, weights, data.batch(0, resolution)[0])
        shadow.load_state_dict(model.state_dict())
    parallel = Workers(model, workers)
    held = evaluate.HeldOut(data.faces)
    crops = data.crops[held.index]
    mmac, mparam = cost(model)
    log(journal, event="start", step=step, mmac=mmac, mparam=mparam, **data.describe(), **held.describe())

    def checkpoint():
        save(
            path,
            model=model.state_dict(),
            ema=shadow.state_dict(),
            optimisers=[o.state_dict() for o in opts],
            step=step,
        )

    def measure():
        e = embed(shadow, crops, resolution)
        cosine = float((t.normalised(e) * data.target[held.index]).sum(1).mean())
        log(journal, event="held-out", samples=step * BATCH, cosine=cosine, **held(e))

    saved = measured = began = time.monotonic()
    cpu, first, total, count = time.process_time(), step, 0.0, 0
    for step, pictures, target in batches(data, range(step, samples // BATCH), resolution):
        for group in (g for o in opts for g in o.param_groups):
            group["lr"] = rate * rate_at(step * BATCH)
        cosine = parallel.step(tensor(pictures), torch.from_numpy(target))
        for o in opts:
            o.step()
        parallel.share()
        step += 1
        average(shadow, model, step)
        total, count = total + cosine, count + 1
        now = time.monotonic()
        if count == 50:
            done = (step - first) * BATCH
            log(
                journal,
                samples=step * BATCH,
                resolution=pictures.shape[1],
                rate=rate * rate_at(step * BATCH),
                cosine=total / count,
                per_s=done / (now - began),
                per_cpu_s=done / (time.process_time() - cpu),
            )
            total, count = 0.0, 0
        if now - saved > CHECKPOINT_S and not quick:
            checkpoint()
            saved = now
        if now - measured > EVALUATE_S and not quick:
            measure()
            measured = time.monotonic()
    if not quick:
        checkpoint()
    measure()


def warm_then_constant(samples):
    return min(1.0, (samples + BATCH) / WARM_UP)


def bench(workers):
    """Training pictures per second, without the augmentation."""
    for resolution in (64, 80, 112):
        model = Embedder()
        opts, parallel = optimisers(model), Workers(model, workers)
        x = torch.randn(BATCH, 3, resolution, resolution)
        target = F.normalize(torch.randn(BATCH, DIM))
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            parallel.step(x, target)
            for o in opts:
                o.step()
            parallel.share()
            seconds.append(time.perf_counter() - begin)
        print(f"{resolution}: {BATCH / np.median(seconds[1:]):.0f}/s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("trunk", "cooldown", "export", "bench", "ablation"))
    parser.add_argument("--samples", type=int, default=6_000_000)
    parser.add_argument("--name", default="cooldown")
    parser.add_argument("--origin", default="trunk", help="the checkpoint that a cooldown branches from")
    parser.add_argument("--weights", help="an exported network to begin the trunk with")
    parser.add_argument("--resolution", type=int, default=80, help="a multiple of 16; a network knows little at another than its own")
    parser.add_argument("--adam", action="store_true", help="AdamW alone, to compare")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--workers", type=int, default=WORKERS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    chosen = dict(resolution=args.resolution, rate=args.rate, adam=args.adam, workers=args.workers)
    if args.verb == "bench":
        bench(args.workers)
    elif args.verb == "trunk":
        train("trunk", args.samples, warm_then_constant, shares=SHARES, weights=args.weights, **chosen)
    elif args.verb == "export":
        state = torch.load(t.work_dir() / f"{args.name}.pt", weights_only=True)
        model = Embedder()
        model.load_state_dict(state["ema"])
        export(model.eval(), t.REPOSITORY / "models/builtin/embedder.onnx", args.resolution)
    elif args.verb == "ablation":
        for name, shares in ABLATION.items():
            rate_at = lambda s: warm_then_constant(s) * min(1.0, 2 * (1 - s / args.samples))  # noqa: E731
            train(f"ablation-{name}", args.samples, rate_at, shares=shares, quick=True, **chosen)
    else:
        origin = t.work_dir() / f"{args.origin}.pt"
        begin = torch.load(origin, weights_only=True)["step"] * BATCH
        own = t.work_dir() / f"{args.name}.json"
        if own.exists():  # a resumed cooldown keeps the schedule that it began with
            begin = json.loads(own.read_text())["begin"]
        own.write_text(json.dumps(dict(begin=begin)))
        end = begin + args.samples
        rate_at = lambda s: max(0.0, 1 - (s - begin) / args.samples)  # noqa: E731
        train(args.name, end, rate_at, shares=SHARES, start=origin, **chosen)


if __name__ == "__main__":
    main()
