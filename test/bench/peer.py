"""What one would run instead: the same shapes in eager PyTorch, timed by the side of `alitok bench`.

    python3 peer.py {sample,train,encode,decode} [--batch N] [--steps N] [--repeats N] [--threads N] [--device D] [--bf16] [--tf32]

The sizes are those of configs/alitok_b.yaml and the published tokenizer, the weights random. Prints one line of JSON with
the median of the repeats, and the fastest. Works with PyTorch 1.13 and later.
"""

import argparse
import json
import math
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, LAYERS, HEADS = 768, 24, 16
CODES, CLASSES, PREFIX, GRID = 4096, 1000, 17, 16
TOKENS = PREFIX + GRID * GRID
HEAD = WIDTH // HEADS


class LayerNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.float())  # as autocast does on CUDA; PyTorch 1.13 on the CPU wants to be told


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)
        return y.type_as(x) * self.weight


def attention(q, k, v, causal):
    """q (B, H, Tq, D), k and v (B, H, Tk, D); with one query nothing is hidden."""
    causal = causal and q.shape[2] > 1
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(-1) @ v


def rotary_angles():
    def angles(positions, width):
        return positions[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)

    prefix = angles(torch.arange(PREFIX).float(), HEAD)
    side = angles(torch.arange(PREFIX, PREFIX + GRID).float(), HEAD // 2)
    rows, columns = side.repeat_interleave(GRID, 0), side.repeat(GRID, 1)
    return torch.cat([prefix, torch.cat([rows, columns], 1)])


def rotate(x, cos, sin):
    """x (B, H, T, D) by cos and sin (T, D/2), pairs of neighbours."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).type_as(x)


class GeneratorBlock(nn.Module):
    def __init__(self):
        super().__init__()
        hidden = 256 * math.ceil(8 * WIDTH // 3 / 256)
        self.norm1, self.norm2 = RMSNorm(WIDTH), RMSNorm(WIDTH)
        self.q_norm, self.k_norm = RMSNorm(HEAD), RMSNorm(HEAD)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.w1, self.w3 = nn.Linear(WIDTH, hidden, bias=False), nn.Linear(WIDTH, hidden, bias=False)
        self.w2 = nn.Linear(hidden, WIDTH, bias=False)

    def forward(self, x, cos, sin, cache=None):
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        y = attention(q, k, v, causal=True).transpose(1, 2).reshape(batch, length, WIDTH)
        x = x + self.proj(y)
        h = self.norm2(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(CODES + CLASSES + 2, WIDTH)
        self.blocks = nn.ModuleList(GeneratorBlock() for _ in range(LAYERS))
        self.norm, self.output = RMSNorm(WIDTH), nn.Linear(WIDTH, CODES)
        angles = rotary_angles()
        condition = torch.zeros(1, HEAD // 2)
        self.register_buffer("cos", torch.cat([condition, angles.cos()]))
        self.register_buffer("sin", torch.cat([condition, angles.sin()]))

    def forward(self, ids, start=0, caches=None):
        x = self.embeddings(ids)
        at = slice(start, start + ids.shape[1])
        for i, block in enumerate(self.blocks):
            x = block(x, self.cos[at], self.sin[at], caches and caches[i])
        return self.output(self.norm(x))

    @torch.no_grad()
    def sample(self, labels, steps, scale=16, power=1.8):
        caches = [[] for _ in self.blocks]
        free = torch.full_like(labels, CODES + 1 + CLASSES)
        ids = torch.cat([CODES + 1 + labels, free])[:, None]
        for i in range(steps):
            with_class, without = self(ids, i, caches)[:, -1].float().chunk(2)
            guidance = 1 + (scale - 1) * 0.5 * (1 - math.cos(math.pi * (i / TOKENS) ** power))
            p = (without + guidance * (with_class - without)).softmax(-1)
            ids = torch.multinomial(p, 1).repeat(2, 1)


class VisionBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        qkv = self.in_proj(self.ln_1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = x + self.out_proj(attention(q, k, v, False).transpose(1, 2).reshape(batch, length, width))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 768, 16, 16)
        self.latents = nn.Parameter(torch.randn(TOKENS, 768) * 0.02)
        self.ln_pre, self.ln_post = LayerNorm(768), LayerNorm(768)
        self.blocks = nn.Sequential(*[VisionBlock(768, 12) for _ in range(12)])
        self.conv_out = nn.Linear(768, 32)

    def forward(self, images):
        patches = self.patch_embed(images).flatten(2).mT
        x = torch.cat([patches, self.latents.expand(len(images), -1, -1).type_as(patches)], 1)
        return self.conv_out(self.ln_post(self.blocks(self.ln_pre(x))[:, GRID * GRID :]))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.codebook = nn.Embedding(CODES, 32)
        self.decoder_embed = nn.Linear(32, 1024)
        self.learned = nn.Parameter(torch.randn(32, 1024) * 0.02)
        self.ln_pre, self.ln_post = LayerNorm(1024), LayerNorm(1024)
        self.blocks = nn.Sequential(*[VisionBlock(1024, 16) for _ in range(24)])
        self.ffn, self.conv_out = nn.Linear(1024, 768), nn.Conv2d(3, 3, 1)

    def forward(self, codes):
        x = self.decoder_embed(self.codebook(codes))
        x = torch.cat([self.learned.expand(len(x), -1, -1).type_as(x), x], 1)
        x = self.ffn(self.ln_post(self.blocks(self.ln_pre(x))[:, -GRID * GRID :]))
        pixels = x.view(-1, GRID, GRID, 16, 16, 3).permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, 256, 256)
        return self.conv_out(pixels).sigmoid()


def prepare(options):
    device, batch = options.device, options.batch
    if options.case in ("sample", "train"):
        model = Generator().to(device)
        if options.case == "sample":
            labels = torch.arange(batch, device=device) % CLASSES
            return lambda: model.sample(labels, options.steps)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        ids = torch.randint(0, CODES, (batch, TOKENS + 1), device=device)

        def step():
            with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=options.bf16):
                logits = model(ids)[:, :-1]
            F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step
    if options.case == "encode":
        model, x = Encoder().to(device), torch.rand(batch, 3, 256, 256, device=device)
    else:
        model, x = Decoder().to(device), torch.randint(0, CODES, (batch, TOKENS), device=device)
    return lambda: torch.no_grad()(model)(x)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=["sample", "train", "encode", "decode"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=TOKENS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--tf32", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    torch.backends.cudnn.allow_tf32 = options.tf32
    run = prepare(options)
    times, processor = [], []
    for _ in range(options.repeats + 1):
        start, used = time.perf_counter(), time.process_time()
        if options.case == "train":
            run()
        else:
            with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=options.bf16):
                run()
        if options.device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    times, processor = times[1:], processor[1:]  # the first warms up
    print(json.dumps({"case": options.case, "batch": options.batch, "seconds": statistics.median(times),
                      "fastest": min(times), "processor_seconds": statistics.median(processor),
                      "torch": torch.__version__}))


main()
