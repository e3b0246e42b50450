// The forward pass against a plain double-precision Llama, and against itself: cut into chunks,
// among other sequences, with other budgets, threads and tiles.

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/engine/model/pass.h"
#include "tests/kernels/allocation_count.h"

namespace airllm::model {
namespace {

using testing::backends;
using testing::Logits;
using testing::MemoryModel;
using testing::Pass;
using testing::random_tokens;
using testing::tiny_architecture;

// ---- the reference: formulas as the papers write them, nothing shared with the engine
// ------------

class Reference {
 public:
  explicit Reference(const MemoryModel& model) : model_(model), a_(model.architecture) {}

  std::vector<std::vector<double>> run(const std::vector<int32_t>& tokens) {
    std::vector<std::vector<double>> x;
    for (const int32_t token : tokens) x.push_back(row_of("model.embed_tokens.weight", token));
    for (size_t layer = 0; layer < a_.layers; ++layer) run_layer(layer, x);
    std::vector<std::vector<double>> logits;
    for (auto& row : x) {
      logits.push_back(product(a_.tied_head ? "model.embed_tokens.weight" : "lm_head.weight",
                               normalised("model.norm.weight", row)));
    }
    return logits;
  }

 private:
  const store::ShardTensor& tensor(const std::string& name, const char*& data) const {
    for (size_t s = 0; s < model_.shards.size(); ++s) {
      if (const store::ShardTensor* found = model_.shards[s].find(name)) {
        data = model_.files[s]->content().data() + found->offset_bytes;
        return *found;
      }
    }
    AIRLLM_CHECK(false);
  }

  std::vector<double> row_of(const std::string& name, int64_t row) const {
    const char* data = nullptr;
    const store::ShardTensor& t = tensor(name, data);
    const size_t element = kernels::bytes_per_element(t.format);
    std::vector<double> out(t.row_bytes / element);
    for (size_t i = 0; i < out.size(); ++i) {
      const char* at = data + static_cast<size_t>(row) * t.row_bytes + i * element;
      uint32_t bits = 0;
      std::memcpy(t.format == kernels::NumberFormat::kF32 ? reinterpret_cast<char*>(&bits)
                                                          : reinterpret_cast<char*>(&bits) + 2,
                  at, element);
      float value = 0;
      std::memcpy(&value, &bits, 4);
      out[i] = static_cast<double>(value);
    }
    return out;
  }

  std::vector<double> product(const std::string& name, const std::vector<double>& x) const {
    const char* data = nullptr;
    const store::ShardTensor& t = tensor(name, data);
    std::vector<double> y(t.rows);
    for (size_t o = 0; o < t.rows; ++o) {
      const std::vector<double> w = row_of(name, static_cast<int64_t>(o));
      for (size_t i = 0; i < x.size(); ++i) y[o] += w[i] * x[i];
    }
    return y;
  }

  std::vector<double> normalised(const std::string& name, const std::vector<double>& x) const {
    double sum = 0;
    for (const double v : x) sum += v * v;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(x.size()) + a_.norm.epsilon);
    std::vector<double> y = row_of(name, 0);
    for (size_t i = 0; i < x.size(); ++i) y[i] *= x[i] * scale;
    return y;
  }

  std::vector<double> projected(const std::string& prefix, const std::vector<double>& x) const {
    std::vector<double> y = product(prefix + ".weight", x);
    const std::vector<double> bias = row_of(prefix + ".bias", 0);
    for (size_t i = 0; i < y.size(); ++i) y[i] += bias[i];
    return y;
  }

  void rotate(std::vector<double>& x, size_t position) const {
    const size_t half = a_.head_dim / 2;
    for (size_t head = 0; head < x.size() / a_.head_dim; ++head) {
      for (size_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) *
                             std::pow(a_.ropes.front().theta, -2.0 * static_cast<double>(i) /
                                                                  static_cast<double>(a_.head_dim));
        double& first = x[head * a_.head_dim + i];
        double& second = x[head * a_.head_dim + i + half];
        const double f = first;
        const double s = second;
        first = f * std::cos(angle) - s * std::sin(angle);
        second = s * std::cos(angle) + f * std::sin(angle);
      }
    }
  }

  void run_layer(size_t layer, std::vector<std::vector<double>>& x) const {
    const std::string base = "model.layers." + std::to_string(layer) + ".";
    std::vector<std::vector<double>> q;
    std::vector<std::vector<double>> k;
    std::vector<std::vector<double>> v;
    for (size_t p = 0; p < x.size(); ++p) {
      const std::vector<double> h = normalised(base + "input_layernorm.weight", x[p]);
      q.push_back(projected(base + "self_attn.q_proj", h));
      k.push_back(projected(base + "self_attn.k_proj", h));
      v.push_back(projected(base + "self_attn.v_proj", h));
      rotate(q.back(), p);
      rotate(k.back(), p);
    }
    for (size_t p = 0; p < x.size(); ++p) {
      add(x[p], product(base + "self_attn.o_proj.weight", attend(p, q[p], k, v)));
      const std::vector<double> h = normalised(base + "post_attention_layernorm.weight", x[p]);
      std::vector<double> gate = product(base + "mlp.gate_proj.weight", h);
      const std::vector<double> up = product(base + "mlp.up_proj.weight", h);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
      add(x[p], product(base + "mlp.down_proj.weight", gate));
    }
  }

  std::vector<double> attend(size_t position, const std::vector<double>& q,
                             const std::vector<std::vector<double>>& k,
                             const std::vector<std::vector<double>>& v) const {
    std::vector<double> out(a_.q_width());
    for (size_t head = 0; head < a_.heads; ++head) {
      const size_t kv_head = head / (a_.heads / a_.kv_heads);
      std::vector<double> weight(position + 1);
      double sum = 0;
      for (size_t p = 0; p <= position; ++p) {
        double score = 0;
        for (size_t i = 0; i < a_.head_dim; ++i) {
          score += q[head * a_.head_dim + i] * k[p][kv_head * a_.head_dim + i];
        }
        weight[p] = std::exp(score / std::sqrt(static_cast<double>(a_.head_dim)));
        sum += weight[p];
      }
      for (size_t p = 0; p <= position; ++p) {
        for (size_t i = 0; i < a_.head_dim; ++i) {
          out[head * a_.head_dim + i] += weight[p] / sum * v[p][kv_head * a_.head_dim + i];
        }
      }
    }
    return out;
  }

  static void add(std::vector<double>& x, const std::vector<double>& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  const MemoryModel& model_;
  const Architecture& a_;
};

double relative_difference(const std::vector<float>& got, const std::vector<double>& wanted) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - wanted[i], 2);
    norm += wanted[i] * wanted[i];
  }
  return std::sqrt(difference / norm);
}

TEST(ForwardPass, AgreesWithTheFormulas) {
  for (const bool tied : {true, false}) {
    for (const auto format : {kernels::NumberFormat::kF32, kernels::NumberFormat::kBF16}) {
      const MemoryModel model(tiny_architecture(tied), format, 11);
      const std::vector<int32_t> tokens = random_tokens(70, 5, model.architecture);
      const auto wanted = Reference(model).run(tokens);
      for (const kernels::Backend* backend : backends()) {
        const Logits got = Pass(model, {.backend = backend}).run({tokens}, 70).front();
        for (size_t p = 0; p < tokens.size(); ++p) {
          // f32 sums of some hundred terms over three layers.
          EXPECT_LT(relative_difference(got[p], wanted[p]), 1e-5)
              << backend->name << ", position " << p;
        }
      }
    }
  }
}

TEST(ForwardPass, TheSameToTheBitHoweverTheWorkIsCut) {
  const MemoryModel model(tiny_architecture(true), kernels::NumberFormat::kBF16, 3);
  const std::vector<std::vector<int32_t>> sequences{random_tokens(67, 1, model.architecture),
                                                    random_tokens(5, 2, model.architecture),
                                                    random_tokens(41, 3, model.architecture)};
  for (const kernels::Backend* backend : backends()) {
    std::vector<Logits> alone;
    for (const auto& sequence : sequences) {
      alone.push_back(Pass(model, {.backend = backend}).run({sequence}, 100).front());
    }
    for (const size_t chunk : {1, 3, 32, 100}) {
      for (const uint64_t budget : {150 * kKiB, 220 * kKiB, 64 * kMiB}) {
        for (const unsigned threads : {1U, 3U}) {
          const auto together =
              Pass(model, {.budget = budget, .threads = threads, .backend = backend})
                  .run(sequences, chunk);
          EXPECT_EQ(together, alone) << backend->name << ", chunk " << chunk << ", "
                                     << format_size(budget) << ", threads " << threads;
        }
      }
    }
  }
}

// After the first ones, which find out how much they need. Reading takes a piece of a queue for
// every 64 tiles, a cache of experts that does not hold all some more.
TEST(ForwardPass, ASweepTakesNoMemory) {
  const MemoryModel dense(tiny_architecture(true), kernels::NumberFormat::kBF16, 3);
  const MemoryModel sparse(testing::tiny_architecture_of_experts(4, 32, 48),
                           kernels::NumberFormat::kBF16, 3);
  for (const MemoryModel* model : {&dense, &sparse}) {
    for (const uint64_t budget : {220 * kKiB, 64 * kMiB}) {
      if (model == &sparse && budget < 64 * kMiB) continue;
      Pass pass(*model, {.budget = budget, .backend = &kernels::best_backend()});
      const std::vector<size_t> counts = pass.allocations(random_tokens(30, 1, model->architecture),
                                                          kernels::testing::allocation_count);
      for (size_t p = 10; p < counts.size(); ++p) {
        EXPECT_LE(counts[p], budget < 64 * kMiB ? 1U : 0U)
            << "position " << p << ", " << format_size(budget);
      }
    }
  }
}

}  // namespace
}  // namespace airllm::model
