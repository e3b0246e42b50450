#include "base/json.h"

#include <unordered_set>
#include <vector>

#include "base/utf8.h"

namespace airllm {
namespace {

// Builds the value, and stops at the first duplicate key or at the depth limit: the library's own
// builder keeps the last of duplicate keys, recurses, and looks each key up among all before it.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit StrictBuilder(Json& root) : root_(root) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool v) override { return add(v); }
  bool number_integer(number_integer_t v) override { return add(v); }
  bool number_unsigned(number_unsigned_t v) override { return add(v); }
  bool number_float(number_float_t v, const string_t& /*text*/) override { return add(v); }
  bool string(string_t& v) override { return add(std::move(v)); }
  bool binary(binary_t& /*v*/) override { return false; }  // JSON text has none

  bool start_object(size_t /*elements*/) override {
    keys_.emplace_back();
    return open(Json::object());
  }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      problem_ = "duplicate key '" + escape_for_display(name.substr(0, 80), true) + "'";
      return false;
    }
    key_ = std::move(name);
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    return close();
  }
  bool start_array(size_t /*elements*/) override { return open(Json::array()); }
  bool end_array() override { return close(); }
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
  // Puts a value where it belongs: the root, the open array, or the open object under key_.
  bool add(Json value) {
    place(std::move(value));
    return true;
  }

  Json& place(Json value) {
    if (open_.empty()) return root_ = std::move(value);
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return parent.back();
    }
    auto& members = parent.get_ref<Json::object_t&>();
    members.emplace_back(std::move(key_), std::move(value));
    return members.back().second;
  }

  bool open(Json container) {
    if (open_.size() == kJsonMaxDepth) {
      problem_ = "nested deeper than " + std::to_string(kJsonMaxDepth) + " levels";
      return false;
    }
    // Stays where it is while it is open: its parent grows only when it is closed.
    open_.push_back(&place(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  std::vector<Json*> open_;
  std::vector<std::unordered_set<std::string>> keys_;  // of the open objects
  std::string key_;                                    // of the value that comes next
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

Result<Json> parse_json_object(std::string_view text, std::string_view what) {
  AIRLLM_TRY(Json object, parse_json(text, what));
  if (object.is_object()) return object;
  return Unexpected(ErrorCode::kData, std::string(what) + ": not a JSON object");
}

std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace airllm
