// Operations on single elements, four to a thread.

/** The 32-bit hash of (index, seed) that decides every dropout, the same in all engines. */
DEVICE u32 hash(u32 index, u32 seed) {
  u32 h = index + seed * 0x9e3779b1u;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

/** What dropout multiplies an element by: zero, which keeps NaN, or `scale`. */
DEVICE float kept(u32 index, u32 seed, u32 threshold, float scale) { return hash(index, seed) >= threshold ? scale : 0; }

template <typename T>
DEVICE void dropout(const T* x, T* y, i64 n, u32 threshold, float scale, u32 seed) {
  const i64 i = own_four();
  if (i >= n) return;
  float v[4];
  load(x, i, n, v);
  for (int j = 0; j < 4; j++) v[j] *= kept(static_cast<u32>(i + j), seed, threshold, scale);
  store(y, i, n, v);
}
KERNEL dropout_f(const float* x, float* y, i64 n, u32 threshold, float scale, u32 seed) { dropout(x, y, n, threshold, scale, seed); }
KERNEL dropout_h(const bf16* x, bf16* y, i64 n, u32 threshold, float scale, u32 seed) { dropout(x, y, n, threshold, scale, seed); }
