"""Makes positional tables that PyTorch resampled: test/fixtures/positions.json.

    python3 test/checkpoint/positions.py > test/fixtures/positions.json

A grid is (g, g, C), a row (g, C), in the order of memory. Made with PyTorch 2.13.
"""

import json

import torch
from torch.nn import functional as F

CHANNELS = 3

torch.manual_seed(1)


def case(source, target):
    def resampled(x, size):  # (h, w, C)
        y = F.interpolate(x.permute(2, 0, 1)[None], size, mode="bicubic", align_corners=False, antialias=True)
        return y[0].permute(1, 2, 0).flatten().tolist()

    grid = torch.randint(-512, 512, (source, source, CHANNELS)) / 256
    row = torch.randint(-512, 512, (1, source, CHANNELS)) / 256
    return {
        "from": source,
        "to": target,
        "grid": grid.flatten().tolist(),
        "row": row.flatten().tolist(),
        "grid_resampled": resampled(grid, (target, target)),
        "row_resampled": resampled(row, (1, target)),
    }


print(json.dumps({"channels": CHANNELS, "cases": [case(4, 7), case(8, 5)]}))
