/** Reduces the pixels of each window that are inside the image to their mean or maximum: y (images, outH, outW, channels). */
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
  const lines = images * outH;
  const start: f32 = mean ? 0 : -Infinity;
  for (let line = (lines * part) / parts; line < (lines * (part + 1)) / parts; line++) {
    const image = line / outH,
      oy = line % outH;
    for (let ox = 0; ox < outW; ox++) {
      const to = y + <usize>(line * outW + ox) * run;
      let c: usize = 0;
      while (c < run) {
        // Sixteen channels at a time stay in registers over the whole window; the remaining ones are processed one by one.
        const many = c + 64 <= run;
        let s0 = f32x4.splat(start),
          s1 = s0,
          s2 = s0,
          s3 = s0;
        // The fast maximum (pmax) loses NaN, so a mask records where NaN occurred. Its set bits are NaN themselves.
        let n0 = f32x4.splat(0),
          n1 = n0,
          n2 = n0,
          n3 = n0;
        let single = start;
        let count: f32 = 0;
        for (let ky = 0; ky < kh; ky++) {
          const iy = oy * strideH - top + ky * dilationH;
          if (iy < 0 || iy >= height) continue;
          for (let kx = 0; kx < kw; kx++) {
            const ix = ox * strideW - left + kx * dilationW;
            if (ix < 0 || ix >= width) continue;
            const from = x + <usize>((image * height + iy) * width + ix) * run + c;
            count += 1;
            if (many) {
              const x0 = v128.load(from),
                x1 = v128.load(from, 16),
                x2 = v128.load(from, 32),
                x3 = v128.load(from, 48);
              if (mean) {
                s0 = f32x4.add(s0, x0);
                s1 = f32x4.add(s1, x1);
                s2 = f32x4.add(s2, x2);
                s3 = f32x4.add(s3, x3);
              } else {
                s0 = f32x4.pmax(s0, x0);
                s1 = f32x4.pmax(s1, x1);
                s2 = f32x4.pmax(s2, x2);
                s3 = f32x4.pmax(s3, x3);
                n0 = v128.or(n0, f32x4.ne(x0, x0));
                n1 = v128.or(n1, f32x4.ne(x1, x1));
                n2 = v128.or(n2, f32x4.ne(x2, x2));
                n3 = v128.or(n3, f32x4.ne(x3, x3));
              }
            } else single = mean ? single + load<f32>(from) : max(single, load<f32>(from));
          }
        }
        if (many) {
          const n = f32x4.splat(count);
          v128.store(to + c, mean ? f32x4.div(s0, n) : v128.or(s0, n0));
          v128.store(to + c, mean ? f32x4.div(s1, n) : v128.or(s1, n1), 16);
          v128.store(to + c, mean ? f32x4.div(s2, n) : v128.or(s2, n2), 32);
          v128.store(to + c, mean ? f32x4.div(s3, n) : v128.or(s3, n3), 48);
          c += 64;
        } else {
          store<f32>(to + c, mean ? single / count : single);
          c += 4;
        }
      }
    }
  }
}

/** The maximum of each window, or NaN if it contains one. Output rows are divided among the parts. */
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

/** The mean of each window's pixels that are inside the image. Output rows are divided among the parts. */
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
 * dx (images, height, width, channels) of max pooling: each window's gradient goes to its first maximum, or to a NaN if it
 * contains one. Images are divided among the parts.
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
              // NaN counts as larger than all numbers; of several NaNs the last one wins, as in PyTorch.
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
