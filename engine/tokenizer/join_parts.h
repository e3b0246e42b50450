// The parts of a prompt as one text that knows who wrote what.
#pragma once

#include <span>

#include "base/result.h"
#include "engine/text/marked_text.h"
#include "engine/tokenizer/tokenizer.h"

namespace airllm::tokenizer {

// A part's number is its text's origin; text::kUserOrigin for those from a user. Bytes that are not
// UTF-8 and texts over 256 MiB are kData errors.
Result<text::MarkedText> join_parts(std::span<const TextPart> parts);

}  // namespace airllm::tokenizer
