// The files of a model's folder that say how its text becomes ids and prompts.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "engine/tokenizer/text_files.h"

namespace airllm::tools {

// A missing file is left out; a folder that is not there, a file that cannot be read and a second
// *.tiktoken file are errors.
Result<tokenizer::TextFiles> read_text_files(const std::filesystem::path& folder);

}  // namespace airllm::tools
