// Extended grapheme clusters (UAX 29) as Hugging Face tokenizers knows them.
#pragma once

#include <cstddef>
#include <string_view>

namespace airllm::text {

// The end of the cluster that begins at `at`, which is the text's begin or the end of a cluster,
// and below text.size(). `text` is valid UTF-8.
size_t grapheme_end(std::string_view text, size_t at);

}  // namespace airllm::text
