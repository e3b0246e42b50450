// config.json of Hugging Face checkpoints as an Architecture.
#include "engine/model/architecture.h"
#include "engine/model/config_reader.h"
#include "engine/model/families.h"

namespace airllm::model {
namespace {

// Far above what any model has, and few enough to be listed in memory.
constexpr uint64_t kMaxTensors = 1 << 20;

// Before all tensors are listed: settings that would make too many of them.
Status check_tensor_count(const ConfigReader& config, const Architecture& a) {
  constexpr uint64_t kOfLayer = 32, kOfExpert = 3, kOfHead = 2;  // at most
  uint64_t of_layer = kOfLayer + kOfExpert * a.router.experts;
  if (a.qk_norm == QkNorm::kHeadByTensor) of_layer += kOfHead * a.heads;
  if (a.layers * of_layer <= kMaxTensors) return {};
  const char* key = config.spelling({"num_hidden_layers", "n_layer", "num_layers", "n_layers"});
  return config.impossible(
      key, "with " + std::to_string(of_layer) + " tensors each, these are too many layers");
}

}  // namespace

Result<Architecture> parse_config(std::string_view config_json, std::string_view what) {
  AIRLLM_TRY(const Json root, parse_json_object(config_json, what));
  const ConfigReader config(root, std::string(what));
  Architecture out;
  AIRLLM_TRY(out.family, config.text({"model_type"}, ""));
  const Family* family = find_family(out.family);
  if (family == nullptr) {
    return config.impossible("model_type", "this model family is not known here",
                             "known are: " + family_names());
  }
  AIRLLM_TRY_VOID(family->read(config, out));
  AIRLLM_TRY_VOID(check_tensor_count(config, out));
  return out;
}

}  // namespace airllm::model
