"""Makes the values that `alitok doctor` tests an engine by: src/doctor/golden-values.ts.

    /usr/bin/python3 test/golden/self_test.py > src/doctor/golden-values.ts && npx biome format --write src/bench

Both models are written a second time here, in PyTorch and float64, on weights and inputs from a formula. That they are the
reference's is checked first, against test/fixtures/goldens.
"""

import json
import math
import struct
from pathlib import Path

import torch
from torch.nn import functional as F

GOLDENS = Path(__file__).parent.parent / "fixtures" / "goldens"


def open_golden(name):
    data = (GOLDENS / f"{name}.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    dtypes = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "I32": torch.int32}
    tensors = {}
    for key, info in header.items():
        start, end = info["data_offsets"]
        raw = bytearray(data[8 + length + start : 8 + length + end])
        value = torch.frombuffer(raw, dtype=dtypes[info["dtype"]]).view(info["shape"])
        tensors[key] = value.double() if value.is_floating_point() else value
    weights = {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}
    return metadata, tensors, weights


def uniform(size, seed):
    """Numbers in [-1, 1) that any language can make: a hash of the index."""
    mask = 0xFFFFFFFF
    h = (torch.arange(size, dtype=torch.int64) + seed * 0x9E3779B1) & mask
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h ^= h >> shift
        low, high = h & 0xFFFF, h >> 16
        h = (low * factor + (((high * factor) & 0xFFFF) << 16)) & mask
    h ^= h >> 16
    return 2 * h.double() / 2**32 - 1


def formula_weights(shapes, seed):
    weights = {}
    for j, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        size = math.prod(shape)
        if len(shape) == 1:
            scale, offset = 0.1, 0.0 if name.endswith("bias") else 1.0
        else:
            scale, offset = math.sqrt(3 / math.prod(shape[1:])), 0.0
        weights[name] = (uniform(size, seed + j).float() * scale + offset).double().view(shape)
    return weights


def attention(q, k, v, causal):
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(-1) @ v


def layer_norm(w, name, x):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def linear(w, name, x):
    weight = w[f"{name}.weight"]
    return F.linear(x, weight.flatten(1), w.get(f"{name}.bias"))


def transformer(w, name, x, layers, heads, causal):
    for i in range(layers):
        at = f"{name}.{i}"
        batch, length, width = x.shape
        qkv = linear(w, f"{at}.attn.in_proj", layer_norm(w, f"{at}.ln_1", x))
        q, k, v = qkv.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        y = attention(q, k, v, causal).transpose(1, 2).reshape(batch, length, width)
        x = x + linear(w, f"{at}.attn.out_proj", y)
        h = F.gelu(linear(w, f"{at}.mlp.c_fc", layer_norm(w, f"{at}.ln_2", x)))
        x = x + linear(w, f"{at}.mlp.c_proj", h)
    return x


def tokenizer(w, s, x, stage):
    """x (B, 3, S, S) -> z, codes, image, aux (None in stage 2), loss of stage 1 without perceptual terms."""
    p, grid = s["patch"], s["size"] // s["patch"]
    prefix = grid + 1
    batch = x.shape[0]
    patches = F.conv2d(x, w["encoder.patch_embed.weight"], w["encoder.patch_embed.bias"], stride=p)
    h = patches.flatten(2).transpose(1, 2) + w["encoder.positional_embedding"]
    latents = w["latent_tokens"] + w["encoder.latent_token_positional_embedding"]
    h = layer_norm(w, "encoder.ln_pre", torch.cat([h, latents.expand(batch, -1, -1)], 1))
    h = transformer(w, "encoder.transformer", h, s["encoder"]["layers"], s["encoder"]["heads"], False)
    z = linear(w, "encoder.conv_out", layer_norm(w, "encoder.ln_post", h[:, grid * grid :]))
    codebook = w["quantize.embedding.weight"]
    distances = torch.cdist(z.flatten(0, 1).detach(), codebook.detach()) ** 2
    codes = distances.argmin(-1).view(batch, -1)
    nearest = distances.sort(-1).values
    margin = (nearest[:, 1] - nearest[:, 0]).min().item()
    q = codebook[codes]
    quantizer = (0.25 * (q.detach() - z) ** 2 + (q - z.detach()) ** 2).mean()
    h = linear(w, "decoder.decoder_embed", z + (q - z).detach())
    learned = w["decoder.class_embedding"]
    h = torch.cat([learned.expand(batch, -1, -1), h], 1) + w["decoder.latent_token_positional_embedding"]
    h = layer_norm(w, "decoder.ln_pre", h)
    h = transformer(w, "decoder.transformer", h, s["decoder"]["layers"], s["decoder"]["heads"], stage == 1)
    h = layer_norm(w, "decoder.ln_post", h[:, len(learned) :])

    def head(suffix, y, rows, columns):
        y = linear(w, f"decoder.ffn{suffix}.0", y).view(batch, rows, columns, p, p, 3)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(batch, rows * p, columns * p, 3)
        return linear(w, f"decoder.conv_out{suffix}", y).sigmoid().permute(0, 3, 1, 2)

    image = head("", h[:, prefix:], grid, grid)
    if stage == 2:
        return z, codes, image, None, F.mse_loss(image, x), margin
    aux = head("_aux", h[:, :prefix], 1, prefix)
    target = torch.cat([x[:, :, :p, :p], x[:, :, :p]], 3)
    loss = F.mse_loss(image, x) + 10 * prefix / grid**2 * F.mse_loss(aux, target) + quantizer
    return z, codes, image, aux, loss, margin


def rms_norm(w, name, x):
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * w[f"{name}.weight"]


def generator(w, s, condition, ids):
    """condition (B), ids (B, T) -> logits (B, 1 + T, N), loss"""
    heads, head, grid, prefix = s["heads"], s["width"] // s["heads"], s["grid"], s["prefix"]

    def angles(positions, width):
        return positions[:, None] * 10000.0 ** (-torch.arange(0, width, 2).double() / width)

    side = angles(torch.arange(prefix, prefix + grid).double(), head // 2)
    image = torch.cat([side.repeat_interleave(grid, 0), side.repeat(grid, 1)], 1)
    table = torch.cat([angles(torch.arange(prefix).double(), head), image])
    none = torch.zeros(1, head // 2, dtype=torch.double)
    cos, sin = torch.cat([none, table.cos()]), torch.cat([none, table.sin()])

    def rotate(x):
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)

    x = w["embeddings.weight"][torch.cat([condition[:, None], ids], 1)]
    batch, length, width = x.shape
    for i in range(s["layers"]):
        at = f"blocks.{i}"
        qkv = linear(w, f"{at}.attn.qkv", rms_norm(w, f"{at}.norm1", x))
        q, k, v = qkv.view(batch, length, 3, heads, head).permute(2, 0, 3, 1, 4)
        q, k = rotate(rms_norm(w, f"{at}.attn.q_norm", q)), rotate(rms_norm(w, f"{at}.attn.k_norm", k))
        y = attention(q, k, v, True).transpose(1, 2).reshape(batch, length, width)
        x = x + linear(w, f"{at}.attn.proj", y)
        h = rms_norm(w, f"{at}.norm2", x)
        x = x + linear(w, f"{at}.mlp.w2", F.silu(linear(w, f"{at}.mlp.w1", h)) * linear(w, f"{at}.mlp.w3", h))
    logits = linear(w, "output", rms_norm(w, "norm", x))
    return logits, F.cross_entropy(logits[:, :-1].flatten(0, 1), ids.flatten())


def check():
    def close(name, a, b):
        error = ((a - b).norm() / b.norm()).item()
        assert error < 1e-4, f"{name}: {error}"

    for stage in (1, 2):
        m, t, w = open_golden(f"tokenizer_stage{stage}")
        part = lambda n: {"layers": int(m[f"{n}_layers"]), "heads": int(m[f"{n}_heads"])}
        s = {"size": int(m["image_size"]), "patch": int(m["patch_size"])}
        s |= {"encoder": part("enc"), "decoder": part("dec")}
        _, codes, image, aux, loss, _ = tokenizer(w, s, t["x"], stage)
        assert (codes.flatten() == t["indices"].flatten()).all()
        close("recon", image, t["recon"])
        if aux is not None:
            close("aux", aux, t["aux"])
        close("loss", loss, t["loss.total" if stage == 1 else "loss.mse"].flatten()[0])
    m, t, w = open_golden("generator")
    s = {"width": int(m["hidden_size"]), "layers": int(m["num_hidden_layers"])}
    s |= {"heads": int(m["num_attention_heads"]), "grid": int(m["grid"]), "prefix": int(m["prefix_tokens"])}
    logits, loss = generator(w, s, t["condition"].long(), t["ids"].long())
    close("logits", logits, t["logits"])
    close("loss", loss, t["loss"].flatten()[0])


BATCH, SEED = 2, 100
TOKENIZER = {
    "size": 32,
    "patch": 8,
    "codebook": 32,
    "token": 8,
    "encoder": {"width": 64, "layers": 2, "heads": 4},
    "decoder": {"width": 64, "layers": 2, "heads": 4},
    "class_tokens": 4,
}
GENERATOR = {"width": 64, "layers": 2, "heads": 4, "grid": 4, "prefix": 5, "codes": 48, "classes": 3}


def transformer_shapes(name, width, layers):
    parts = {
        "ln_1": [width],
        "ln_2": [width],
        "attn.in_proj": [3 * width, width],
        "attn.out_proj": [width, width],
        "mlp.c_fc": [4 * width, width],
        "mlp.c_proj": [width, 4 * width],
    }
    shapes = {}
    for i in range(layers):
        for part, shape in parts.items():
            shapes[f"{name}.{i}.{part}.weight"] = shape
            shapes[f"{name}.{i}.{part}.bias"] = shape[:1]
    return shapes


def tokenizer_shapes(stage):
    s = TOKENIZER
    p, grid = s["patch"], s["size"] // s["patch"]
    tokens, pixels = grid + 1 + grid * grid, 3 * p * p
    enc, dec = s["encoder"]["width"], s["decoder"]["width"]
    front = 1 if stage == 1 else s["class_tokens"]
    shapes = {
        "latent_tokens": [tokens, enc],
        "encoder.patch_embed.weight": [enc, 3, p, p],
        "encoder.positional_embedding": [grid * grid, enc],
        "encoder.latent_token_positional_embedding": [tokens, enc],
        "encoder.ln_pre.weight": [enc],
        "encoder.ln_post.weight": [enc],
        "encoder.conv_out.weight": [s["token"], enc, 1, 1],
        "decoder.decoder_embed.weight": [dec, s["token"]],
        "decoder.ln_pre.weight": [dec],
        "decoder.ln_post.weight": [dec],
        "decoder.ffn.0.weight": [pixels, dec, 1, 1],
        "decoder.conv_out.weight": [3, 3, 1, 1],
    }
    if stage == 1:
        shapes |= {"decoder.ffn_aux.0.weight": [pixels, dec, 1, 1], "decoder.conv_out_aux.weight": [3, 3, 1, 1]}
    shapes |= {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items() if name.endswith("weight")}
    shapes["decoder.class_embedding"] = [front, dec]
    shapes["decoder.latent_token_positional_embedding"] = [tokens + front, dec]
    shapes["quantize.embedding.weight"] = [s["codebook"], s["token"]]
    for part in ("encoder", "decoder"):
        shapes |= transformer_shapes(f"{part}.transformer", s[part]["width"], s[part]["layers"])
    return shapes


def generator_shapes():
    s = GENERATOR
    d = s["width"]
    hidden = 256 * math.ceil(8 * d // 3 / 256)
    shapes = {"embeddings.weight": [s["codes"] + s["classes"] + 2, d], "norm.weight": [d]}
    shapes |= {"output.weight": [s["codes"], d], "output.bias": [s["codes"]]}
    for i in range(s["layers"]):
        block = {
            "norm1.weight": [d],
            "norm2.weight": [d],
            "attn.qkv.weight": [3 * d, d],
            "attn.qkv.bias": [3 * d],
            "attn.q_norm.weight": [d // s["heads"]],
            "attn.k_norm.weight": [d // s["heads"]],
            "attn.proj.weight": [d, d],
            "attn.proj.bias": [d],
            "mlp.w1.weight": [hidden, d],
            "mlp.w3.weight": [hidden, d],
            "mlp.w2.weight": [d, hidden],
        }
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def summary(x):
    """The norm, and the product with numbers from the formula: an error anywhere shows in one of them."""
    x = x.detach().flatten()
    return [x.norm().item(), (x @ uniform(len(x), 1)).item()]


def with_gradients(weights, loss):
    names = sorted(weights)
    gradients = torch.autograd.grad(loss, [weights[name] for name in names], allow_unused=True)
    return {f"gradient of {name}": summary(g) for name, g in zip(names, gradients) if g is not None}


def values():
    s = TOKENIZER
    pixels = BATCH * s["size"] ** 2 * 3
    images = ((uniform(pixels, 2) + 1) / 2).float().double().view(BATCH, s["size"], s["size"], 3)
    x = images.permute(0, 3, 1, 2)
    found = {}
    for stage in (1, 2):
        w = formula_weights(tokenizer_shapes(stage), SEED)
        for value in w.values():
            value.requires_grad_()
        z, codes, image, aux, loss, margin = tokenizer(w, s, x, stage)
        assert margin > 1e-3, f"codes are not sure: {margin}"
        own = {"z": summary(z), "codes": summary(codes.double()), "image": summary(image.permute(0, 2, 3, 1))}
        if aux is not None:
            own["aux"] = summary(aux.permute(0, 2, 3, 1))
            own["loss"] = summary(loss)
            own |= with_gradients(w, loss)
        found |= {f"stage {stage}: {name}": value for name, value in own.items()}
    g = GENERATOR
    tokens = g["prefix"] + g["grid"] ** 2
    ids = (torch.arange(BATCH * tokens) * 7 % g["codes"]).view(BATCH, tokens)
    condition = g["codes"] + 1 + torch.tensor([1, g["classes"]])
    w = formula_weights(generator_shapes(), SEED)
    for value in w.values():
        value.requires_grad_()
    logits, loss = generator(w, g, condition, ids)
    own = {"logits": summary(logits), "loss": summary(loss)} | with_gradients(w, loss)
    return found | {f"generator: {name}": value for name, value in own.items()}


check()
print("/** Made by test/golden/self_test.py: of each tensor the norm, and the product with numbers from the formula. */")
print("export const GOLDEN_VALUES: Readonly<Record<string, readonly [norm: number, product: number]>> = {")
for name, (norm, product) in values().items():
    print(f"  '{name}': [{float(f'{norm:.9g}')}, {float(f'{product:.9g}')}],")
print("};")
