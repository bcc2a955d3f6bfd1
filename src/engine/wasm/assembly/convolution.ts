// Convolutions (NHWC): conversion between images and rows of patches, for matrix products, and depthwise convolutions.

/**
 * Writes the patches of `images` images as rows (images·outH·outW, kh·kw·channels), with zeros outside the images. Output rows
 * are divided among the parts.
 */
export function toColumns(
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
  columns: usize,
  part: i32,
  parts: i32,
): void {
  const lines = images * outH;
  const run = (<usize>channels) << 2;
  for (let line = (lines * part) / parts; line < (lines * (part + 1)) / parts; line++) {
    const image = line / outH,
      oy = line % outH;
    let to = columns + <usize>line * outW * kh * kw * run;
    for (let ox = 0; ox < outW; ox++)
      for (let ky = 0; ky < kh; ky++) {
        const y = oy * strideH - top + ky * dilationH;
        for (let kx = 0; kx < kw; kx++) {
          const xx = ox * strideW - left + kx * dilationW;
          if (y < 0 || y >= height || xx < 0 || xx >= width) memory.fill(to, 0, run);
          else memory.copy(to, x + <usize>((image * height + y) * width + xx) * run, run);
          to += run;
        }
      }
  }
}

/**
 * The transpose of `toColumns`: adds rows of patches to the images dx, which are set to zero first. Images are divided among
 * the parts.
 */
export function fromColumns(
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
  columns: usize,
  dx: usize,
  part: i32,
  parts: i32,
): void {
  const run = (<usize>channels) << 2;
  const whole = (run >> 4) << 4;
  for (let image = (images * part) / parts; image < (images * (part + 1)) / parts; image++) {
    memory.fill(dx + <usize>(image * height * width) * run, 0, <usize>(height * width) * run);
    let from = columns + <usize>(image * outH * outW * kh * kw) * run;
    for (let oy = 0; oy < outH; oy++)
      for (let ox = 0; ox < outW; ox++)
        for (let ky = 0; ky < kh; ky++) {
          const y = oy * strideH - top + ky * dilationH;
          for (let kx = 0; kx < kw; kx++) {
            const xx = ox * strideW - left + kx * dilationW;
            if (y >= 0 && y < height && xx >= 0 && xx < width) {
              const to = dx + <usize>((image * height + y) * width + xx) * run;
              let c: usize = 0;
              for (; c < whole; c += 16)
                v128.store(to + c, f32x4.add(v128.load(to + c), v128.load(from + c)));
              for (; c < run; c += 4) store<f32>(to + c, load<f32>(to + c) + load<f32>(from + c));
            }
            from += run;
          }
        }
  }
}

/**
 * Depthwise convolution of images by a filter (kh, kw, channels), to y (images, outH, outW, channels). Output rows are divided
 * among the parts.
 */
export function depthwise(
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
  filter: usize,
  y: usize,
  part: i32,
  parts: i32,
): void {
  const lines = images * outH;
  const run = (<usize>channels) << 2;
  for (let line = (lines * part) / parts; line < (lines * (part + 1)) / parts; line++) {
    const image = line / outH,
      oy = line % outH;
    for (let ox = 0; ox < outW; ox++) {
      const to = y + <usize>(line * outW + ox) * run;
      let c: usize = 0;
      while (c < run) {
        // Sixteen channels at a time stay in registers over the whole window; the remaining ones are processed one by one.
        const many = c + 64 <= run;
        let s0 = f32x4.splat(0),
          s1 = s0,
          s2 = s0,
          s3 = s0;
        let single: f32 = 0;
        for (let ky = 0; ky < kh; ky++) {
          const iy = oy * strideH - top + ky * dilationH;
          if (iy < 0 || iy >= height) continue;
          for (let kx = 0; kx < kw; kx++) {
            const ix = ox * strideW - left + kx * dilationW;
            if (ix < 0 || ix >= width) continue;
            const from = x + <usize>((image * height + iy) * width + ix) * run + c;
            const f = filter + <usize>(ky * kw + kx) * run + c;
            if (many) {
              s0 = f32x4.add(s0, f32x4.mul(v128.load(from), v128.load(f)));
              s1 = f32x4.add(s1, f32x4.mul(v128.load(from, 16), v128.load(f, 16)));
              s2 = f32x4.add(s2, f32x4.mul(v128.load(from, 32), v128.load(f, 32)));
              s3 = f32x4.add(s3, f32x4.mul(v128.load(from, 48), v128.load(f, 48)));
            } else single += load<f32>(from) * load<f32>(f);
          }
        }
        if (many) {
          v128.store(to + c, s0);
          v128.store(to + c, s1, 16);
          v128.store(to + c, s2, 32);
          v128.store(to + c, s3, 48);
          c += 64;
        } else {
          store<f32>(to + c, single);
          c += 4;
        }
      }
    }
  }
}

/**
 * dx of a depthwise convolution, filter (kh, kw, channels, multiplier); dx is set to zero first. Images are divided among the
 * parts.
 */
export function depthwiseGradInput(
  images: i32,
  height: i32,
  width: i32,
  channels: i32,
  multiplier: i32,
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
  filter: usize,
  dx: usize,
  part: i32,
  parts: i32,
): void {
  for (let image = (images * part) / parts; image < (images * (part + 1)) / parts; image++) {
    memory.fill(dx + ((image * height * width * channels) << 2), 0, (height * width * channels) << 2);
    for (let oy = 0; oy < outH; oy++)
      for (let ox = 0; ox < outW; ox++) {
        const g = dy + ((((image * outH + oy) * outW + ox) * channels * multiplier) << 2);
        for (let ky = 0; ky < kh; ky++) {
          const y = oy * strideH - top + ky * dilationH;
          if (y < 0 || y >= height) continue;
          for (let kx = 0; kx < kw; kx++) {
            const xx = ox * strideW - left + kx * dilationW;
            if (xx < 0 || xx >= width) continue;
            const to = dx + ((((image * height + y) * width + xx) * channels) << 2);
            const f = filter + (((ky * kw + kx) * channels * multiplier) << 2);
            let c = 0;
            if (multiplier == 1)
              for (; c + 4 <= channels; c += 4) {
                const o = <usize>(c << 2);
                v128.store(
                  to + o,
                  f32x4.add(v128.load(to + o), f32x4.mul(v128.load(g + o), v128.load(f + o))),
                );
              }
            for (; c < channels; c++) {
              let sum = load<f32>(to + (c << 2));
              for (let q = c * multiplier; q < (c + 1) * multiplier; q++)
                sum += load<f32>(g + (q << 2)) * load<f32>(f + (q << 2));
              store<f32>(to + (c << 2), sum);
            }
          }
        }
      }
  }
}

/**
 * dfilter (kh, kw, channels, multiplier) of a depthwise convolution; it is set to zero first. Filter positions are divided
 * among the parts.
 */
export function depthwiseGradFilter(
  images: i32,
  height: i32,
  width: i32,
  channels: i32,
  multiplier: i32,
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
  dy: usize,
  dfilter: usize,
  part: i32,
  parts: i32,
): void {
  const outputs = channels * multiplier;
  for (let at = (kh * kw * part) / parts; at < (kh * kw * (part + 1)) / parts; at++) {
    const ky = at / kw,
      kx = at % kw;
    const to = dfilter + ((at * outputs) << 2);
    memory.fill(to, 0, outputs << 2);
    for (let image = 0; image < images; image++)
      for (let oy = 0; oy < outH; oy++) {
        const y = oy * strideH - top + ky * dilationH;
        if (y < 0 || y >= height) continue;
        for (let ox = 0; ox < outW; ox++) {
          const xx = ox * strideW - left + kx * dilationW;
          if (xx < 0 || xx >= width) continue;
          const from = x + ((((image * height + y) * width + xx) * channels) << 2);
          const g = dy + ((((image * outH + oy) * outW + ox) * outputs) << 2);
          for (let q = 0; q < outputs; q++) {
            const o = <usize>(q << 2);
            store<f32>(
              to + o,
              load<f32>(to + o) + load<f32>(from + ((q / multiplier) << 2)) * load<f32>(g + o),
            );
          }
        }
      }
  }
}
