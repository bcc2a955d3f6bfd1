// Elementwise operations, four elements per thread.

/** The 32-bit hash of (index, seed) that decides every dropout, the same in all engines. */
DEVICE u32 hash(u32 index, u32 seed) {
  u32 h = index + seed * 0x9e3779b1u;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

/** The factor that dropout multiplies an element by: zero, which keeps NaN, or `scale`. */
DEVICE float kept(u32 index, u32 seed, u32 threshold, float scale) { return hash(index, seed) >= threshold ? scale : 0; }

template <typename X, typename Y>
DEVICE void dropout(const X* x, Y* y, i64 n, u32 threshold, float scale, u32 seed) {
  const i64 i = own_four();
  if (i >= n) return;
  float v[4];
  load(x, i, n, v);
  for (int j = 0; j < 4; j++) v[j] *= kept(static_cast<u32>(i + j), seed, threshold, scale);
  store(y, i, n, v);
}
#define DROPOUT(x, y, X, Y)                                                                                                   \
  KERNEL dropout_##x##y(const X* in, Y* out, i64 n, u32 threshold, float scale, u32 seed) {                                   \
    dropout(in, out, n, threshold, scale, seed);                                                                              \
  }
DROPOUT(f, f, float, float)
DROPOUT(f, h, float, bf16)
DROPOUT(h, h, bf16, bf16)
#undef DROPOUT

// Copies head vectors x (B, T, H, D) with any strides to (B, H, rows, D), one warp per vector, with zeros after a head's T rows.

template <typename T>
DEVICE void heads_first(const T* x, T* y, const Vectors& all, const Apart& from, u32 rows) {
  const i64 i = static_cast<i64>(blockIdx.x) * warps_of_block() + warp_in_block();
  if (i >= all.count) return;
  const u32 token = static_cast<u32>(i % rows);
  const i64 head = i / rows;
  x += head / all.heads * from.batch + head % all.heads * from.head + token * from.token;
  y += i * all.width;
  float v[4] = {0, 0, 0, 0};
  for (u32 j = 4 * lane(); j < all.width; j += 4 * WARP) {
    if (token < all.tokens) load(x, j, all.width, v);
    store(y, j, all.width, v);
  }
}
KERNEL heads_first_f(const float* x, float* y, Vectors all, Apart from, u32 rows) { heads_first(x, y, all, from, rows); }
KERNEL heads_first_h(const bf16* x, bf16* y, Vectors all, Apart from, u32 rows) { heads_first(x, y, all, from, rows); }

// Rounds many float32 tensors to bfloat16 in one launch. Each block rounds a part of one tensor.

KERNEL round_all(Rounded all) {
  int tensor = 0;
  while (blockIdx.x >= all.first[tensor + 1]) tensor++;
  const i64 begin = static_cast<i64>(blockIdx.x - all.first[tensor]) * ROUNDED_BY_BLOCK, n = all.size[tensor];
  for (u32 i = 4 * threadIdx.x; i < ROUNDED_BY_BLOCK && begin + i < n; i += 4 * blockDim.x) {
    float v[4];
    load(all.from[tensor], begin + i, n, v);
    store(all.to[tensor], begin + i, n, v);
  }
}

// SwiGLU: silu(gate)·value

template <typename T>
DEVICE void swiglu(const T* gate, const T* value, T* y, i64 n) {
  const i64 i = own_four();
  if (i >= n) return;
  float g[4], v[4];
  load(gate, i, n, g);
  load(value, i, n, v);
  for (int j = 0; j < 4; j++) v[j] *= silu(g[j]);
  store(y, i, n, v);
}
KERNEL swiglu_f(const float* gate, const float* value, float* y, i64 n) { swiglu(gate, value, y, n); }
KERNEL swiglu_h(const bf16* gate, const bf16* value, bf16* y, i64 n) { swiglu(gate, value, y, n); }

template <typename T>
DEVICE void swiglu_grad(const T* dy, const T* gate, const T* value, T* dgate, T* dvalue, i64 n) {
  const i64 i = own_four();
  if (i >= n) return;
  float d[4], g[4], v[4];
  load(dy, i, n, d);
  load(gate, i, n, g);
  load(value, i, n, v);
  for (int j = 0; j < 4; j++) {
    const float sigmoid = 1 / (1 + expf(-g[j])), s = g[j] * sigmoid;
    g[j] = d[j] * v[j] * (sigmoid + s * (1 - sigmoid));
    v[j] = d[j] * s;
  }
  store(dgate, i, n, g);
  store(dvalue, i, n, v);
}
KERNEL swiglu_grad_f(const float* dy, const float* gate, const float* value, float* dgate, float* dvalue, i64 n) {
  swiglu_grad(dy, gate, value, dgate, dvalue, n);
}
KERNEL swiglu_grad_h(const bf16* dy, const bf16* gate, const bf16* value, bf16* dgate, bf16* dvalue, i64 n) {
  swiglu_grad(dy, gate, value, dgate, dvalue, n);
}

// Rotary embedding of adjacent pairs: x (B, T, H, D), cos and sin (T, D/2). A block rotates one token's heads; `sign` −1
// rotates them back.

template <typename T>
DEVICE void rotary(const T* x, const float* cos, const float* sin, T* y, u32 tokens, u32 row, u32 width, float sign) {
  const i64 begin = static_cast<i64>(blockIdx.x) * row;
  const u32 pairs = width / 2, at = blockIdx.x % tokens * pairs;
  for (u32 i = 2 * threadIdx.x; i < row; i += 2 * blockDim.x) {
    const u32 pair = at + i / 2 % pairs;
    const float even = to_float(x[begin + i]), odd = to_float(x[begin + i + 1]), c = cos[pair], s = sign * sin[pair];
    assign(y[begin + i], even * c - odd * s);
    assign(y[begin + i + 1], odd * c + even * s);
  }
}
KERNEL rotary_f(const float* x, const float* cos, const float* sin, float* y, u32 tokens, u32 row, u32 width, float sign) {
  rotary(x, cos, sin, y, tokens, row, width, sign);
}
KERNEL rotary_h(const bf16* x, const float* cos, const float* sin, bf16* y, u32 tokens, u32 row, u32 width, float sign) {
  rotary(x, cos, sin, y, tokens, row, width, sign);
}
