// Operators made of kernels of ours: what they check, how they divide their work, and which kernel they take. Nothing here
// needs CUDA's headers.
#include "operators.h"

#include <algorithm>
#include <vector>

#include "launch.h"

namespace alitok::cuda {
namespace {

constexpr int64_t WARP = 32;
/** Threads of a block, where nothing asks for another number; four elements each in the pointwise kernels. */
constexpr uint32_t THREADS = 256;
/** Memory that the threads of a block can share on every device without asking, in floats. */
constexpr int64_t SHARED_FLOATS = 48 * 1024 / sizeof(float);

using at::kBFloat16;
using at::kFloat;

/** The letter of a tensor's element type in kernels' names. */
std::string letter(const Tensor& tensor) {
  const auto type = tensor.scalar_type();
  TORCH_CHECK(type == kFloat || type == kBFloat16, "float32 or bfloat16 is expected, not ", type);
  return type == kFloat ? "f" : "h";
}

template <typename... Tensors>
std::string named(const char* kernel, const Tensors&... tensors) {
  return (std::string(kernel) + "_" + ... + letter(tensors));
}

Tensor float32(const Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() == kFloat, "float32 is expected, not ", tensor.scalar_type());
  return tensor.contiguous();
}

/** `tensor` as contiguous rows of the type of `like`. */
Tensor as(const Tensor& tensor, const Tensor& like) { return tensor.to(like.scalar_type()).contiguous(); }

void* data(const Tensor& tensor) { return tensor.defined() ? tensor.data_ptr() : nullptr; }

uint32_t blocks(int64_t work, int64_t of_one) {
  const int64_t count = (work + of_one - 1) / of_one;
  TORCH_CHECK(count <= INT32_MAX, "a tensor of ", work, " elements is too large for one kernel");
  return static_cast<uint32_t>(count);
}

/** A kernel of single elements. */
template <typename... Values>
void each_element(const std::string& kernel, const Tensor& x, Values... values) {
  if (x.numel() > 0) run(kernel, {blocks(x.numel(), 4 * THREADS), THREADS}, x.device(), values...);
}

/** Room for a result of x's size, in bfloat16 if `half`, else of its type. */
Tensor result_of(const Tensor& x, bool half) {
  return at::empty(x.sizes(), half ? x.options().dtype(kBFloat16) : x.options());
}

uint32_t threshold_of(double rate) { return static_cast<uint32_t>(rate * 4294967296.0); }
float keep_of(double rate) { return static_cast<float>(1 / (1 - rate)); }

Tensor norm(const char* kernel, const Tensor& x_, const Tensor& weight_, const Tensor& bias_, double epsilon, bool half) {
  const Tensor x = x_.contiguous(), weight = float32(weight_), bias = bias_.defined() ? float32(bias_) : bias_;
  const int64_t d = weight.numel(), rows = x.numel() / d;
  const Tensor y = result_of(x, half);
  if (rows > 0)
    run(named(kernel, x, y), {blocks(rows, THREADS / WARP), THREADS}, x.device(), data(x), data(weight), data(bias), data(y), rows,
        static_cast<uint32_t>(d), static_cast<float>(epsilon));
  return y;
}

/** How many blocks share the rows of a norm's gradient, at most: as many as keep a large device busy. */
constexpr int64_t MOST_PARTS = 528;

/** Blocks for the gradient of a norm, each of whose warps has room for `columns` sums. */
Grid parts_of(int64_t rows, int64_t columns) {
  const int64_t warps = std::min<int64_t>(THREADS / WARP, SHARED_FLOATS / columns);
  TORCH_CHECK(warps > 0, "rows of ", columns, " numbers are too long for a gradient of a norm");
  const int64_t count = std::max<int64_t>(1, std::min(MOST_PARTS, (rows + warps - 1) / warps));
  return {static_cast<uint32_t>(count), static_cast<uint32_t>(warps * WARP), static_cast<uint32_t>(warps * columns * sizeof(float))};
}

/** dx, and the gradients by weight and bias (`sums`, d). */
std::tuple<Tensor, Tensor> norm_grad(const char* kernel, const Tensor& dy_, const Tensor& x_, const Tensor& weight_, double epsilon,
                                     int64_t sums) {
  const Tensor dy = dy_.contiguous(), x = x_.contiguous(), weight = float32(weight_);
  const int64_t d = weight.numel(), rows = x.numel() / d;
  const Grid grid = parts_of(rows, sums * d);
  const Tensor dx = at::empty_like(x), partial = at::empty({grid.blocks, sums, d}, weight.options());
  run(named(kernel, dy, x), grid, x.device(), data(dy), data(x), data(weight), data(dx), data(partial), rows,
      static_cast<uint32_t>(d), static_cast<float>(epsilon));
  return {dx, partial.sum(0)};
}

/** What kernels call Sight (softmax.cuh). */
struct Sight {
  int64_t rows;
  uint32_t queries, keys;
  int causal;
  float scale;
  uint32_t threshold;
  float keep;
  uint32_t seed;
};

Sight sight_of(const Tensor& scores, bool causal, double scale, double rate, int64_t seed) {
  TORCH_CHECK(scores.dim() == 4 && scores.is_contiguous(), "contiguous scores (B, H, queries, keys) are expected");
  const int64_t queries = scores.size(2), keys = scores.size(3);
  TORCH_CHECK(!causal || keys >= queries, "more queries than keys under a causal mask");
  return {scores.numel() / keys, static_cast<uint32_t>(queries), static_cast<uint32_t>(keys), causal, static_cast<float>(scale),
          threshold_of(rate), keep_of(rate), static_cast<uint32_t>(seed)};
}

template <typename... Values>
void each_row(const std::string& kernel, const Tensor& scores, const Sight& sight, Values... values) {
  if (sight.rows > 0) run(kernel, {blocks(sight.rows, THREADS / WARP), THREADS}, scores.device(), values..., sight);
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon, bool half) {
  return norm("rms_norm", x, weight, Tensor(), epsilon, half);
}

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon, bool half) {
  return norm("layer_norm", x, weight, bias, epsilon, half);
}

std::tuple<Tensor, Tensor> rms_norm_grad(const Tensor& dy, const Tensor& x, const Tensor& weight, double epsilon) {
  const auto [dx, sums] = norm_grad("rms_norm_grad", dy, x, weight, epsilon, 1);
  return {dx, sums.select(0, 0)};
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_grad(const Tensor& dy, const Tensor& x, const Tensor& weight, double epsilon) {
  const auto [dx, sums] = norm_grad("layer_norm_grad", dy, x, weight, epsilon, 2);
  return {dx, sums.select(0, 0), sums.select(0, 1)};
}

Tensor rotary(const Tensor& x_, const Tensor& cos_, const Tensor& sin_, bool inverse) {
  const Tensor x = x_.contiguous(), cos = float32(cos_), sin = float32(sin_);
  Tensor y = at::empty_like(x);
  const int64_t tokens = x.size(1), width = x.size(3), row = x.size(2) * width;
  TORCH_CHECK(cos.size(0) == tokens && sin.size(0) == tokens && cos.size(1) * 2 == width, "cos and sin are to be (T, D/2)");
  const auto threads = static_cast<uint32_t>(std::min<int64_t>(THREADS, (row / 2 + WARP - 1) / WARP * WARP));
  if (x.numel() > 0)
    run(named("rotary", x), {blocks(x.size(0) * tokens, 1), threads}, x.device(), data(x), data(cos), data(sin), data(y),
        static_cast<uint32_t>(tokens), static_cast<uint32_t>(row), static_cast<uint32_t>(width), inverse ? -1.0f : 1.0f);
  return y;
}

namespace {

/** As normalization.cuh has them. */
struct Apart {
  int64_t batch, token, head;
};
struct Vectors {
  int64_t count;
  uint32_t tokens, heads, width;
  float epsilon;
};

Apart apart(const Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2)}; }
/** x with the numbers of each vector together. */
Tensor whole_vectors(const Tensor& x) { return x.stride(3) == 1 ? x : x.contiguous(); }

Vectors vectors_of(const Tensor& x, const Tensor& cos, const Tensor& sin, double epsilon) {
  const int64_t tokens = x.size(1), width = x.size(3);
  TORCH_CHECK(cos.size(0) == tokens && sin.size(0) == tokens && cos.size(1) * 2 == width, "cos and sin are to be (T, D/2)");
  return {x.numel() / width, static_cast<uint32_t>(tokens), static_cast<uint32_t>(x.size(2)), static_cast<uint32_t>(width),
          static_cast<float>(epsilon)};
}

}  // namespace

Tensor norm_rotary(const Tensor& x_, const Tensor& weight_, const Tensor& cos_, const Tensor& sin_, double epsilon) {
  const Tensor x = whole_vectors(x_), weight = float32(weight_), cos = float32(cos_), sin = float32(sin_);
  const Vectors all = vectors_of(x, cos, sin, epsilon);
  const Tensor y = at::empty({x.size(0), x.size(2), x.size(1), x.size(3)}, x.options()).permute({0, 2, 1, 3});
  if (all.count > 0)
    run(named("norm_rotary", x), {blocks(all.count, THREADS / WARP), THREADS}, x.device(), data(x), data(weight), data(cos), data(sin),
        data(y), all, apart(x), apart(y));
  return y;
}

std::tuple<Tensor, Tensor> norm_rotary_grad(const Tensor& dy_, const Tensor& x_, const Tensor& weight_, const Tensor& cos_,
                                            const Tensor& sin_, double epsilon) {
  const Tensor dy = whole_vectors(dy_), x = whole_vectors(x_), weight = float32(weight_), cos = float32(cos_), sin = float32(sin_);
  const Vectors all = vectors_of(x, cos, sin, epsilon);
  const Grid grid = parts_of(all.count, all.width);
  const Tensor dx = at::empty(x.sizes(), x.options()), partial = at::empty({grid.blocks, all.width}, weight.options());
  run(named("norm_rotary_grad", dy, x), grid, x.device(), data(dy), data(x), data(weight), data(cos), data(sin), data(dx),
      data(partial), all, apart(x), apart(dy));
  return {dx, partial.sum(0)};
}

Tensor swiglu(const Tensor& gate_, const Tensor& value_) {
  const Tensor gate = gate_.contiguous(), value = as(value_, gate);
  Tensor y = at::empty_like(gate);
  each_element(named("swiglu", gate), gate, data(gate), data(value), data(y), gate.numel());
  return y;
}

std::tuple<Tensor, Tensor> swiglu_grad(const Tensor& dy_, const Tensor& gate_, const Tensor& value_) {
  const Tensor gate = gate_.contiguous(), value = as(value_, gate), dy = as(dy_, gate);
  Tensor dgate = at::empty_like(gate), dvalue = at::empty_like(gate);
  each_element(named("swiglu_grad", gate), gate, data(dy), data(gate), data(value), data(dgate), data(dvalue), gate.numel());
  return {dgate, dvalue};
}

Tensor dropout(const Tensor& x_, double rate, int64_t seed, bool half) {
  const Tensor x = x_.contiguous(), y = result_of(x, half);
  each_element(named("dropout", x, y), x, data(x), data(y), x.numel(), threshold_of(rate), keep_of(rate), static_cast<uint32_t>(seed));
  return y;
}

namespace {

/** As pointwise.cuh has it. */
constexpr int MOST_TENSORS = 48;
constexpr int64_t ROUNDED_BY_BLOCK = 4096;
struct Rounded {
  const void* from[MOST_TENSORS];
  void* to[MOST_TENSORS];
  int64_t size[MOST_TENSORS];
  uint32_t first[MOST_TENSORS + 1];
  int count;
};

}  // namespace

std::vector<Tensor> round_all(at::TensorList tensors) {
  std::vector<Tensor> kept, results;
  for (size_t begin = 0; begin < tensors.size(); begin += MOST_TENSORS) {
    Rounded all{};
    for (; all.count < MOST_TENSORS && begin + all.count < tensors.size(); all.count++) {
      const Tensor x = float32(tensors[begin + all.count]);
      kept.push_back(x);
      results.push_back(result_of(x, true));
      all.from[all.count] = data(x);
      all.to[all.count] = data(results.back());
      all.size[all.count] = x.numel();
      all.first[all.count + 1] = all.first[all.count] + blocks(x.numel(), ROUNDED_BY_BLOCK);
    }
    if (all.first[all.count] > 0) run("round_all", {all.first[all.count], THREADS}, tensors[0].device(), all);
  }
  return results;
}

void attention_weights(const Tensor& scores, bool causal, double scale, double rate, int64_t seed) {
  each_row(named("softmax", scores), scores, sight_of(scores, causal, scale, rate, seed), data(scores));
}

void attention_weights_grad(const Tensor& scores, const Tensor& dp, bool causal, double scale, double rate, int64_t seed) {
  TORCH_CHECK(dp.sizes() == scores.sizes() && dp.is_contiguous() && dp.scalar_type() == scores.scalar_type(),
              "scores and their gradient are to lie in memory alike");
  each_row(named("softmax_grad", scores), scores, sight_of(scores, causal, scale, rate, seed), data(scores), data(dp));
}

// A decoding step

namespace {

enum { NORM1, Q_NORM, K_NORM, NORM2, NORMS };
enum { QKV, PROJ, W13, W2, LAYERS };

/** As decode.cuh has them. */
constexpr uint32_t DECODE_THREADS = 8 * WARP;
constexpr int64_t MOST_WIDTH = 128;
struct Heads {
  uint32_t heads, width, longest;
  float epsilon;
};

}  // namespace

/**
 * All blocks of the generator for one position, and its last norm: x (B, 1, d) → (B, 1, d) in the weights' element type. cos and
 * sin (T, D/2), position (1) int32 on the device; caches (B, T, H, D): k and v of each block. norms: norm1, q_norm, k_norm and
 * norm2 of each block, then the last; weights and biases: qkv, proj, w1 and w3 as one, w2. There are no scales.
 */
Tensor generator_step(const Tensor& x_, const Tensor& cos_, const Tensor& sin_, const Tensor& position, at::TensorList caches,
                      at::TensorList norms, at::TensorList weights, const c10::List<optional<Tensor>>&,
                      const c10::List<optional<Tensor>>& biases, double epsilon) {
  const size_t count = caches.size() / 2;
  TORCH_CHECK(count > 0 && norms.size() == count * NORMS + 1 && weights.size() == count * LAYERS && biases.size() == count * LAYERS,
              "a block has 2 caches, ", +NORMS, " norms and ", +LAYERS, " layers");
  const Tensor x = float32(x_), cos = float32(cos_), sin = float32(sin_);
  const int64_t rows = x.size(0), d = x.size(-1), heads = caches[0].size(2), width = caches[0].size(3);
  TORCH_CHECK(width % 2 == 0 && width <= MOST_WIDTH, "heads of even width up to ", MOST_WIDTH, " are expected, not ", width);
  const auto device = x.device();
  const auto options = x.options().dtype(weights[0].scalar_type());
  const Heads sizes{static_cast<uint32_t>(heads), static_cast<uint32_t>(width), static_cast<uint32_t>(caches[0].size(1)),
                    static_cast<float>(epsilon)};
  const Tensor h = at::empty({rows, d}, x.options()), n = at::empty({rows, d}, options);
  const auto add_norm = [&](const Tensor& from, const Tensor& delta, const Tensor& norm) {
    run(named("add_norm", n), {static_cast<uint32_t>(rows), DECODE_THREADS}, device, data(from), data(delta), data(float32(norm)),
        data(h), data(n), static_cast<uint32_t>(d), sizes.epsilon);
  };
  Tensor residual = x.view({rows, d});
  add_norm(residual, Tensor(), norms[NORM1]);
  for (size_t block = 0; block < count; block++) {
    const Tensor *norm = &norms[block * NORMS], *weight = &weights[block * LAYERS];
    const auto layer = [&](int i, const Tensor& from) { return product(from, weight[i], biases.get(block * LAYERS + i)); };
    const Tensor &k = caches[2 * block], &v = caches[2 * block + 1];
    TORCH_CHECK(k.is_contiguous() && v.is_contiguous(), "contiguous caches are expected");
    const Tensor qkv = layer(QKV, n), attended = at::empty({rows, d}, options);
    run(named("attend", qkv, k), {static_cast<uint32_t>(rows * heads), DECODE_THREADS}, device, data(qkv), data(float32(norm[Q_NORM])),
        data(float32(norm[K_NORM])), data(cos), data(sin), data(position), data(k), data(v), data(attended), sizes);
    add_norm(residual, layer(PROJ, attended), norm[NORM2]);
    residual = h;
    const Tensor both = layer(W13, n);
    const int64_t hidden = both.size(1) / 2, all = rows * hidden;
    const Tensor gated = at::empty({rows, hidden}, options);
    run(named("swiglu_joined", both), {blocks(all, THREADS), THREADS}, device, data(both), data(gated), all,
        static_cast<uint32_t>(hidden));
    add_norm(h, layer(W2, gated), norms[(block + 1) * NORMS]); // the next block's norm1, or the last
  }
  return n.view({rows, 1, d});
}

// Drawing

namespace {

constexpr uint32_t DRAW_THREADS = 512;
struct Draw {
  uint32_t images, entries, steps;
  float temperature;
  uint32_t top_k;
  float top_p;
};

}  // namespace

/**
 * Draws the codes of step `position`, whose logits are (B, N) or, where there are scales of guidance (T), (2·B, N): into the
 * column of codes (B, T), and into ids (B or 2·B), which the next step takes. uniforms (T, B). The position becomes the next.
 */
void draw_step(const Tensor& logits_, const Tensor& uniforms, const optional<Tensor>& scales, const Tensor& position,
               const Tensor& ids, const Tensor& codes, double temperature, int64_t top_k, double top_p) {
  const Tensor logits = logits_.contiguous();
  const int64_t images = codes.size(0), entries = logits.size(-1);
  const bool guided = scales.has_value() && scales->defined();
  TORCH_CHECK(logits.numel() == (guided ? 2 : 1) * images * entries && ids.numel() * entries == logits.numel(),
              "logits of ", images, guided ? " guided" : "", " images are expected");
  TORCH_CHECK(codes.is_contiguous() && ids.is_contiguous(), "contiguous codes are expected");
  const Tensor room = at::empty({images, entries}, logits.options().dtype(kFloat));
  const Draw draw{static_cast<uint32_t>(images), static_cast<uint32_t>(entries), static_cast<uint32_t>(codes.size(1)),
                  static_cast<float>(temperature), static_cast<uint32_t>(top_k), static_cast<float>(top_p)};
  run(named("draw", logits), {static_cast<uint32_t>(images), DRAW_THREADS}, logits.device(), data(logits), data(float32(uniforms)),
      guided ? data(float32(*scales)) : nullptr, data(position), data(room), data(ids), data(codes), draw);
  position.add_(1);
}

}  // namespace alitok::cuda
