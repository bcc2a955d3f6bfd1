"""Makes what PyTorch gives where numbers end (zeros, denormals, the largest, infinities, NaN): test/fixtures/special-values.json.

    python3 test/golden/special_values.py > test/fixtures/special-values.json

Each case is one call: its inputs, its results and, where asked for, the gradients by each input for a gradient `dy` of the
first result. Inputs and dy are numbers of tensors. test/golden/special-values.test.ts has a function for each name. Where PyTorch has no operation for one of ours, the
formula stands here. Casts of such values to integers are left out: PyTorch does not define them. Made with PyTorch 2.13.
"""

import json
import math
import re

import torch
from torch.nn import functional as F

INF, NAN = math.inf, math.nan
MOST = torch.finfo(torch.float32).max
LEAST = torch.finfo(torch.float32).smallest_normal
DENORMAL = 2.0**-149

# Around 88.72 and −87.33 the exponential leaves the normal numbers, at −103.97 the denormal ones.
POSITIVE = [0.0, DENORMAL, 1e-40, LEAST, 1e-20, 0.5, 0.999, 1.0, 2.5, 6.0, 10.0, 20.0, 44.0, 80.0, 87.0, 87.3]
POSITIVE += [87.4, 88.3, 88.5, 88.7, 88.73, 89.0, 100.0, 103.9, 104.1, 300.0, 1e4, 1e10, 1e20, 1e30, MOST, INF]
ELEMENTS = torch.tensor([*POSITIVE, *(-v for v in POSITIVE), NAN])

ENDS = [0.0, DENORMAL, LEAST, 1.0, 2.5, 1e20, MOST, INF]
PAIRS = torch.tensor([*ENDS, *(-v for v in ENDS), NAN])

# Rows of seven: a vector of four lanes and a rest.
ROWS = torch.tensor(
    [
        [0.5, -1.0, 2.0, 0.25, 2.0, -3.0, 1.0],
        [NAN, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        [1.0, 2.0, NAN, 3.0, 9.0, 5.0, 6.0],
        [1.0, 2.0, 7.0, 3.0, 4.0, NAN, NAN],
        [1.0, 2.0, 7.0, 3.0, 4.0, 5.0, NAN],
        [1.0, INF, 7.0, 3.0, 4.0, 5.0, 6.0],
        [1.0, 2.0, 7.0, 3.0, 4.0, 5.0, INF],
        [-INF, 2.0, 7.0, 3.0, 4.0, 5.0, 6.0],
        [1.0, -INF, 7.0, 3.0, -INF, 5.0, -INF],
        [INF, 2.0, 3.0, -INF, 4.0, 5.0, 6.0],
        [NAN, 2.0, 3.0, INF, 4.0, -INF, 6.0],
        [INF] * 7,
        [-INF] * 7,
        [NAN] * 7,
        [0.0] * 7,
        [-0.0] * 7,
        [DENORMAL, 1e-40, -1e-40, LEAST, 0.0, 1e-39, -DENORMAL],
        [1e20, 1.0, -1.0, 0.0, 2.0, 0.5, 1e20],
        [-1e30, 1e30, 0.0, 0.0, 1e30, 0.0, 0.0],
        [MOST, 0.0, 1.0, MOST, 0.0, 0.0, 1.0],
        [100.0, 0.0, -4.0, 12.0, 90.0, 13.0, -300.0],
    ]
)


def plain(*shape):
    """Small numbers without a pattern that an error could hide in."""
    return ((torch.arange(math.prod(shape)) * 7 + 3) % 11 - 5).float().view(shape) / 4


def put(x, *places):
    """x with other values at some places."""
    x = x.clone()
    for index, value in places:
        x[index] = value
    return x


def encode(x, digits=7):
    x = x.detach()
    kind = "bool" if x.dtype == torch.bool else "float32" if x.is_floating_point() else "int32"

    def number(value):
        if isinstance(value, (bool, int)):
            return int(value)
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return float(f"{value:.{digits}g}")

    own = {} if kind == "float32" else {"dtype": kind}
    return {"shape": list(x.shape), **own, "values": [number(v) for v in x.flatten().tolist()]}


# oneDNN's GELU of infinity is NaN, that of PyTorch's own is infinity.
torch.backends.mkldnn.set_flags(False)

tensors, cases = [], []


def place(x):
    """Where a tensor that calls are given stands; it may be there already."""
    found = encode(x, 9)
    if found not in tensors:
        tensors.append(found)
    return tensors.index(found)


def case(name, inputs, f, gradients=False, note=""):
    """One call of f, with gradients by all floats, or by the first input. `note` tells cases of one name apart."""
    by = [i for i, x in enumerate(inputs) if x.is_floating_point()] if gradients is True else [0] if gradients else []
    leaves = [x.clone().requires_grad_() if i in by else x for i, x in enumerate(inputs)]
    results = f(*leaves)
    results = list(results) if isinstance(results, (list, tuple)) else [results]
    found = {"name": name, **({"note": note} if note else {}), "inputs": [place(x) for x in inputs]}
    found["results"] = [encode(x) for x in results]
    if gradients:
        dy = plain(*results[0].shape)
        found["dy"] = place(dy)
        found["gradients"] = [encode(g) for g in torch.autograd.grad(results[0], [leaves[i] for i in by], dy)]
    cases.append(found)


# One input

WITH_GRADIENT = {
    "abs": torch.abs,
    "exp": torch.exp,
    "gelu": F.gelu,
    "leakyRelu": lambda x: F.leaky_relu(x, 0.1),
    "log": torch.log,
    "neg": torch.neg,
    "relu": torch.relu,
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tanh": torch.tanh,
}
for name, f in WITH_GRADIENT.items():
    case(name, [ELEMENTS], f, gradients=True)

for name, f in {
    "acos": torch.acos,
    "acosh": torch.acosh,
    "asin": torch.asin,
    "asinh": torch.asinh,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "clip": lambda x: x.clamp(-1, 2),
    "cos": torch.cos,
    "cosh": torch.cosh,
    "elu": F.elu,
    "erf": torch.erf,
    "expm1": torch.expm1,
    "floor": torch.floor,
    "isFinite": torch.isfinite,
    "isInf": torch.isinf,
    "isNaN": torch.isnan,
    "reciprocal": torch.reciprocal,
    "relu6": F.relu6,
    "round": torch.round,
    "selu": F.selu,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "softplus": F.softplus,
    "tan": torch.tan,
    "toBool": lambda x: x.bool(),
    "zerosLike": torch.zeros_like,
}.items():
    case(name, [ELEMENTS], f)

# PyTorch 1.13 overflows at the largest.
case("log1p", [ELEMENTS[ELEMENTS != MOST]], torch.log1p)
# Whatever is drawn, NaN stays NaN.
case("dropout", [torch.full([8], NAN)], lambda x: F.dropout(x, 0.5))

# Two inputs, each with each

a, b = PAIRS[:, None].expand(-1, len(PAIRS)).contiguous(), PAIRS[None, :].expand(len(PAIRS), -1).contiguous()
for name, f in {
    "add": torch.add,
    "atan2": torch.atan2,
    "div": torch.div,
    "equal": torch.eq,
    "greater": torch.gt,
    "greaterEqual": torch.ge,
    "less": torch.lt,
    "lessEqual": torch.le,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mul": torch.mul,
    "notEqual": torch.ne,
    "pow": torch.pow,
    "squaredDifference": lambda x, y: (x - y).square(),
    "sub": torch.sub,
    "where": lambda x, y: torch.where(x > y, x, y),
}.items():
    case(name, [a, b], f)
# One of them a single number, or a row for all
for value in (0.5, NAN):
    case("maximum", [PAIRS, torch.tensor(value)], torch.maximum, note=f"with {value}")
    case("minimum", [torch.tensor(value), PAIRS], torch.minimum, note=f"with {value}")
case("maximum", [a[:3], PAIRS], torch.maximum, note="with a row")
case("swiGLU", [ELEMENTS[:, None].expand(-1, 4).contiguous(), torch.tensor([1.0, 0.0, INF, NAN]).expand(len(ELEMENTS), -1).contiguous()], lambda x, y: F.silu(x) * y, gradients=True)

# Rows

for name, f in {
    "softmax": lambda x: x.softmax(-1),
    "logSoftmax": lambda x: x.log_softmax(-1),
    "norm": lambda x: x.norm(dim=-1, keepdim=True),
    "mean": lambda x: x.mean(-1),
    "sum": lambda x: x.sum(-1),
}.items():
    case(name, [ROWS], f, gradients=True)
for name, f in {
    "all": lambda x: x.bool().all(-1),
    "any": lambda x: x.bool().any(-1),
    "argMax": lambda x: x.argmax(-1),
    "argMin": lambda x: x.argmin(-1),
    "cumsum": lambda x: x.cumsum(-1),
    "logSumExp": lambda x: x.logsumexp(-1),
    "max": lambda x: x.amax(-1),
    "min": lambda x: x.amin(-1),
    "prod": lambda x: x.prod(-1),
    "sumOfRows": lambda x: x.sum(0),
    "topk": lambda x: x.topk(3, -1).values,
}.items():
    case(name, [ROWS], f)
for row in ROWS:
    case("sumOfSquares", [row, torch.ones(3)], lambda x, y: x.square().sum() + y.square().sum())

weight, bias = torch.tensor([1.0, 0.5, -1.0, 2.0, 0.25, 1.5, -0.5]), plain(7)
for i, row in enumerate(ROWS):
    case("layerNorm", [row[None], weight, bias], lambda x, w, b: F.layer_norm(x, [7], w, b, 1e-5), gradients=True, note=f"row {i}")
    case("rmsNorm", [row[None], weight], lambda x, w: x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * w, gradients=True, note=f"row {i}")
for value in (NAN, INF, 1e25):
    case("layerNorm", [ROWS[:1], put(weight, (2, value)), put(bias, (5, value))], lambda x, w, b: F.layer_norm(x, [7], w, b, 1e-5), gradients=True, note=f"weights with {value}")
    x = put(plain(3, 2, 2, 4), ((1, 0, 1, 2), value))
    case("groupNorm", [x, weight[:4], bias[:4]], lambda x, w, b: F.group_norm(x.permute(0, 3, 1, 2), 2, w, b, 1e-5).permute(0, 2, 3, 1), gradients=True, note=f"one {value}")

for target in (0, 2, 6):
    targets = torch.full([len(ROWS)], target)
    case("crossEntropy", [ROWS, targets], lambda x, t: F.cross_entropy(x, t, reduction="none"), gradients=True, note=f"of {target}")

embeddings = put(plain(4, 7), ((1, 2), NAN), ((2, 6), INF), ((3, 0), -INF))
case("embedding", [embeddings, torch.tensor([[0, 3], [1, 0]])], lambda w, i: F.embedding(i, w), gradients=True)
case("embeddingGrad", [embeddings, torch.tensor([2, 0, 2, 1])], lambda dy, i: torch.zeros(5, 7).index_add(0, i, dy))


def draw(logits, uniforms, temperature):
    """The first code at which the running sum of probabilities exceeds the number; the most likely one where none does."""
    best = logits.argmax(-1, keepdim=True)
    if temperature == 0:
        return best[:, 0]
    sums = (logits / temperature).softmax(-1).cumsum(-1)
    found = torch.searchsorted(sums, sums[:, -1:] * uniforms[:, None], right=True)
    return torch.where(found >= logits.shape[1], best, found)[:, 0]


uniforms = torch.full([len(ROWS)], 0.4)
for temperature in (0, 1, 2):
    case("drawCodes", [ROWS, uniforms], lambda x, u: draw(x, u, temperature), note=f"temperature {temperature}")


def nearest(z, codebook):
    """Of |z − e|², what all e have in common left out."""
    return (codebook.square().sum(-1) - 2 * z @ codebook.T).argmin(-1)


codebook = plain(9, 5)
latents = put(plain(5, 5) + 0.1, ((0, 1), NAN), ((1, 4), INF), ((2, 0), -INF), ((3, 3), 1e25))
case("nearestCode", [latents, codebook], nearest, note="special latents")
for value in (NAN, INF, -INF, 1e25):
    case("nearestCode", [plain(5, 5) + 0.1, put(codebook, ((6, 2), value))], nearest, note=f"a code with {value}")

# Products

SPECIAL = [NAN, INF, -INF, 0.0, MOST, DENORMAL]


def factors(m, k, n):
    """Two matrices with a special value in some rows of the first, and zeros for it to meet in the second."""
    left, right = plain(m, k), plain(k, n)
    for i, value in enumerate(SPECIAL[: m - 1]):
        left[i, (3 * i) % k] = value
    right[:, 1] = 0
    return left, right


for m, k, n in ((7, 5, 3), (8, 16, 9), (40, 16, 24)):
    left, right = factors(m, k, n)
    case("matMul", [left, right], torch.matmul, gradients=True, note=f"{m}×{k} by {n}")
    case("batchMatMul", [left[None].repeat(2, 1, 1), right[None].repeat(2, 1, 1)], torch.matmul, note=f"{m}×{k} by {n}")
    case("linear", [left, right.T.contiguous(), put(plain(n), (2, INF))], F.linear, gradients=True, note=f"{m}×{k} by {n}")
for value in SPECIAL:
    x = put(plain(1, 16), ((0, 3), value))
    case("linear", [x, put(plain(5, 16), ((1, 3), 0.0)), plain(5)], F.linear, gradients=True, note=f"one row with {value}")


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def conv(x, w, b):
    return nhwc(F.conv2d(nchw(x), w, b, padding=1))


kernel = put(plain(3, 2, 3, 3), ((0, 1), 0.0))
for value in (NAN, INF, MOST):
    image = put(plain(2, 5, 5, 2), ((0, 1, 3, 1), value))
    case("conv2d", [image, kernel], lambda x, w: conv(x, w, None), gradients=True, note=f"one {value}")
    case("conv2dRelu", [image, kernel, plain(3)], lambda x, w, b: conv(x, w, b).relu(), gradients="first", note=f"one {value}")
    depth = put(plain(2, 1, 3, 3), ((1, 0, 0, 1), 0.0))
    case("depthwiseConv2d", [image, depth, plain(2)], lambda x, w, b: nhwc(F.conv2d(nchw(x), w, b, padding=1, groups=2)), gradients="first", note=f"one {value}")
for value in (NAN, INF, -INF, MOST):
    image = put(plain(1, 4, 4, 18), ((0, 1, 3, 1), value), ((0, 2, 1, 17), value))
    case("maxPool halving", [image], lambda x: nhwc(F.max_pool2d(nchw(x), 2, 2)), gradients=True, note=f"with {value}")
    case("maxPool of three", [image], lambda x: nhwc(F.max_pool2d(nchw(x), 3, 1, padding=1)), gradients=True, note=f"with {value}")
    case("avgPool of three", [image], lambda x: nhwc(F.avg_pool2d(nchw(x), 3, 1, padding=1, count_include_pad=False)), gradients=True, note=f"with {value}")


# Attention


def attention(q, k, v, causal):
    """q, k, v (B, T, H, D)"""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1 + k.shape[2] - q.shape[2])
        scores = scores.masked_fill(hidden, -INF)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def rotary(x, cos, sin):
    even, odd = x[..., 0::2], x[..., 1::2]
    c, s = cos[None, :, None], sin[None, :, None]
    return torch.stack([even * c - odd * s, odd * c + even * s], -1).flatten(-2)


for width in (6, 16):
    for queries in (1, 5):
        q, k, v = plain(1, queries, 2, width), plain(1, 5, 2, width) / 2, plain(1, 5, 2, width)
        for value in (NAN, INF, 1e30):
            places = {
                "query": (put(q, ((0, queries - 1, 1, 2), value)), k, v),
                "key": (q, put(k, ((0, 3, 1, 2), value)), v),
                "value": (q, k, put(v, ((0, 3, 1, 2), value))),
            }
            for where, inputs in places.items():
                for causal in (False, True)[:queries]:
                    kind = "causal attention" if causal else "attention"
                    note = f"{value} in a {where}, {queries} queries, {width} wide"
                    case(kind, inputs, lambda q, k, v: attention(q, k, v, causal), gradients=True, note=note)
    q, k, v = (plain(1, 9, 1, width) for _ in "qkv")
    inputs = (q, k, put(v, ((0, 8, 0, 3), NAN)))
    case("longer causal attention", inputs, lambda q, k, v: attention(q, k, v, True), note=f"{width} wide")
    # One key takes everything: the others' weights are zero, and an infinite value among them is NaN.
    q, k, v = torch.full([1, 1, 1, width], 20.0), torch.zeros(1, 5, 1, width), plain(1, 5, 1, width)
    inputs = (q, put(k, ((0, 2), 20.0)), put(v, ((0, 1, 0, 3), INF)))
    case("attention", inputs, lambda q, k, v: attention(q, k, v, False), note=f"weights of zero, {width} wide")
angles = plain(3, 3)
x = put(plain(1, 3, 2, 6), ((0, 0, 0, 1), NAN), ((0, 1, 1, 2), INF), ((0, 2, 0, 5), MOST))
case("rotary", [x, angles.cos(), angles.sin()], rotary)

# The optimizer


def adamw(parameter, gradient, m, v):
    one = torch.optim.AdamW([parameter], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    parameter.grad = gradient
    one.state[parameter] = {"step": torch.tensor(4.0), "exp_avg": m, "exp_avg_sq": v}
    one.step()
    return parameter, m, v


gradient = PAIRS
for value in (1.0, 1e30, NAN, INF):
    parameter = torch.full_like(gradient, value)
    moments = torch.full_like(gradient, 0.5), torch.full_like(gradient, 0.25)
    given = [parameter, gradient, *moments]
    case("adamW", given, lambda *x: adamw(*(t.clone() for t in x)), note=f"parameters {value}")
for m, v in ((NAN, 1.0), (1.0, NAN), (1.0, INF), (0.0, 0.0)):
    given = [torch.ones(5), torch.tensor([0.0, 1.0, 1e20, MOST, NAN]), torch.full([5], m), torch.full([5], v)]
    case("adamW", given, lambda *x: adamw(*(t.clone() for t in x)), note=f"moments {m}, {v}")

def lines(values):
    text = ",\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)
    return re.sub(r"\.0(?=[,\]])", "", text)


print('{"tensors":[\n' + lines(tensors) + '\n],"cases":[\n' + lines(cases) + "\n]}")
