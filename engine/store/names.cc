#include "engine/store/names.h"

#include <algorithm>
#include <utility>

#include "base/edit_distance.h"

namespace airllm::store {
namespace {

constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxSuggestions = 3;

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

std::string_view last_part(std::string_view name) {
  const size_t slash = name.rfind('/');
  return slash == name.npos ? name : name.substr(slash + 1);
}

// Lower is nearer; more than `limit` means that the names have nothing to do with each other.
size_t distance(std::string_view wanted, std::string_view name) {
  const std::string a = lower(wanted);
  const std::string b = lower(name);
  if (last_part(a) == last_part(b)) return 0;
  if (a.size() >= 3 && b.find(a) != b.npos) return 1;
  return std::min(edit_distance(a, b), edit_distance(last_part(a), last_part(b)) + 1);
}

}  // namespace

bool is_valid_model_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) return false;
  bool part_begins = true;
  for (const char c : name) {
    if (part_begins ? !is_name_character(c) || c == '.' : !is_name_character(c) && c != '/') {
      return false;
    }
    part_begins = c == '/';
  }
  return !part_begins;
}

std::vector<std::string> near_names(std::string_view wanted,
                                    const std::vector<std::string>& names) {
  // What comes from a user's line can be of any length; no name is longer than this.
  if (wanted.size() > 2 * kMaxNameBytes) return {};
  const size_t limit = std::max<size_t>(2, last_part(wanted).size() / 3);
  std::vector<std::pair<size_t, std::string>> found;
  for (const std::string& name : names) {
    const size_t steps = distance(wanted, name);
    if (steps <= limit) found.emplace_back(steps, name);
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> out;
  for (size_t i = 0; i < std::min(found.size(), kMaxSuggestions); ++i) {
    out.push_back(found[i].second);
  }
  return out;
}

}  // namespace airllm::store
