// What kernels are given besides tensors, and sizes that those who launch them must know: arguments.h has the same for them.

/** Most tensors that one launch rounds, and how many of their numbers a block takes. */
constexpr u32 MOST_TENSORS = 48;
constexpr u32 ROUNDED_BY_BLOCK = 4096;
struct Rounded {
  const float* from[MOST_TENSORS];
  bf16* to[MOST_TENSORS];
  i64 size[MOST_TENSORS];
  u32 first[MOST_TENSORS + 1]; // blocks before each tensor's
  int count;
};

/** Heads' vectors (B, T, H, D). */
struct Vectors {
  i64 count; // B·T·H
  u32 tokens, heads, width;
  float epsilon;
};
/** What is between the first numbers of neighbours along an axis. */
struct Apart {
  i64 batch, token, head;
};

/** How attention looks at its scores (rows, stride), rows in order of batch, head and query. */
struct Sight {
  i64 rows;
  u32 queries, keys, stride; // what is behind a row's keys counts for nothing
  int causal; // the last query sees all keys, the one before it all but the last
  float scale;
  u32 threshold; // of dropout; 0 drops nothing
  float keep;
  u32 seed;
};

/** Threads of a block in a decoding step, and the widest head. */
constexpr u32 DECODE_THREADS = 256;
constexpr u32 MOST_WIDTH = 128;
/** Sizes of attention in a decoding step: the caches are (rows, longest, heads, width). */
struct Heads {
  u32 heads, width, longest;
  float epsilon;
};

/** Threads that draw the code of an image. */
constexpr u32 DRAW_THREADS = 512;
/** How a code is drawn (engine/ops/drawing.ts), and the sizes of what is drawn from. */
struct Draw {
  u32 images, entries, steps;
  float temperature; // 0 for the most likely code
  u32 top_k;         // 0 for all
  float top_p;       // 1 for all
};
