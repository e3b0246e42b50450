// The families: what each model_type makes of config.json. docs/adding-an-architecture.md tells how
// to add one.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/model/architecture.h"
#include "engine/model/config_reader.h"

namespace airllm::model {

struct Family {
  const char* model_type;
  // `out` has its family and nothing else.
  Status (*read)(const ConfigReader& config, Architecture& out);
};

// Null when it is not known.
const Family* find_family(std::string_view model_type);
// All of them, as in "arcee, bloom, …".
std::string family_names();

}  // namespace airllm::model
