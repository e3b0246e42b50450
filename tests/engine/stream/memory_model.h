// A model of random weights whose shards lie in memory, and a disk file that can be made to fail.
#pragma once

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/checked.h"
#include "base/units.h"
#include "engine/model/architecture.h"
#include "engine/model/stages.h"
#include "engine/store/hash.h"
#include "engine/store/shard.h"
#include "engine/store/shard_layout.h"

namespace airllm::testing {

// Serves reads from a string. `before_read` may delay a read or make it fail.
class MemoryFile : public store::DiskFile {
 public:
  using Hook = std::function<Status(uint64_t offset, size_t bytes)>;

  MemoryFile(std::string path, std::string content, const Hook* before_read)
      : path_(std::move(path)), content_(std::move(content)), before_read_(before_read) {}

  Status read_at(uint64_t offset, std::span<std::byte> out) const override {
    if (*before_read_) AIRLLM_TRY_VOID((*before_read_)(offset, out.size()));
    AIRLLM_CHECK(offset + out.size() <= content_.size());
    std::memcpy(out.data(), content_.data() + offset, out.size());
    return {};
  }
  Status write_at(uint64_t, std::span<const std::byte>) override { AIRLLM_CHECK(false); }
  Status sync() override { return {}; }
  Result<uint64_t> size_bytes() const override { return uint64_t{content_.size()}; }
  Result<std::string> identity() const override { return std::string("memory"); }
  const std::string& path() const override { return path_; }
  bool is_direct() const override { return true; }

  std::string& content() { return content_; }

 private:
  std::string path_;
  std::string content_;
  const Hook* before_read_;
};

inline model::Architecture tiny_architecture(bool tied_head) {
  const std::string config = R"({"model_type": "llama", "num_hidden_layers": 3,
    "hidden_size": 40, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10,
    "intermediate_size": 72, "vocab_size": 301, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5, "attention_bias": true})";
  model::Architecture a = model::parse_config(config, "config").value();
  a.attention_out_bias = false;
  a.tied_head = tied_head;
  return a;
}

// Three layers, each with its experts.
inline model::Architecture tiny_architecture_of_experts(size_t experts, size_t hidden,
                                                        size_t intermediate) {
  const std::string config = R"({"model_type": "mixtral", "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 301,
    "num_experts_per_tok": 2, "num_local_experts": )" +
                             std::to_string(experts) + R"(, "hidden_size": )" +
                             std::to_string(hidden) + R"(, "intermediate_size": )" +
                             std::to_string(intermediate) + "}";
  return model::parse_config(config, "config").value();
}

struct MemoryModel {
  model::Architecture architecture;
  std::vector<store::Shard> shards;
  std::vector<MemoryFile*> files;  // owned by the shards
  MemoryFile::Hook before_read;    // for all shards

  MemoryModel(const model::Architecture& a, kernels::NumberFormat format, uint32_t seed)
      : architecture(a) {
    std::mt19937 random(seed);
    for (const model::StageSpec& stage : model::stages(a)) add_shard(stage, format, random);
  }
  MemoryModel(const MemoryModel&) = delete;
  MemoryModel& operator=(const MemoryModel&) = delete;

 private:
  void add_shard(const model::StageSpec& stage, kernels::NumberFormat format,
                 std::mt19937& random) {
    const store::ShardLayout layout = store::layout_shard(
        stage, std::vector<kernels::NumberFormat>(stage.tensors.size(), format));
    std::string content = layout.header;
    content.resize(round_up(layout.file_bytes, kPageBytes));
    store::Shard shard;
    shard.path = stage.shard_name;
    shard.file_bytes = layout.file_bytes;
    shard.tensors = layout.tensors;
    for (store::ShardTensor& tensor : shard.tensors) {
      fill(content.data() + tensor.offset_bytes, tensor, random);
      const uint64_t block_bytes = tensor.rows_per_block * tensor.row_bytes;
      for (size_t b = 0; b < tensor.block_checksums.size(); ++b) {
        const uint64_t bytes = std::min(block_bytes, tensor.bytes() - b * block_bytes);
        tensor.block_checksums[b] = store::xxh3(
            std::string_view(content).substr(tensor.offset_bytes + b * block_bytes, bytes));
      }
    }
    auto file = std::make_unique<MemoryFile>(shard.path, std::move(content), &before_read);
    files.push_back(file.get());
    shard.files.emplace_back(std::move(file));
    shards.push_back(std::move(shard));
  }

  static void fill(char* to, const store::ShardTensor& tensor, std::mt19937& random) {
    std::uniform_real_distribution<float> uniform(-0.3F, 0.3F);
    const size_t element = kernels::bytes_per_element(tensor.format);
    for (uint64_t at = 0; at < tensor.bytes(); at += element) {
      const float value = uniform(random);
      uint32_t bits = 0;
      std::memcpy(&bits, &value, 4);
      if (tensor.format == kernels::NumberFormat::kF32) std::memcpy(to + at, &bits, 4);
      const auto high = static_cast<uint16_t>(bits >> 16);
      if (tensor.format == kernels::NumberFormat::kBF16) std::memcpy(to + at, &high, 2);
      AIRLLM_CHECK(tensor.format != kernels::NumberFormat::kF16);
    }
  }
};

}  // namespace airllm::testing
