#include "base/json.h"

#include <unordered_set>
#include <vector>

#include "base/utf8.h"

namespace airllm {
namespace {

// Builds the value through nlohmann's own DOM builder, and stops at the first duplicate key or at
// the depth limit: the library itself keeps the last of duplicate keys, and its DOM recurses.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit StrictBuilder(Json& root) : dom_(root, false) {}

  bool null() override { return dom_.null(); }
  bool boolean(bool v) override { return dom_.boolean(v); }
  bool number_integer(number_integer_t v) override { return dom_.number_integer(v); }
  bool number_unsigned(number_unsigned_t v) override { return dom_.number_unsigned(v); }
  bool number_float(number_float_t v, const string_t& s) override {
    return dom_.number_float(v, s);
  }
  bool string(string_t& v) override { return dom_.string(v); }
  bool binary(binary_t& v) override { return dom_.binary(v); }

  bool start_object(size_t elements) override {
    keys_.emplace_back();
    return enter() && dom_.start_object(elements);
  }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      problem_ = "duplicate key '" + escape_for_display(name.substr(0, 80), true) + "'";
      return false;
    }
    return dom_.key(name);
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return dom_.end_object();
  }
  bool start_array(size_t elements) override { return enter() && dom_.start_array(elements); }
  bool end_array() override {
    --depth_;
    return dom_.end_array();
  }
  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    problem_ = "at byte " + std::to_string(position) + ": " + error.what();
    // The library prefixes its messages with "[json.exception...] ".
    if (const size_t end = problem_.find("] "); end != std::string::npos) {
      problem_ = "at byte " + std::to_string(position) + ": " + problem_.substr(end + 2);
    }
    return false;
  }

  const std::string& problem() const { return problem_; }

 private:
  bool enter() {
    if (++depth_ > kJsonMaxDepth) {
      problem_ = "nested deeper than " + std::to_string(kJsonMaxDepth) + " levels";
      return false;
    }
    return true;
  }

  nlohmann::detail::json_sax_dom_parser<Json> dom_;
  std::vector<std::unordered_set<std::string>> keys_;
  int depth_ = 0;
  std::string problem_;
};

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what) {
  const std::string where(what);
  if (const size_t bad = find_invalid_utf8(text); bad != kValidUtf8) {
    return Unexpected(ErrorCode::kData, where + ": not UTF-8 at byte " + std::to_string(bad));
  }
  // The library takes a NUL byte for the end of the text and would ignore what follows.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return Unexpected(ErrorCode::kData,
                      where + ": not valid JSON: a NUL byte at byte " + std::to_string(nul));
  }
  Json value;
  StrictBuilder builder(value);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return Unexpected(ErrorCode::kData,
                      where + ": not valid JSON: " + escape_for_display(builder.problem(), true));
  }
  return value;
}

std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace airllm
