#include "client/table.h"

#include <algorithm>

#include "base/json.h"
#include "base/units.h"
#include "base/utf8.h"
#include "client/output.h"

namespace airllm::client {
namespace {

using Lines = std::vector<std::pair<std::string, std::string>>;

// Characters, which is close to columns for the names and numbers that tables hold.
size_t width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

std::string padded(const std::string& text, size_t columns) {
  return text + std::string(columns - std::min(columns, width(text)), ' ');
}

bool is_size(const std::string& key) {
  return key.ends_with("bytes") || key.find("bytes_per_") != std::string::npos;
}

std::string scalar(const std::string& key, const Json& value) {
  if (value.is_null() || value == Json("")) return "-";
  if (value.is_string()) return name_on_stdout(value.get_ref<const std::string&>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_number_unsigned() && is_size(key)) return format_size(value.get<uint64_t>());
  return name_on_stdout(dump_json(value));
}

bool holds_objects(const Json& array) {
  return std::any_of(array.begin(), array.end(), [](const Json& item) { return item.is_object(); });
}

void flatten(const std::string& prefix, const Json& value, Lines& lines);

void flatten_array(const std::string& key, const Json& array, Lines& lines) {
  if (holds_objects(array)) {
    for (const Json& item : array) {
      std::string text;
      Lines inner;
      flatten("", item, inner);
      for (const auto& [name, content] : inner) {
        text += (text.empty() ? "" : ", ") + (name == "name" ? content : name + " " + content);
      }
      lines.emplace_back(key, text);
    }
    return;
  }
  std::string text;
  for (const Json& item : array) text += (text.empty() ? "" : ", ") + scalar("", item);
  lines.emplace_back(key, text.empty() ? "-" : text);
}

void flatten(const std::string& prefix, const Json& value, Lines& lines) {
  if (!value.is_object()) {
    lines.emplace_back(prefix, scalar(prefix, value));
    return;
  }
  for (const auto& [name, content] : value.items()) {
    const std::string key =
        prefix.empty() ? name_on_stdout(name) : prefix + "." + name_on_stdout(name);
    if (content.is_object() && !content.empty()) {
      flatten(key, content, lines);
    } else if (content.is_array()) {
      flatten_array(key, content, lines);
    } else {
      lines.emplace_back(key, scalar(key, content));
    }
  }
}

}  // namespace

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += i + 1 == row.size() ? row[i] : padded(row[i], widths[i] + 2);
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string format_object(const Json& object) {
  Lines lines;
  flatten("", object, lines);
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, value] : lines) rows.push_back({key + ":", value});
  return format_table(rows);
}

std::string cell(const Json& object, const std::string& key) {
  if (!object.is_object() || !object.contains(key)) return "-";
  return scalar(key, object.at(key));
}

uint64_t count_of(const Json& object, const char* key) {
  const Json value = object.is_object() ? object.value(key, Json()) : Json();
  return value.is_number_unsigned() ? value.get<uint64_t>() : 0;
}

Result<Json> parse_result(const std::string& text) {
  Result<Json> value = parse_json(text, "the daemon's result");
  if (!value) return Unexpected(ErrorCode::kProtocol, value.error().message);
  return value;
}

Status print_result_json(const std::string& text) {
  AIRLLM_TRY(const Json value, parse_result(text));
  return print_out(json_for_stdout(value) + "\n");
}

}  // namespace airllm::client
