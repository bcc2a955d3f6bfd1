// Operators for sampling: a decoding step of the generator, and the drawing of its codes.
#include "operators.h"

#include "arguments.h"
#include "tensors.h"

namespace alitok::cuda {
namespace {

enum { NORM1, Q_NORM, K_NORM, NORM2, NORMS };
enum { QKV, PROJ, W13, W2, LAYERS };

}  // namespace

/**
 * Runs all blocks of the generator for one position, and its last norm: x (B, 1, d) → (B, 1, d) in the weights' element type.
 * cos and sin (T, D/2), position (1) int32 on the device; caches (B, T, H, D): k and v of each block. norms: norm1, q_norm,
 * k_norm and norm2 of each block, then the last norm; weights and biases of each block: qkv, proj, w1 and w3 as one, w2. The
 * scales are not used.
 */
Tensor generator_step(const Tensor& x_, const Tensor& cos_, const Tensor& sin_, const Tensor& position, at::TensorList caches,
                      at::TensorList norms, at::TensorList weights, const c10::List<optional<Tensor>>&,
                      const c10::List<optional<Tensor>>& biases, double epsilon) {
  const size_t count = caches.size() / 2;
  TORCH_CHECK(count > 0 && norms.size() == count * NORMS + 1 && weights.size() == count * LAYERS && biases.size() == count * LAYERS,
              "a block has 2 caches, ", +NORMS, " norms and ", +LAYERS, " layers");
  const Tensor x = float32(x_), cos = float32(cos_), sin = float32(sin_);
  const int64_t rows = x.size(0), d = x.size(-1), heads = caches[0].size(2), width = caches[0].size(3);
  TORCH_CHECK(width % 2 == 0 && width <= static_cast<int64_t>(MOST_WIDTH), "heads of even width up to ", MOST_WIDTH, " are expected, not ", width);
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
    add_norm(h, layer(W2, gated), norms[(block + 1) * NORMS]); // the next block's norm1, or the last norm
  }
  return n.view({rows, 1, d});
}

// Drawing

/**
 * Draws the codes of step `position` from logits (B, N) or, with guidance scales (T), (2·B, N). Writes them to column `position`
 * of codes (B, T) and to ids (B or 2·B), the input of the next step. uniforms (T, B). Increments the position.
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
