// Normalization over rows of d floats, and over groups of channels.

@inline function first(rows: i32, part: i32, parts: i32): i32 {
  return <i32>((<i64>rows * part) / parts);
}

/** y = (x − mean)/√(variance + ε)·weight + bias; with `rms`, mean is 0 and bias absent. */
export function rowNorm(
  rows: i32, d: i32, x: usize, weight: usize, bias: usize, y: usize, epsilon: f32, rms: i32, part: i32, parts: i32,
): void {
  for (let row = first(rows, part, parts); row < first(rows, part + 1, parts); row++) {
    const from = x + ((row * d) << 2), to = y + ((row * d) << 2);
    const mean: f32 = rms ? 0 : meanOf(from, d);
    const scale = scaleOf(varianceOf(from, d, mean), epsilon, rms);
    const m = f32x4.splat(mean), s = f32x4.splat(scale);
    let i: usize = 0;
    const whole = (<usize>d >> 2) << 4, end = <usize>d << 2;
    for (; i < whole; i += 16) {
      let v = f32x4.mul(f32x4.mul(f32x4.sub(v128.load(from + i), m), s), v128.load(weight + i));
      if (!rms) v = f32x4.add(v, v128.load(bias + i));
      v128.store(to + i, v);
    }
    for (; i < end; i += 4) {
      let v: f32 = (load<f32>(from + i) - mean) * scale * load<f32>(weight + i);
      if (!rms) v += load<f32>(bias + i);
      store<f32>(to + i, v);
    }
  }
}

@inline function lanes(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

function meanOf(x: usize, d: i32): f32 {
  let s = f32x4.splat(0);
  let i: usize = 0;
  const whole = (<usize>d >> 2) << 4, end = <usize>d << 2;
  for (; i < whole; i += 16) s = f32x4.add(s, v128.load(x + i));
  let sum = lanes(s);
  for (; i < end; i += 4) sum += load<f32>(x + i);
  return sum / <f32>d;
}

function varianceOf(x: usize, d: i32, mean: f32): f32 {
  const m = f32x4.splat(mean);
  let s = f32x4.splat(0);
  let i: usize = 0;
  const whole = (<usize>d >> 2) << 4, end = <usize>d << 2;
  for (; i < whole; i += 16) {
    const v = f32x4.sub(v128.load(x + i), m);
    s = f32x4.add(s, f32x4.mul(v, v));
  }
  let sum = lanes(s);
  for (; i < end; i += 4) {
    const v = load<f32>(x + i) - mean;
    sum += v * v;
  }
  return sum / <f32>d;
}

/**
 * 1/√(variance + ε). NaN if the variance overflows, because a scale of zero would hide that a row has gone wrong. (For RMSNorm
 * the scale is zero then, as by its formula in PyTorch.)
 */
@inline function scaleOf(variance: f32, epsilon: f32, rms: i32): f32 {
  const scale: f32 = 1 / sqrt(variance + epsilon);
  return rms ? scale : scale + (variance - variance);
}

/** dx by row; writes mean and scale of each row to `stats` (rows, 2) for `rowNormGradWeight`. */
export function rowNormGrad(
  rows: i32, d: i32, dy: usize, x: usize, weight: usize, dx: usize, stats: usize, epsilon: f32, rms: i32,
  part: i32, parts: i32,
): void {
  for (let row = first(rows, part, parts); row < first(rows, part + 1, parts); row++) {
    const o = <usize>((row * d) << 2);
    const mean: f32 = rms ? 0 : meanOf(x + o, d);
    const scale = scaleOf(varianceOf(x + o, d, mean), epsilon, rms);
    store<f32>(stats + (row << 3), mean);
    store<f32>(stats + (row << 3), scale, 4);
    // dx = scale·(g − mean(g) − n·mean(g·n)) with g = dy·weight, n the normalized x
    const m = f32x4.splat(mean), s = f32x4.splat(scale);
    let g4 = f32x4.splat(0), gx4 = g4;
    let i: usize = 0;
    const whole = (<usize>d >> 2) << 4, end = <usize>d << 2;
    for (; i < whole; i += 16) {
      const g = f32x4.mul(v128.load(dy + o + i), v128.load(weight + i));
      g4 = f32x4.add(g4, g);
      gx4 = f32x4.add(gx4, f32x4.mul(g, f32x4.sub(v128.load(x + o + i), m)));
    }
    let meanG = lanes(g4), meanGN = lanes(gx4);
    for (; i < end; i += 4) {
      const g = load<f32>(dy + o + i) * load<f32>(weight + i);
      meanG += g;
      meanGN += g * (load<f32>(x + o + i) - mean);
    }
    meanG = rms ? <f32>0 : meanG / <f32>d;
    meanGN = (meanGN * scale) / <f32>d;
    const mg = f32x4.splat(meanG), mgn = f32x4.splat(meanGN);
    for (i = 0; i < whole; i += 16) {
      const g = f32x4.mul(v128.load(dy + o + i), v128.load(weight + i));
      const n = f32x4.mul(f32x4.sub(v128.load(x + o + i), m), s);
      v128.store(dx + o + i, f32x4.mul(f32x4.sub(f32x4.sub(g, mg), f32x4.mul(n, mgn)), s));
    }
    for (; i < end; i += 4) {
      const g = load<f32>(dy + o + i) * load<f32>(weight + i);
      const n = (load<f32>(x + o + i) - mean) * scale;
      store<f32>(dx + o + i, (g - meanG - n * meanGN) * scale);
    }
  }
}

/** dweight = Σ dy·n and dbias = Σ dy over rows. Each part computes its own columns. */
export function rowNormGradWeight(
  rows: i32, d: i32, dy: usize, x: usize, stats: usize, dweight: usize, dbias: usize, part: i32, parts: i32,
): void {
  const from = first(d, part, parts), to = first(d, part + 1, parts);
  for (let j = from; j < to; j++) {
    store<f32>(dweight + (j << 2), 0);
    if (dbias != 0) store<f32>(dbias + (j << 2), 0);
  }
  for (let row = 0; row < rows; row++) {
    const mean = load<f32>(stats + (row << 3)), scale = load<f32>(stats + (row << 3), 4);
    const m = f32x4.splat(mean), s = f32x4.splat(scale);
    const o = <usize>((row * d) << 2);
    let j = from;
    for (; j + 4 <= to; j += 4) {
      const i = <usize>(j << 2);
      const g = v128.load(dy + o + i);
      const n = f32x4.mul(f32x4.sub(v128.load(x + o + i), m), s);
      v128.store(dweight + i, f32x4.add(v128.load(dweight + i), f32x4.mul(g, n)));
      if (dbias != 0) v128.store(dbias + i, f32x4.add(v128.load(dbias + i), g));
    }
    for (; j < to; j++) {
      const i = <usize>(j << 2);
      const g = load<f32>(dy + o + i);
      store<f32>(dweight + i, load<f32>(dweight + i) + g * (load<f32>(x + o + i) - mean) * scale);
      if (dbias != 0) store<f32>(dbias + i, load<f32>(dbias + i) + g);
    }
  }
}

/** GroupNorm of x (batch, pixels, channels); writes mean and scale of each (image, group) to `stats`. */
export function groupNorm(
  batch: i32, pixels: i32, channels: i32, groups: i32, x: usize, weight: usize, bias: usize, y: usize, stats: usize,
  epsilon: f32, part: i32, parts: i32,
): void {
  const each = channels / groups;
  const units = batch * groups;
  for (let unit = first(units, part, parts); unit < first(units, part + 1, parts); unit++) {
    const image = unit / groups, group = unit % groups;
    const start = <usize>((image * pixels * channels + group * each) << 2);
    let sum: f64 = 0, squares: f64 = 0;
    for (let p = 0; p < pixels; p++)
      for (let c = 0; c < each; c++) {
        const v = <f64>load<f32>(x + start + ((p * channels + c) << 2));
        sum += v;
        squares += v * v;
      }
    const n = <f64>(pixels * each);
    const mean = sum / n;
    const variance = <f32>max(squares / n - mean * mean, 0);
    const scale = scaleOf(variance, epsilon, 0);
    store<f32>(stats + (unit << 3), <f32>mean);
    store<f32>(stats + (unit << 3), scale, 4);
    if (y == 0) continue;
    for (let p = 0; p < pixels; p++)
      for (let c = 0; c < each; c++) {
        const o = start + ((p * channels + c) << 2), channel = <usize>((group * each + c) << 2);
        store<f32>(y + o, (load<f32>(x + o) - <f32>mean) * scale * load<f32>(weight + channel) + load<f32>(bias + channel));
      }
  }
}

export function groupNormGrad(
  batch: i32, pixels: i32, channels: i32, groups: i32, dy: usize, x: usize, weight: usize, stats: usize, dx: usize,
  part: i32, parts: i32,
): void {
  const each = channels / groups;
  const units = batch * groups;
  for (let unit = first(units, part, parts); unit < first(units, part + 1, parts); unit++) {
    const image = unit / groups, group = unit % groups;
    const start = <usize>((image * pixels * channels + group * each) << 2);
    const mean = load<f32>(stats + (unit << 3)), scale = load<f32>(stats + (unit << 3), 4);
    let g: f64 = 0, gn: f64 = 0;
    for (let p = 0; p < pixels; p++)
      for (let c = 0; c < each; c++) {
        const o = start + ((p * channels + c) << 2);
        const v = load<f32>(dy + o) * load<f32>(weight + ((group * each + c) << 2));
        g += <f64>v;
        gn += <f64>(v * (load<f32>(x + o) - mean) * scale);
      }
    const n = <f64>(pixels * each);
    const meanG = <f32>(g / n), meanGN = <f32>(gn / n);
    for (let p = 0; p < pixels; p++)
      for (let c = 0; c < each; c++) {
        const o = start + ((p * channels + c) << 2);
        const v = load<f32>(dy + o) * load<f32>(weight + ((group * each + c) << 2));
        store<f32>(dx + o, (v - meanG - (load<f32>(x + o) - mean) * scale * meanGN) * scale);
      }
  }
}

/** dweight and dbias of GroupNorm. Each part computes its own channels. */
export function groupNormGradWeight(
  batch: i32, pixels: i32, channels: i32, groups: i32, dy: usize, x: usize, stats: usize, dweight: usize, dbias: usize,
  part: i32, parts: i32,
): void {
  const each = channels / groups;
  for (let channel = first(channels, part, parts); channel < first(channels, part + 1, parts); channel++) {
    let dw: f64 = 0, db: f64 = 0;
    for (let image = 0; image < batch; image++) {
      const unit = image * groups + channel / each;
      const mean = load<f32>(stats + (unit << 3)), scale = load<f32>(stats + (unit << 3), 4);
      for (let p = 0; p < pixels; p++) {
        const o = <usize>(((image * pixels + p) * channels + channel) << 2);
        const g = load<f32>(dy + o);
        db += <f64>g;
        dw += <f64>(g * (load<f32>(x + o) - mean) * scale);
      }
    }
    store<f32>(dweight + (channel << 2), <f32>dw);
    store<f32>(dbias + (channel << 2), <f32>db);
  }
}
