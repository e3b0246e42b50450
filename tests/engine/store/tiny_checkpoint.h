// Tiny random Llama checkpoints in Hugging Face layout, and a directory of them as a split's
// source.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "engine/engine.h"
#include "engine/store/safetensors.h"

namespace airllm::store {

// A folder below the system's temporary folder, removed with all in it at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct TinyOptions {
  uint64_t layers = 3, hidden = 32, intermediate = 48, heads = 4, kv_heads = 2, vocabulary = 96;
  uint64_t context = 64;
  Dtype dtype = Dtype::kF32;  // F32, F16 or BF16
  bool tied = false;
  bool biases = false;
  unsigned files = 1;  // more than one: sharded, with an index
  uint64_t seed = 1;
  bool tokenizer = false;  // also writes tokenizer.json and tokenizer_config.json (not usable ones)
};

Json tiny_config(const TinyOptions& options);

// Writes config.json, generation_config.json and the weights into `folder`, which exists. Weights
// are small numbers, norms near 1, so that logits are finite.
void write_tiny_checkpoint(const std::string& folder, const TinyOptions& options = {});

void write_file(const std::string& path, const std::string& text);
std::string read_file(const std::string& path);

// What the client does: opens plain names below a folder.
class FolderSource : public engine::SourceDirectory {
 public:
  explicit FolderSource(std::string folder) : folder_(std::move(folder)) {}
  Result<std::vector<UniqueFd>> open(std::span<const std::string> names) override;
  std::vector<std::string> chat_templates() const override { return chat_templates_; }
  // What a peer claims there to be.
  void claim_chat_templates(std::vector<std::string> names) { chat_templates_ = std::move(names); }

 private:
  std::string folder_;
  std::vector<std::string> chat_templates_;
};

engine::SplitRequest split_request(const std::string& folder, const std::string& name);

}  // namespace airllm::store
