// A decoding step of the generator's blocks, for few sequences: y = h + w2(silu(w1 n2)·w3 n2) with n2 = norm2(h) and
// h = x + proj(attention(norm1(x))). The work between its products is so small that calling separate operations
// would take longer. Threads that run a whole block together also need not be woken for each operation.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "few_rows.h"
#include "rows.h"
#include "simd.h"

namespace alitok {
namespace {

enum { NORM1, Q_NORM, K_NORM, NORM2, NORMS };
enum { QKV, PROJ, W1, W3, W2, LAYERS };
/** Parts of a step; all threads finish one part before the next begins. */
enum { PROJECT, ATTEND, GATHER, EXPAND, CONTRACT, PARTS };

struct Step {
  FewRowsLayer layers[LAYERS];
  const float* norms[NORMS];
  float epsilon;
  int64_t rows, width, hidden, heads, head_width;
  const float *x, *cos, *sin; // (rows, width), (head_width / 2)
  float *k_cache, *v_cache;   // (rows, longest, heads, head_width)
  int64_t longest, position;
  float *qkv, *attended, *h, *gate, *value, *y; // intermediate results of the parts, and the result
  Chunks chunks[PARTS];

  /** Runs body(first, last) over the outputs of layers of the same size, in chunks taken by the threads. */
  template <typename Body>
  void over_outputs(int part, int layer, Body body) {
    chunks[part].take(layers[layer].outputs, FEW_ROWS_CHUNK, body);
  }

  /** to (rows, width) = norm(from); each thread computes its own, which is faster than waiting for another thread. */
  const float* normalized(int norm, const float* from, std::vector<float>& to) const {
    to.resize(rows * width);
    rms_rows(from, norms[norm], to.data(), width, epsilon, 0, rows);
    return to.data();
  }

  void project(std::vector<float>& memory) {
    const float* n = normalized(NORM1, x, memory);
    over_outputs(PROJECT, QKV, [&](int64_t first, int64_t last) { few_rows_product(n, rows, layers[QKV], first, last, qkv); });
  }

  /** Normalises and rotates q and k of a head, stores k and v in the caches, and attends over them. */
  void attend_head(int64_t row, int64_t head, std::vector<float>& p) {
    const int64_t d = head_width;
    float* q = qkv + row * 3 * width + head * d;
    const int64_t cache = row * longest * width + head * d;
    float* k = k_cache + cache + position * width;
    rms_rows(q, norms[Q_NORM], q, d, epsilon, 0, 1);
    rms_rows(q + width, norms[K_NORM], k, d, epsilon, 0, 1);
    rotate(q, cos, sin, q, d / 2, 1);
    rotate(k, cos, sin, k, d / 2, 1);
    std::copy_n(q + 2 * width, d, v_cache + cache + position * width);
    p.resize(longest);
    attend(q, k_cache + cache, v_cache + cache, attended + row * width + head * d, p.data(), position + 1, width, d,
           1 / std::sqrt(static_cast<float>(d)));
  }

  /** to (rows, width) = from·weightᵀ + rest */
  void product_and_rest(int part, int layer, const float* from, const float* rest, float* to) {
    over_outputs(part, layer, [&](int64_t first, int64_t last) {
      few_rows_product(from, rows, layers[layer], first, last, to);
      for (int64_t row = 0; row < rows; row++)
        for (int64_t i = row * width + first; i < row * width + last; i++) to[i] += rest[i];
    });
  }

  void expand(std::vector<float>& memory) {
    const float* n = normalized(NORM2, h, memory);
    over_outputs(EXPAND, W1, [&](int64_t first, int64_t last) {
      few_rows_product(n, rows, layers[W1], first, last, gate);
      few_rows_product(n, rows, layers[W3], first, last, value);
      for (int64_t row = 0; row < rows; row++)
        swiglu_range(gate, value, gate, row * hidden + first, row * hidden + last);
    });
  }

  /** The work of each thread. */
  void run() {
    thread_local std::vector<float> memory;
    project(memory);
#pragma omp barrier
    chunks[ATTEND].take(rows * heads, 1, [&](int64_t i, int64_t) { attend_head(i / heads, i % heads, memory); });
#pragma omp barrier
    product_and_rest(GATHER, PROJ, attended, x, h);
#pragma omp barrier
    expand(memory);
#pragma omp barrier
    product_and_rest(CONTRACT, W2, gate, h, y);
  }
};

/**
 * Runs all blocks and the final norm for one position: x (B, 1, d) → (B, 1, d). cos and sin are (T, D/2), position (1) in
 * int32. Writes k and v of each block to row `position` of its caches (B, T, H, D). norms: norm1, q_norm, k_norm and norm2
 * of each block, then the final norm. weights, scales and biases: qkv, proj, w1, w3 and w2 of each block, as `linear_few`
 * takes them.
 */
Tensor generator_step(const Tensor& x_, const Tensor& cos_, const Tensor& sin_, const Tensor& position_,
                      at::TensorList caches, at::TensorList norms, at::TensorList weights,
                      const c10::List<c10::optional<Tensor>>& scales, const c10::List<c10::optional<Tensor>>& biases,
                      double epsilon) {
  const size_t count = caches.size() / 2;
  TORCH_CHECK(count > 0 && norms.size() == count * NORMS + 1 && weights.size() == count * LAYERS &&
                  scales.size() == weights.size() && biases.size() == weights.size(),
              "a block has 2 caches, ", +NORMS, " norms and ", +LAYERS, " layers");
  const int64_t position = position_.item<int>();
  TORCH_CHECK(position < caches[0].size(1), "position ", position, " is beyond caches of ", caches[0].size(1));
  const Tensor x = dense(x_), cos = dense(cos_), sin = dense(sin_);
  Step step;
  step.epsilon = static_cast<float>(epsilon);
  step.heads = caches[0].size(2);
  step.head_width = caches[0].size(3);
  step.longest = caches[0].size(1);
  step.position = position;
  step.rows = x.size(0);
  step.width = x.size(-1);
  step.cos = in(cos) + position * cos.size(1);
  step.sin = in(sin) + position * sin.size(1);
  Tensor from = x.clone(), to = at::empty(x.sizes(), x.options());
  Tensor room;
  for (size_t block = 0; block < count; block++) {
    std::vector<Tensor> kept; // the tensors that the step points to
    const auto data = [&](const Tensor& t) {
      kept.push_back(dense(t));
      return in(kept.back());
    };
    for (int i = 0; i < NORMS; i++) step.norms[i] = data(norms[block * NORMS + i]);
    for (int i = 0; i < LAYERS; i++) {
      const size_t at = block * LAYERS + i;
      const auto given = [&](const c10::List<c10::optional<Tensor>>& list) {
        const c10::optional<Tensor> t = list.get(at);
        if (!t.has_value() || !t->defined()) return Tensor();
        kept.push_back(dense(*t));
        return kept.back();
      };
      const Tensor weight = weights[at].contiguous(), scale = given(scales), bias = given(biases);
      kept.push_back(weight);
      step.layers[i] = few_rows_layer(weight, scale, bias);
    }
    const Tensor &k = caches[2 * block], &v = caches[2 * block + 1];
    TORCH_CHECK(k.is_contiguous() && v.is_contiguous(), "contiguous caches are expected");
    step.hidden = step.layers[W1].outputs;
    step.x = in(from);
    step.y = out(to);
    step.k_cache = out(k);
    step.v_cache = out(v);
    const int64_t sizes[] = {3 * step.width, step.width, step.width, step.hidden, step.hidden};
    float** parts[] = {&step.qkv, &step.attended, &step.h, &step.gate, &step.value};
    const int64_t all = step.rows * (5 * step.width + 2 * step.hidden);
    if (!room.defined() || room.numel() < all) room = at::empty({all}, x.options());
    float* next = out(room);
    for (int i = 0; i < 5; i++) {
      *parts[i] = next;
      next += step.rows * sizes[i];
    }
    for (Chunks& chunks : step.chunks) chunks.restart();
#pragma omp parallel num_threads(at::get_num_threads())
    step.run();
    std::swap(from, to);
  }
  const Tensor last = dense(norms[count * NORMS]);
  rms_rows(in(from), in(last), out(to), step.width, step.epsilon, 0, step.rows);
  return to;
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def(
      "generator_step(Tensor x, Tensor cos, Tensor sin, Tensor position, Tensor(a!)[] caches, Tensor[] norms, "
      "Tensor[] weights, Tensor?[] scales, Tensor?[] biases, float epsilon) -> Tensor",
      generator_step);
}

}  // namespace
}  // namespace alitok
