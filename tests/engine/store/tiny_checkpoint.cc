#include "tests/engine/store/tiny_checkpoint.h"

#include <fcntl.h>

#include <bit>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "base/check.h"
#include "base/json.h"
#include "engine/model/architecture.h"
#include "engine/model/stages.h"

namespace airllm::store {
namespace {

uint16_t half_of(float value) {
  // Only normal numbers of moderate size occur here, so the exponent needs no care.
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const int exponent = static_cast<int>(bits >> 23 & 0xff) - 127 + 15;
  if (exponent <= 0) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(exponent) << 10 | (bits >> 13 & 0x3ff));
}

void append_number(std::string& out, Dtype dtype, float value) {
  uint64_t bits = std::bit_cast<uint32_t>(value);
  if (dtype == Dtype::kBF16) bits >>= 16;
  if (dtype == Dtype::kF16) bits = half_of(value);
  for (uint64_t i = 0; i < dtype_bytes(dtype); ++i) out.push_back(static_cast<char>(bits >> 8 * i));
}

// Tensors of one weight file: headers and bytes.
struct WeightFile {
  std::vector<TensorRecord> records;
  std::string data;
};

void append_tensor(WeightFile& file, const model::TensorSpec& spec, Dtype dtype,
                   std::mt19937_64& random) {
  uint64_t count = 1;
  for (const uint64_t size : spec.shape) count *= size;
  const bool norm = spec.name.find("norm") != std::string::npos;
  std::normal_distribution<float> normal(norm ? 1.0F : 0.0F, norm ? 0.05F : 0.1F);
  const uint64_t begin = file.data.size();
  for (uint64_t i = 0; i < count; ++i) append_number(file.data, dtype, normal(random));
  file.records.push_back({spec.name, dtype, spec.shape, begin, file.data.size()});
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "airllm-test-XXXXXX").string();
  AIRLLM_CHECK(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Json tiny_config(const TinyOptions& options) {
  return Json{{"architectures", {"LlamaForCausalLM"}},
              {"model_type", "llama"},
              {"hidden_act", "silu"},
              {"hidden_size", options.hidden},
              {"intermediate_size", options.intermediate},
              {"num_hidden_layers", options.layers},
              {"num_attention_heads", options.heads},
              {"num_key_value_heads", options.kv_heads},
              {"vocab_size", options.vocabulary},
              {"max_position_embeddings", options.context},
              {"rms_norm_eps", 1e-5},
              {"rope_theta", 10000.0},
              {"tie_word_embeddings", options.tied},
              {"attention_bias", options.biases},
              {"mlp_bias", options.biases},
              {"bos_token_id", 1},
              {"eos_token_id", 2}};
}

void write_tiny_checkpoint(const std::string& folder, const TinyOptions& options) {
  const std::string config = dump_json(tiny_config(options));
  write_file(folder + "/config.json", config);
  write_file(folder + "/generation_config.json", R"({"bos_token_id": 1, "eos_token_id": 2})");
  if (options.tokenizer) {
    write_file(folder + "/tokenizer.json", R"({"version": "1.0"})");
    write_file(folder + "/tokenizer_config.json", R"({"bos_token": "<s>"})");
  }
  const Result<model::Architecture> architecture = model::parse_config(config, "config.json");
  AIRLLM_CHECK(architecture.has_value());

  std::mt19937_64 random(options.seed);
  std::vector<WeightFile> files(options.files);
  size_t next = 0;
  for (const model::StageSpec& stage : model::stages(*architecture)) {
    for (const model::TensorSpec& spec : stage.tensors) {
      append_tensor(files[next++ % files.size()], spec, options.dtype, random);
    }
  }
  Json map = Json::object();
  for (size_t i = 0; i < files.size(); ++i) {
    char name[64] = "model.safetensors";
    if (files.size() > 1) {
      std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, files.size());
    }
    for (const TensorRecord& record : files[i].records) map[record.name] = name;
    write_file(folder + "/" + name,
               write_safetensors_header({{"format", "pt"}}, files[i].records, 8) + files[i].data);
  }
  if (files.size() > 1) {
    write_file(folder + "/model.safetensors.index.json",
               dump_json(Json{{"metadata", Json::object()}, {"weight_map", std::move(map)}}));
  }
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  AIRLLM_CHECK(out.good());
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Result<std::vector<UniqueFd>> FolderSource::open(std::span<const std::string> names) {
  AIRLLM_CHECK(names.size() <= 64);
  std::vector<UniqueFd> out;
  for (const std::string& name : names) {
    UniqueFd fd(::open((folder_ + "/" + name).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd.valid() && errno != ENOENT) return Unexpected(errno_error(name, errno));
    out.push_back(std::move(fd));
  }
  return out;
}

engine::SplitRequest split_request(const std::string& folder, const std::string& name) {
  return {name, folder, std::make_shared<FolderSource>(folder)};
}

}  // namespace airllm::store
