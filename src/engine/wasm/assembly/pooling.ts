/**
 * dx (images, height, width, channels) of max pooling: each window's gradient goes to its first largest element.
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
              if (best >= 0 && value <= largest) continue;
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
