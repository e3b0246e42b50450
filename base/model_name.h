// The name of a model that is made from a folder, when nobody gives one.
#pragma once

#include <string>

namespace airllm {

// "org/name" for a snapshot in the hub's cache (".../models--org--name/snapshots/REV"), else the
// path's last part; "" when it has none ("/", ".."). Only the text is looked at.
std::string model_name_from_path(const std::string& path);

}  // namespace airllm
