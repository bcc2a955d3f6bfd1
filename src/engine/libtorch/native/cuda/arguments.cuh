// Kernel arguments other than tensors, and sizes that host code needs as well: it includes this file through arguments.h.

/** Maximum number of tensors in one launch of `round_all`, and elements per block. */
constexpr u32 MOST_TENSORS = 48;
constexpr u32 ROUNDED_BY_BLOCK = 4096;
struct Rounded {
  const float* from[MOST_TENSORS];
  bf16* to[MOST_TENSORS];
  i64 size[MOST_TENSORS];
  u32 first[MOST_TENSORS + 1]; // first block of each tensor, then the number of blocks
  int count;
};

/** Sizes of head vectors (B, T, H, D). */
struct Vectors {
  i64 count; // B·T·H
  u32 tokens, heads, width;
  float epsilon;
};
/** Strides of the batch, token and head axes, in elements. */
struct Apart {
  i64 batch, token, head;
};

/** Options of attention's softmax over scores (rows, stride). Rows are ordered by batch, head and query. */
struct Sight {
  i64 rows;
  u32 queries, keys, stride; // columns from `keys` to `stride` are ignored
  int causal; // the last query sees all keys, the one before it all but the last
  float scale;
  u32 threshold; // dropout threshold; 0 drops nothing
  float keep;
  u32 seed;
};

/** Threads per block in a decoding step, and the largest supported head width. */
constexpr u32 DECODE_THREADS = 256;
constexpr u32 MOST_WIDTH = 128;
/** Sizes of attention in a decoding step: the caches are (rows, longest, heads, width). */
struct Heads {
  u32 heads, width, longest;
  float epsilon;
};

/** Threads per block when codes are drawn; a block draws the code of one image. */
constexpr u32 DRAW_THREADS = 512;
/** Sampling options (engine/ops/drawing.ts) and sizes. */
struct Draw {
  u32 images, entries, steps;
  float temperature; // 0 for the most likely code
  u32 top_k;         // 0 for all
  float top_p;       // 1 for all
};
