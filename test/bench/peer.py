"""What one would run instead of alitok: the same shapes in PyTorch, timed by the side of `alitok bench`.

    python3 peer.py CASE:BATCH[:STEPS] ... [--size b|l|xl] [--repeats N] [--seconds S] [--threads N] [--device cpu|cuda]
                    [--bf16] [--tf32] [--compile] [--dropout P] [--paced]

Cases are `sample` (STEPS codes with a key-value cache and guidance, all 273 if left out), `train` (a step of the recipe),
`encode` and `decode`. A prefix gives a case a size of its own: `xl/sample:64:32`. The sizes are those of
configs/alitok_{b,l,xl}.yaml and of the published tokenizer; the weights are random.

Each case prints one line of JSON: `seconds` is the median of the `times`, `processor_seconds` that of the process,
`setup_seconds` what came before (building, compiling, warming up). `peak_memory` counts bytes: of the case on CUDA, of the
process so far on the CPU. `kernels` is how many CUDA kernels one run launches. A case that fails prints its `error` and the
next one goes on; the exit status is 1 if all of them fail.

--bf16 trains under autocast with float32 weights; for the other cases it converts the weights to bfloat16 once, and norms and
softmax still compute in float32. --compile compiles the step of sampling as a whole (with CUDA graphs on CUDA), and the blocks of
the other cases: these share their code, so one is compiled for all. --seconds starts no repeat of a case after
so many seconds of them. --paced runs one case at another program's pace (compare.js): a line says that it is ready, and each line
that comes in makes one run. Works with PyTorch 1.13 and later, --compile with 2.2 and later.
"""

import argparse
import contextlib
import gc
import json
import math
import os
import platform
import re
import resource
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

SIZES = {"b": (768, 24), "l": (1024, 24), "xl": (1280, 32)}  # width and layers of the generators
HEADS, CODES, CLASSES, PREFIX, GRID = 16, 4096, 1000, 17, 16
TOKENS = PREFIX + GRID * GRID
SCALE, POWER = 16, 1.8  # of guidance
RECIPE = {"lr": 4e-4, "betas": (0.9, 0.96), "eps": 1e-8}
DECAY, NO_DECAY = 0.03, re.compile("bias|norm|embed")
CASE = re.compile(r"(?:(b|l|xl)/)?(sample|train|encode|decode):([1-9]\d*)(?::([1-9]\d*))?")
FUSED_ATTENTION = hasattr(F, "scaled_dot_product_attention")


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        x = x.type_as(self.weight)  # the fused kernel takes one type; only autocast brings another
        if hasattr(F, "rms_norm"):
            return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)).type_as(x) * self.weight


def attention(q, k, v, causal=False, mask=None, dropout=0.0):
    """q (B, H, Tq, D), k and v (B, H, Tk, D); mask is added to the scores."""
    if FUSED_ATTENTION:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return F.dropout(scores.softmax(-1), dropout) @ v


def rotary_turns(head):
    """cos and sin (1 + T, D/2, 2): the condition's are 0, the prefix turns by position, the image by row and column."""

    def angles(positions, width):
        return positions[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)

    prefix = angles(torch.arange(PREFIX).float(), head)
    side = angles(torch.arange(PREFIX, PREFIX + GRID).float(), head // 2)
    rows, columns = side.repeat_interleave(GRID, 0), side.repeat(GRID, 1)
    turns = torch.cat([prefix, torch.cat([rows, columns], 1)])
    return F.pad(torch.stack([turns.cos(), turns.sin()], -1), (0, 0, 0, 0, 1, 0))


def rotate(x, turns):
    """x (B, T, H, D), pairs of neighbours, by turns (T, 1, D/2) or, as cos and sin, (T, 1, D/2, 2); in float32."""
    pairs = x.float().reshape(*x.shape[:-1], -1, 2)
    if turns.is_complex():
        return torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(-2)
    (even, odd), (cos, sin) = pairs.unbind(-1), turns.unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


class Cache(nn.Module):
    """Keys and values of all positions. Buffers of a module keep their address, so a CUDA graph can write to them."""

    def __init__(self, weight, *shape):
        super().__init__()
        self.register_buffer("k", weight.new_zeros(shape))
        self.register_buffer("v", weight.new_zeros(shape))

    def forward(self, k, v, at, length):
        self.k[:, :, at], self.v[:, :, at] = k, v
        return self.k[:, :, :length], self.v[:, :, :length]


class GeneratorBlock(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        hidden = 256 * math.ceil(8 * width // 3 / 256)
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.q_norm, self.k_norm = RMSNorm(width // HEADS), RMSNorm(width // HEADS)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.w1, self.w3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.drop = nn.Dropout(dropout)
        self.cache = None

    def forward(self, x, turns, at, length, mask):
        q, k, v = self.qkv(self.norm1(x)).view(*x.shape[:2], 3, HEADS, -1).unbind(2)
        q, k = rotate(self.q_norm(q), turns), rotate(self.k_norm(k), turns)
        q, k, v = (t.type_as(v).transpose(1, 2) for t in (q, k, v))
        if self.cache is not None:
            k, v = self.cache(k, v, at, length)
        causal = x.shape[1] > 1  # a single query comes last: nothing is hidden from it
        y = attention(q, k, v, causal, mask, self.drop.p if self.training else 0.0)
        x = x + self.drop(self.proj(y.transpose(1, 2).reshape(x.shape)))
        h = self.norm2(x)
        return x + self.drop(self.w2(F.silu(self.w1(h)) * self.w3(h)))


class Generator(nn.Module):
    def __init__(self, width, layers, dropout=0.0):
        super().__init__()
        self.embeddings = nn.Embedding(CODES + CLASSES + 2, width)
        self.blocks = nn.ModuleList(GeneratorBlock(width, dropout) for _ in range(layers))
        self.norm, self.output = RMSNorm(width), nn.Linear(width, CODES)
        self.drop = nn.Dropout(dropout)
        self.register_buffer("turns", rotary_turns(width // HEADS))
        self.compiled = False  # in whole or in part

    def forward(self, ids, at=slice(None), length=None, mask=None):
        """ids (B, n) at the positions `at` → logits (B, n, CODES); with caches, attention sees their first `length` rows."""
        turns = self.turns[at].unsqueeze(1)
        # One complex product is the fewest kernels, but the compiler fuses real numbers only.
        if not self.compiled:
            turns = torch.view_as_complex(turns)
        x = self.drop(self.embeddings(ids))
        for block in self.blocks:
            x = block(x, turns, at, length, mask)
        return self.output(self.norm(x))


class Sampler(nn.Module):
    """Draws codes one by one. All that a step needs lies on the device: the loop waits for nothing, a step can be captured."""

    def __init__(self, model, batch, steps, compiled):
        super().__init__()
        weight = model.output.weight
        self.model, self.steps, self.compiled = model, steps, None
        # A compiled step has fixed shapes, so it reads the cache up to a fixed length, with a mask. Where the cache is more to
        # read than the weights, three lengths, each compiled, spare a third of it. With a mask, multiples of 16 are best.
        parts = 3 if batch >= 8 and steps > 128 else 1
        self.part = 16 * math.ceil(steps / parts / 16) if compiled else 1
        room = self.part * math.ceil(steps / self.part)
        for block in model.blocks:
            block.cache = Cache(weight, 2 * batch, HEADS, room, weight.shape[1] // HEADS)
        labels = CODES + 1 + torch.arange(batch, device=weight.device) % CLASSES
        no_class = torch.full_like(labels, CODES + 1 + CLASSES)
        at = torch.arange(room, device=weight.device)
        self.register_buffer("start", torch.cat([labels, no_class])[:, None])
        self.register_buffer("scales", 1 + (SCALE - 1) * 0.5 * (1 - (math.pi * (at / TOKENS) ** POWER).cos()))
        self.register_buffer("ids", self.start.clone())
        self.register_buffer("position", at[:1].clone())
        self.register_buffer("codes", labels.new_zeros(batch, room))
        self.register_buffer("mask", weight.new_empty(1, 1, 1, room))
        if compiled:
            model.compiled = True
            mode = "reduce-overhead" if weight.is_cuda else None
            self.compiled = torch.compile(self.masked_step, mode=mode, fullgraph=True, dynamic=False)

    def step(self, at, length, mask=None):
        with_class, without = self.model(self.ids, at, length, mask)[:, -1].float().chunk(2)
        p = torch.lerp(without, with_class, self.scales[at]).softmax(-1)
        # Dividing by exponential noise draws as multinomial does, which would make the host wait.
        drawn = (p / torch.empty_like(p).exponential_()).argmax(-1, keepdim=True)
        self.codes[:, at] = drawn
        self.ids.view(2, -1, 1).copy_(drawn)

    def masked_step(self, length):
        self.mask.index_fill_(-1, self.position, 0.0)  # assigning 0 would bring a constant on the CPU, and no CUDA graph
        self.step(self.position, length, self.mask[..., :length])
        self.position.add_(1)

    def forward(self):
        self.ids.copy_(self.start)
        self.position.zero_()
        self.mask.fill_(float("-inf"))
        for i in range(self.steps):
            length = (i // self.part + 1) * self.part
            if self.compiled:
                self.compiled(length)
            else:
                self.step(slice(i, i + 1), length)
        return self.codes[:, : self.steps]


class VisionBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = self.in_proj(self.ln_1(x)).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out_proj(attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 768, 16, 16)
        self.latents = nn.Parameter(torch.randn(TOKENS, 768) * 0.02)
        self.ln_pre, self.ln_post = nn.LayerNorm(768), nn.LayerNorm(768)
        self.blocks = nn.Sequential(*[VisionBlock(768, 12) for _ in range(12)])
        self.conv_out = nn.Linear(768, 32)

    def forward(self, images):
        patches = self.patch_embed(images).flatten(2).mT
        x = torch.cat([patches, self.latents.expand(len(images), -1, -1)], 1)
        return self.conv_out(self.ln_post(self.blocks(self.ln_pre(x))[:, GRID * GRID :]))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.codebook = nn.Embedding(CODES, 32)
        self.decoder_embed = nn.Linear(32, 1024)
        self.learned = nn.Parameter(torch.randn(32, 1024) * 0.02)
        self.ln_pre, self.ln_post = nn.LayerNorm(1024), nn.LayerNorm(1024)
        self.blocks = nn.Sequential(*[VisionBlock(1024, 16) for _ in range(24)])
        self.ffn, self.conv_out = nn.Linear(1024, 768), nn.Conv2d(3, 3, 1)

    def forward(self, codes):
        x = self.decoder_embed(self.codebook(codes))
        x = torch.cat([self.learned.expand(len(x), -1, -1), x], 1)
        x = self.ffn(self.ln_post(self.blocks(self.ln_pre(x))[:, -GRID * GRID :]))
        pixels = x.view(-1, GRID, GRID, 16, 16, 3).permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, 256, 256)
        return self.conv_out(pixels).sigmoid()


def build(device, module, *arguments, bf16=False):
    """A module with weights made on the device, where PyTorch can (2.0 and later)."""
    if hasattr(torch.device, "__enter__"):
        with torch.device(device):
            model = module(*arguments)
    else:
        model = module(*arguments).to(device)
    if bf16:
        for p in model.parameters():  # not the rotary table, which needs float32
            p.data = p.data.bfloat16()
    return model


def compile_blocks(model):
    model.compiled = True
    for block in model.blocks:
        block.compile(fullgraph=True)
    return model


def make_optimizer(model):
    """AdamW with one fused kernel where PyTorch has it for the device, which decays matrices apart from the embeddings."""
    decays = {name: p.ndim >= 2 and not NO_DECAY.search(name) for name, p in model.named_parameters()}
    for fast in ("fused", "foreach"):
        groups = [
            {"params": [p for name, p in model.named_parameters() if decays[name]], "weight_decay": DECAY},
            {"params": [p for name, p in model.named_parameters() if not decays[name]], "weight_decay": 0.0},
        ]
        with contextlib.suppress(TypeError, RuntimeError):
            return torch.optim.AdamW(groups, **RECIPE, **{fast: True})
    raise RuntimeError("this PyTorch has neither a fused nor a foreach AdamW")


def prepare_training(size, batch, options):
    model = build(options.device, Generator, *SIZES[size], options.dropout)
    optimizer = make_optimizer(model)
    ids = torch.randint(0, CODES, (batch, TOKENS + 1), device=options.device)
    ids[:, 0] = CODES + 1 + ids[:, 0] % CLASSES
    targets = F.pad(ids[:, 1:], (0, 1), value=-100)  # the last position predicts nothing

    if options.compile:
        compile_blocks(model)

    def step():
        with torch.autocast(options.device, torch.bfloat16, enabled=options.bf16):
            logits = model(ids)
        F.cross_entropy(logits.float().flatten(0, 1), targets.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)  # all at once on CUDA
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def prepare(what, size, batch, steps, options):
    """What one run of a case is."""
    device, bf16 = options.device, options.bf16
    if what == "train":
        return prepare_training(size, batch, options)
    if what == "sample":
        model = Sampler(build(device, Generator, *SIZES[size], bf16=bf16).eval(), batch, steps, options.compile)
        inputs = []
    elif what == "encode":
        model = build(device, Encoder, bf16=bf16)
        inputs = [torch.rand(batch, 3, 256, 256, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)]
    else:
        model = build(device, Decoder, bf16=bf16)
        inputs = [torch.randint(0, CODES, (batch, TOKENS), device=device)]
    if options.compile and what != "sample":
        compile_blocks(model)
    # inference_mode spares eager operators some work; a compiled function has little use for it and knows no_grad better.
    mode = torch.no_grad if options.compile else torch.inference_mode
    return mode()(lambda: model(*inputs))


def count_kernels(run, graphs):
    """CUDA kernels of one run, without copies and fills by the driver; None where the profiler fails."""
    # What the profiler leaves behind slows down the launches of later cases; taking it down may crash CUDA graphs.
    os.environ.setdefault("TEARDOWN_CUPTI", "0" if graphs else "1")
    with contextlib.suppress(Exception):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            run()
            torch.cuda.synchronize()
        # profile.events() would make a Python object of each launch, of which sampling has a hundred thousand.
        events = profile.profiler.kineto_results.events()
        names = [event.name() for event in events if event.device_type() == torch.autograd.DeviceType.CUDA]
        return sum(not name.startswith(("Memcpy", "Memset")) for name in names) or None


def measure(what, size, batch, steps, options, say):
    cuda = options.device == "cuda"
    if cuda:
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats()
        # cuDNN comes first on some GPUs and makes a plan for each key length, tens of milliseconds each; without it, sampling
        # uses flash or memory-efficient attention. TORCH_CUDNN_SDPA_DEPRIORITIZED=1 would do the same to all cases.
        if hasattr(torch.backends.cuda, "enable_cudnn_sdp") and "TORCH_CUDNN_SDPA_DEPRIORITIZED" not in os.environ:
            torch.backends.cuda.enable_cudnn_sdp(what != "sample")
    started = time.perf_counter()
    run = prepare(what, size, batch, steps, options)
    for _ in range(2 if options.compile and cuda else 1):  # the first call compiles, the second may capture a CUDA graph
        run()
    if cuda:
        torch.cuda.synchronize()
    setup = time.perf_counter() - started

    def timed():
        start, used = time.perf_counter(), time.process_time()
        run()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start, time.process_time() - used

    if options.paced:
        say({"ready": torch.__version__, "setup_seconds": setup})
        for _ in sys.stdin:
            say(dict(zip(("seconds", "processor_seconds"), timed())))
        sys.exit()
    times, processor = [], []
    while len(times) < options.repeats and (not times or sum(times) < options.seconds):
        wall, used = timed()
        times.append(wall)
        processor.append(used)
    found = {
        "seconds": statistics.median(times),
        "fastest": min(times),
        "times": times,
        "processor_seconds": statistics.median(processor),
        "setup_seconds": setup,
    }
    if not cuda:
        found["peak_memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return found
    found["peak_memory"] = torch.cuda.max_memory_allocated()
    found["reserved_memory"] = torch.cuda.max_memory_reserved()
    kernels = count_kernels(run, options.compile)
    if kernels:
        found["kernels"] = kernels
        if what == "sample":
            found["kernels_per_step"] = kernels / steps
    return found


def parse():
    parser = argparse.ArgumentParser(description="Times PyTorch on the shapes of alitok's models.")
    parser.add_argument("cases", nargs="+", metavar="CASE:BATCH[:STEPS]")
    parser.add_argument("--size", choices=SIZES, default="b")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--paced", action="store_true")
    options = parser.parse_args()
    cases = []
    for name in options.cases:
        found = CASE.fullmatch(name)
        size, what, batch, steps = found.groups() if found else parser.error(f"{name}: not a case")
        if steps and (what != "sample" or int(steps) > TOKENS):
            parser.error(f"{name}: sampling has steps, {TOKENS} at most")
        cases.append((name, what, size or options.size, int(batch), int(steps or TOKENS) if what == "sample" else None))
    return cases, options


def main():
    cases, options = parse()
    # Lines of JSON alone reach the standard output; what libraries print goes with the errors.
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(line):
        print(json.dumps(line), file=lines, flush=True)

    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    torch.backends.cudnn.benchmark = True  # the shapes do not change
    precision = "bf16" if options.bf16 else "tf32" if options.tf32 else "float32"
    failures = 0
    for name, what, size, batch, steps in cases:
        line = {"case": name, "size": size, "compiled": options.compile}
        if what == "train":
            line["dropout"] = options.dropout
        try:
            found = measure(what, size, batch, steps, options, say)
            device = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
            line.update({"precision": precision, "batch": batch, "steps": steps, **found})
            line.update({"device": device, "torch": torch.__version__})
        except Exception as error:
            failures += 1
            reason = next(iter(str(error).strip().splitlines()), "")
            line["error"] = f"{type(error).__name__}: {reason}"[:400]
        say(line)
        with contextlib.suppress(AttributeError, RuntimeError):  # where there is no compiler, or CUDA has failed for good
            if options.compile:
                torch._dynamo.reset()
            gc.collect()
            torch.cuda.empty_cache()
    return int(failures == len(cases))


if __name__ == "__main__":
    sys.exit(main())
