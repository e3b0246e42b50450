#include "tools/airllm_text/commands.h"

#include <charconv>
#include <chrono>
#include <memory>

#include "base/json.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/load_tokenizer.h"
#include "engine/tokenizer/template_input.h"
#include "engine/tokenizer/tokenizer.h"

namespace airllm::tools {
namespace {

using tokenizer::ChatTemplate;
using tokenizer::TextFiles;
using tokenizer::TextPart;
using tokenizer::Tokenizer;

Result<std::unique_ptr<Tokenizer>> make_tokenizer(const TextFiles& files, std::string_view where) {
  AIRLLM_TRY(std::unique_ptr<Tokenizer> loaded, tokenizer::load_tokenizer(files, where));
  if (loaded == nullptr) {
    return Unexpected(ErrorCode::kNoInput, std::string(where) + ": no tokenizer");
  }
  return loaded;
}

Result<std::unique_ptr<ChatTemplate>> make_template(const TextFiles& files,
                                                    std::string_view where) {
  AIRLLM_TRY(std::unique_ptr<ChatTemplate> chat_template,
             tokenizer::load_chat_template(files, where));
  if (chat_template == nullptr) {
    return Unexpected(ErrorCode::kNoInput, std::string(where) + ": no chat template");
  }
  return chat_template;
}

// Escaped down to ASCII, as readers may take U+2028 or U+0085 for the end of a line.
std::string answer_of(const char* key, std::string text) {
  return Json{{key, std::move(text)}}.dump(-1, ' ', true, Json::error_handler_t::replace);
}

Result<bool> flag(const Json& request, const char* key) {
  const auto found = request.find(key);
  if (found == request.end()) return false;
  if (!found->is_boolean()) {
    return Unexpected(ErrorCode::kData, std::string("\"") + key + "\" is not true or false");
  }
  return found->get<bool>();
}

Result<Json> read_request(std::string_view line) {
  AIRLLM_TRY(Json request, parse_json(line, "the line"));
  if (!request.is_object()) return Unexpected(ErrorCode::kData, "the line is not a JSON object");
  return request;
}

Result<std::string> encode_line(const Tokenizer& tokenizer, std::string_view line) {
  AIRLLM_TRY(Json request, read_request(line));
  const auto text = request.find("text");
  if (text == request.end() || !text->is_string()) {
    return Unexpected(ErrorCode::kData, "\"text\" is not a string");
  }
  AIRLLM_TRY(const bool add_special, flag(request, "add_special"));
  AIRLLM_TRY(const bool parse_special, flag(request, "parse_special"));
  const TextPart part{std::move(text->get_ref<std::string&>()), !parse_special};
  AIRLLM_TRY(const std::vector<int32_t> ids,
             tokenizer.encode({&part, 1}, {.add_special = add_special}));
  std::string answer = R"({"ids":[)";
  for (const int32_t id : ids) {
    char digits[12];
    answer.append(digits, std::to_chars(digits, digits + sizeof digits, id).ptr);
    answer += ',';
  }
  if (!ids.empty()) answer.pop_back();
  return answer + "]}";
}

Result<std::string> decode_line(const Tokenizer& tokenizer, std::string_view line,
                                bool skip_special) {
  AIRLLM_TRY(const Json request, read_request(line));
  const auto found = request.find("ids");
  if (found == request.end() || !found->is_array()) {
    return Unexpected(ErrorCode::kData, "\"ids\" is not a list");
  }
  std::vector<int32_t> ids;
  ids.reserve(found->size());
  for (const Json& id : *found) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) {
      return Unexpected(ErrorCode::kData, "\"ids\" holds what is not an id");
    }
    ids.push_back(id.get<int32_t>());
  }
  return answer_of("text", tokenizer.decode(ids, skip_special));
}

Result<std::string> template_line(const ChatTemplate& chat_template, std::string_view line) {
  AIRLLM_TRY(Json request, read_request(line));
  AIRLLM_TRY(const tokenizer::TemplateInput input,
             tokenizer::read_template_input(std::move(request), false));
  AIRLLM_TRY(const std::vector<TextPart> parts, chat_template.render(input));
  std::string text;
  for (const TextPart& part : parts) text += part.text;
  return answer_of("text", std::move(text));
}

template <typename Answer>
Status answer_lines(Lines& lines, const Answer& answer) {
  for (;;) {
    AIRLLM_TRY(const std::optional<std::string_view> line, lines.next());
    if (!line.has_value()) return lines.flush();
    const Result<std::string> text = answer(*line);
    AIRLLM_TRY_VOID(lines.write_line(text ? *text : answer_of("error", text.error().message)));
  }
}

}  // namespace

Status encode_lines(const TextFiles& files, std::string_view where, Lines& lines) {
  AIRLLM_TRY(const std::unique_ptr<Tokenizer> tokenizer, make_tokenizer(files, where));
  return answer_lines(lines, [&](std::string_view line) { return encode_line(*tokenizer, line); });
}

Status decode_lines(const TextFiles& files, std::string_view where, bool skip_special,
                    Lines& lines) {
  AIRLLM_TRY(const std::unique_ptr<Tokenizer> tokenizer, make_tokenizer(files, where));
  return answer_lines(
      lines, [&](std::string_view line) { return decode_line(*tokenizer, line, skip_special); });
}

Status template_lines(const TextFiles& files, std::string_view where, Lines& lines) {
  AIRLLM_TRY(const std::unique_ptr<ChatTemplate> chat_template, make_template(files, where));
  return answer_lines(lines,
                      [&](std::string_view line) { return template_line(*chat_template, line); });
}

Status count_all(const TextFiles& files, std::string_view where, bool seconds, Lines& lines) {
  AIRLLM_TRY(const std::unique_ptr<Tokenizer> tokenizer, make_tokenizer(files, where));
  AIRLLM_TRY(std::string text, lines.rest());
  const TextPart part{std::move(text), true};
  const auto begin = std::chrono::steady_clock::now();
  AIRLLM_TRY(const std::vector<int32_t> ids, tokenizer->encode({&part, 1}, {.add_special = false}));
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  std::string answer = std::to_string(ids.size());
  if (seconds) answer += ' ' + std::to_string(taken.count());
  AIRLLM_TRY_VOID(lines.write_line(answer));
  return lines.flush();
}

}  // namespace airllm::tools
