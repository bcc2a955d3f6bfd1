// Operators that run our own kernels. They check their arguments, divide the work into blocks and choose the kernel. Nothing
// here needs CUDA's headers.
#include "operators.h"

#include <algorithm>
#include <vector>

#include "arguments.h"
#include "tensors.h"

namespace alitok::cuda {
namespace {

/** Launches an elementwise kernel. */
template <typename... Values>
void each_element(const std::string& kernel, const Tensor& x, Values... values) {
  if (x.numel() > 0) run(kernel, {blocks(x.numel(), 4 * THREADS), THREADS}, x.device(), values...);
}

/** An uninitialised result of x's shape, in bfloat16 if `half`, otherwise of x's type. */
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

/** Maximum number of blocks for the gradient of a norm: enough to keep a large device busy. */
constexpr int64_t MOST_PARTS = 528;

/** The grid for the gradient of a norm, with shared memory for `columns` sums per warp. */
Grid parts_of(int64_t rows, int64_t columns) {
  const int64_t warps = std::min<int64_t>(THREADS / WARP, SHARED_FLOATS / columns);
  TORCH_CHECK(warps > 0, "rows of ", columns, " numbers are too long for a gradient of a norm");
  const int64_t count = std::max<int64_t>(1, std::min(MOST_PARTS, (rows + warps - 1) / warps));
  return {static_cast<uint32_t>(count), static_cast<uint32_t>(warps * WARP), static_cast<uint32_t>(warps * columns * sizeof(float))};
}

/** dx, and the gradients with respect to weight and bias (`sums`, d). */
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

Sight sight_of(const Tensor& scores, int64_t keys, bool causal, double scale, double rate, int64_t seed) {
  TORCH_CHECK(scores.dim() == 4 && scores.is_contiguous(), "contiguous scores (B, H, queries, keys) are expected");
  const int64_t queries = scores.size(2), stride = scores.size(3);
  TORCH_CHECK(keys > 0 && keys <= stride, keys, " keys of rows of ", stride);
  TORCH_CHECK(!causal || keys >= queries, "more queries than keys under a causal mask");
  return {scores.numel() / stride, static_cast<uint32_t>(queries), static_cast<uint32_t>(keys), static_cast<uint32_t>(stride),
          causal, static_cast<float>(scale), threshold_of(rate), keep_of(rate), static_cast<uint32_t>(seed)};
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
  TORCH_CHECK(cos.size(0) == tokens && sin.size(0) == tokens && cos.size(1) * 2 == width, "cos and sin must be (T, D/2)");
  const auto threads = static_cast<uint32_t>(std::min<int64_t>(THREADS, (row / 2 + WARP - 1) / WARP * WARP));
  if (x.numel() > 0)
    run(named("rotary", x), {blocks(x.size(0) * tokens, 1), threads}, x.device(), data(x), data(cos), data(sin), data(y),
        static_cast<uint32_t>(tokens), static_cast<uint32_t>(row), static_cast<uint32_t>(width), inverse ? -1.0f : 1.0f);
  return y;
}

namespace {

Apart apart(const Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2)}; }
/** x, copied if its vectors are not contiguous. */
Tensor whole_vectors(const Tensor& x) { return x.stride(3) == 1 ? x : x.contiguous(); }

Vectors vectors_of(const Tensor& x, const Tensor& cos, const Tensor& sin, double epsilon) {
  const int64_t tokens = x.size(1), width = x.size(3);
  TORCH_CHECK(cos.size(0) == tokens && sin.size(0) == tokens && cos.size(1) * 2 == width, "cos and sin must be (T, D/2)");
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

Tensor heads_first(const Tensor& x_, int64_t rows) {
  const Tensor x = whole_vectors(x_);
  const int64_t batch = x.size(0), tokens = x.size(1), heads = x.size(2), width = x.size(3);
  TORCH_CHECK(rows >= tokens, rows, " rows for ", tokens, " of each head");
  const Tensor y = at::empty({batch, heads, rows, width}, x.options());
  const Vectors all{batch * heads * rows, static_cast<u32>(tokens), static_cast<u32>(heads), static_cast<u32>(width), 0};
  if (all.count > 0)
    run(named("heads_first", x), {blocks(all.count, THREADS / WARP), THREADS}, x.device(), data(x), data(y), all, apart(x),
        static_cast<u32>(rows));
  return y;
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

std::vector<Tensor> round_all(at::TensorList tensors) {
  std::vector<Tensor> kept, results;
  for (size_t begin = 0; begin < tensors.size(); begin += MOST_TENSORS) {
    Rounded all{};
    for (; all.count < static_cast<int>(MOST_TENSORS) && begin + all.count < tensors.size(); all.count++) {
      const Tensor x = float32(tensors[begin + all.count]);
      kept.push_back(x);
      results.push_back(result_of(x, true));
      all.from[all.count] = static_cast<const float*>(data(x));
      all.to[all.count] = static_cast<bf16*>(data(results.back()));
      all.size[all.count] = x.numel();
      all.first[all.count + 1] = all.first[all.count] + blocks(x.numel(), ROUNDED_BY_BLOCK);
    }
    if (all.first[all.count] > 0) run("round_all", {all.first[all.count], THREADS}, tensors[0].device(), all);
  }
  return results;
}

void attention_weights(const Tensor& scores, int64_t keys, bool causal, double scale, double rate, int64_t seed) {
  each_row(named("softmax", scores), scores, sight_of(scores, keys, causal, scale, rate, seed), data(scores));
}

void attention_weights_grad(const Tensor& scores, const Tensor& dp, int64_t keys, bool causal, double scale, double rate,
                            int64_t seed) {
  TORCH_CHECK(dp.sizes() == scores.sizes() && dp.is_contiguous() && dp.scalar_type() == scores.scalar_type(),
              "scores and their gradient are to lie in memory alike");
  each_row(named("softmax_grad", scores), scores, sight_of(scores, keys, causal, scale, rate, seed), data(scores), data(dp));
}

}  // namespace alitok::cuda
