#include "tools/airllm_text/folder.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>

namespace airllm::tools {
namespace {

namespace fs = std::filesystem;
using tokenizer::TextFiles;

Result<std::string> read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Unexpected(errno_error(path.string(), errno));
  std::ostringstream text;
  text << file.rdbuf();
  if (file.bad()) return Unexpected(errno_error(path.string(), EIO));
  return std::move(text).str();
}

Result<std::optional<std::string>> read_if_there(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::optional<std::string>();
  AIRLLM_TRY(std::string text, read_file(path));
  return std::optional<std::string>(std::move(text));
}

// The files of `folder` whose names end with `ending`, in order; none when it is not there.
std::vector<fs::path> files_ending_with(const fs::path& folder, std::string_view ending) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ending) paths.push_back(it->path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

Result<std::optional<std::string>> read_tiktoken(const fs::path& folder) {
  const std::vector<fs::path> paths = files_ending_with(folder, ".tiktoken");
  if (paths.empty()) return read_if_there(folder / "tiktoken.model");
  if (paths.size() > 1) {
    return Unexpected(ErrorCode::kData, folder.string() + ": more than one .tiktoken file");
  }
  return read_if_there(paths.front());
}

}  // namespace

Result<tokenizer::TextFiles> read_text_files(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return Unexpected(ErrorCode::kNoInput, folder.string() + ": not a folder");
  }
  TextFiles files;
  const std::pair<const char*, std::optional<std::string>*> names[] = {
      {"tokenizer.json", &files.tokenizer_json},
      {"tokenizer.model", &files.tokenizer_model},
      {"tokenizer_config.json", &files.tokenizer_config_json},
      {"special_tokens_map.json", &files.special_tokens_map_json},
      {"added_tokens.json", &files.added_tokens_json},
      {"chat_template.jinja", &files.chat_template_jinja},
      {"config.json", &files.config_json},
      {"generation_config.json", &files.generation_config_json}};
  for (const auto& [name, text] : names) {
    AIRLLM_TRY(*text, read_if_there(folder / name));
  }
  AIRLLM_TRY(files.tiktoken, read_tiktoken(folder));
  for (const fs::path& path : files_ending_with(folder / "additional_chat_templates", ".jinja")) {
    AIRLLM_TRY(std::string source, read_file(path));
    files.additional_chat_templates.emplace_back(path.stem().string(), std::move(source));
  }
  return files;
}

}  // namespace airllm::tools
