#include "base/model_name.h"

#include <filesystem>
#include <string_view>

namespace airllm {

std::string model_name_from_path(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr std::string_view kHubPrefix = "models--";
  fs::path folder = fs::path(path).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  const fs::path snapshots = folder.parent_path();
  const std::string repository = snapshots.parent_path().filename().string();
  if (snapshots.filename() == "snapshots" && repository.starts_with(kHubPrefix)) {
    const std::string name = repository.substr(kHubPrefix.size());
    const size_t separator = name.find("--");
    if (separator == std::string::npos) return name;
    return name.substr(0, separator) + "/" + name.substr(separator + 2);
  }
  const std::string name = folder.filename().string();
  return name == "." || name == ".." ? std::string() : name;
}

}  // namespace airllm
