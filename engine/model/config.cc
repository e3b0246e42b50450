// config.json of Hugging Face checkpoints as an Architecture.
#include "engine/model/architecture.h"
#include "engine/model/config_reader.h"
#include "engine/model/families.h"

namespace airllm::model {

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
  return out;
}

}  // namespace airllm::model
