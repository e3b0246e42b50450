// What airllm-text does with a folder's files. A line of input that cannot be answered is answered
// by {"error":"…"}; an error returned here ends the program.
#pragma once

#include "base/result.h"
#include "tools/airllm_text/folder.h"
#include "tools/airllm_text/lines.h"

namespace airllm::tools {

Status encode_lines(const tokenizer::TextFiles& files, std::string_view where, Lines& lines);
Status decode_lines(const tokenizer::TextFiles& files, std::string_view where, bool skip_special,
                    Lines& lines);
Status template_lines(const tokenizer::TextFiles& files, std::string_view where, Lines& lines);
// With `seconds`, also the time that encoding took, without loading and reading.
Status count_all(const tokenizer::TextFiles& files, std::string_view where, bool seconds,
                 Lines& lines);

}  // namespace airllm::tools
