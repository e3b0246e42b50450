// Small files of the user's own.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace airllm::client {

// Makes the folders above it. Written whole, and synced, or not at all.
Status write_user_file(const std::string& path, std::string_view text);

}  // namespace airllm::client
