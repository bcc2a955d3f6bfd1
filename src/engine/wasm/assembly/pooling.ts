/** Folds the pixels of each window that are inside the image, for y (images, outH, outW, channels). */
@inline
function pool(
  images: i32,
  height: i32,
  width: i32,
  channels: i32,
  outH: i32,
  outW: i32,
  kh: i32,
  kw: i32,
  strideH: i32,
  strideW: i32,
  dilationH: i32,
  dilationW: i32,
  top: i32,
  left: i32,
  x: usize,
  y: usize,
  mean: bool,
  part: i32,
  parts: i32,
): void {
  const run = (<usize>channels) << 2;
  const whole = (run >> 4) << 4;
  const lines = images * outH;
  const start: f32 = mean ? 0 : -Infinity;
  for (let line = (lines * part) / parts; line < (lines * (part + 1)) / parts; line++) {
    const image = line / outH,
      oy = line % outH;
    for (let ox = 0; ox < outW; ox++) {
      const to = y + <usize>(line * outW + ox) * run;
      for (let c: usize = 0; c < run; c += c < whole ? 16 : 4) {
        let all = f32x4.splat(start);
        let one: f32 = start;
        let count: f32 = 0;
        for (let ky = 0; ky < kh; ky++) {
          const iy = oy * strideH - top + ky * dilationH;
          if (iy < 0 || iy >= height) continue;
          for (let kx = 0; kx < kw; kx++) {
            const ix = ox * strideW - left + kx * dilationW;
            if (ix < 0 || ix >= width) continue;
            const from = x + <usize>((image * height + iy) * width + ix) * run + c;
            if (c < whole) {
              const next = v128.load(from);
              all = mean ? f32x4.add(all, next) : f32x4.max(all, next);
            } else {
              const next = load<f32>(from);
              one = mean ? one + next : max(one, next);
            }
            count += 1;
          }
        }
        if (c < whole) v128.store(to + c, mean ? f32x4.div(all, f32x4.splat(count)) : all);
        else store<f32>(to + c, mean ? one / count : one);
      }
    }
  }
}

/** The largest pixel of each window, NaN where there is one. Parts share the rows of output. */
export function maxPool(
  images: i32,
  height: i32,
  width: i32,
  channels: i32,
  outH: i32,
  outW: i32,
  kh: i32,
  kw: i32,
  strideH: i32,
  strideW: i32,
  dilationH: i32,
  dilationW: i32,
  top: i32,
  left: i32,
  x: usize,
  y: usize,
  part: i32,
  parts: i32,
): void {
  pool(images, height, width, channels, outH, outW, kh, kw, strideH, strideW, dilationH, dilationW, top, left, x, y, false, part, parts);
}

/** The mean of each window's pixels that are inside the image. Parts share the rows of output. */
export function avgPool(
  images: i32,
  height: i32,
  width: i32,
  channels: i32,
  outH: i32,
  outW: i32,
  kh: i32,
  kw: i32,
  strideH: i32,
  strideW: i32,
  dilationH: i32,
  dilationW: i32,
  top: i32,
  left: i32,
  x: usize,
  y: usize,
  part: i32,
  parts: i32,
): void {
  pool(images, height, width, channels, outH, outW, kh, kw, strideH, strideW, dilationH, dilationW, top, left, x, y, true, part, parts);
}

/**
 * dx (images, height, width, channels) of max pooling: each window's gradient goes to its first largest element, or to NaN.
 * Parts share the images.
 */
export function maxPoolGrad(
  images: i32,
  height: i32,
  width: i32,
  channels: i32,
  outH: i32,
  outW: i32,
  kh: i32,
  kw: i32,
  strideH: i32,
  strideW: i32,
  dilationH: i32,
  dilationW: i32,
  top: i32,
  left: i32,
  dy: usize,
  x: usize,
  dx: usize,
  part: i32,
  parts: i32,
): void {
  const first = (images * part) / parts,
    last = (images * (part + 1)) / parts;
  const pixels = height * width * channels;
  memory.fill(dx + ((<usize>first * pixels) << 2), 0, (<usize>(last - first) * pixels) << 2);
  for (let image = first; image < last; image++) {
    const from = x + ((<usize>image * pixels) << 2);
    const to = dx + ((<usize>image * pixels) << 2);
    for (let oy = 0; oy < outH; oy++)
      for (let ox = 0; ox < outW; ox++)
        for (let c = 0; c < channels; c++) {
          let best = -1;
          let largest: f32 = 0;
          for (let ky = 0; ky < kh; ky++) {
            const y = oy * strideH - top + ky * dilationH;
            if (y < 0 || y >= height) continue;
            for (let kx = 0; kx < kw; kx++) {
              const xx = ox * strideW - left + kx * dilationW;
              if (xx < 0 || xx >= width) continue;
              const at = (y * width + xx) * channels + c;
              const value = load<f32>(from + (<usize>at << 2));
              // NaN is larger than all numbers; of several the last counts, as in PyTorch.
              if (best >= 0 && !(value > largest || value != value)) continue;
              best = at;
              largest = value;
            }
          }
          if (best < 0) continue;
          const place = to + (<usize>best << 2);
          const g = dy + (<usize>(((image * outH + oy) * outW + ox) * channels + c) << 2);
          store<f32>(place, load<f32>(place) + load<f32>(g));
        }
  }
}
