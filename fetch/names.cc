#include "fetch/names.h"

#include <algorithm>

#include "base/utf8.h"
#include "fetch/text.h"

namespace airllm::fetch {
namespace {

constexpr size_t kMaxRepositoryPart = 96;
constexpr size_t kMaxRevision = 250;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_repository_part(std::string_view part) {
  const auto may_begin_or_end = [](char c) { return is_letter_or_digit(c) || c == '_'; };
  if (part.empty() || part.size() > kMaxRepositoryPart || !may_begin_or_end(part.front()) ||
      !may_begin_or_end(part.back())) {
    return false;
  }
  // "--" stands for "/" in names of folders.
  if (part.find("--") != std::string_view::npos || part.find("..") != std::string_view::npos) {
    return false;
  }
  return std::all_of(part.begin(), part.end(), [](char c) {
    return is_letter_or_digit(c) || c == '-' || c == '_' || c == '.';
  });
}

// Why `part` may not be a part of a file's name; empty when it may.
std::string_view fault_of_part(std::string_view part) {
  if (part.empty()) return "has an empty part";
  if (part == "." || part == "..") return "leads out of the repository";
  if (part.size() > kMaxNamePart) return "has a part that is too long";
  return {};
}

std::string_view fault_of_name(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > kMaxFileName) return "is too long";
  if (name.front() == '/') return "is not relative";
  if (find_invalid_utf8(name) != kValidUtf8) return "is not UTF-8";
  if (name.find('\\') != std::string_view::npos) return "has a backslash";
  if (escape_for_display(name, true) != name) return "has control characters";
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    if (const auto fault = fault_of_part(name.substr(begin, end - begin)); !fault.empty()) {
      return fault;
    }
    begin = end + 1;
  }
  return {};
}

}  // namespace

Status check_repository(std::string_view name) {
  const size_t slash = name.find('/');
  const bool has_owner = slash != std::string_view::npos;
  const std::string_view last = has_owner ? name.substr(slash + 1) : name;
  if (is_repository_part(last) && (!has_owner || is_repository_part(name.substr(0, slash))) &&
      !last.ends_with(".git")) {
    return {};
  }
  return Unexpected(ErrorCode::kUsage, in_quotes(name) + " is no name of a repository",
                    "write it as the hub shows it: owner/name");
}

Status check_revision(std::string_view revision) {
  if (!revision.empty() && revision.size() <= kMaxRevision &&
      find_invalid_utf8(revision) == kValidUtf8 && escape_for_display(revision, true) == revision) {
    return {};
  }
  return Unexpected(ErrorCode::kUsage, in_quotes(revision) + " is no revision",
                    "name a branch, a tag or a commit, such as main");
}

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Status check_file_name(std::string_view name) {
  const std::string_view fault = fault_of_name(name);
  if (fault.empty()) return {};
  return Unexpected(ErrorCode::kData,
                    "the name of a file " + std::string(fault) + ": " + in_quotes(name),
                    "nothing was written; do not trust this repository");
}

}  // namespace airllm::fetch
