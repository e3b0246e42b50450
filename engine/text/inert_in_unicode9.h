// The age of normalisation: the reference's tables are those of Unicode 9, and models were trained
// with them.
#pragma once

namespace airllm::text {

// Characters that decompose, compose or are put in order by a later Unicode, but not by Unicode 9.
bool is_inert_in_unicode9(char32_t c);

}  // namespace airllm::text
