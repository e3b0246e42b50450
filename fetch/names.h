// Names that come from a hub or a user, checked before they become a part of an address or, in the
// daemon, of a path.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace airllm::fetch {

// The longest name of a file, with its folders, and of each part of it, in bytes.
inline constexpr size_t kMaxFileName = 1024;
inline constexpr size_t kMaxNamePart = 255;

// "name" or "owner/name" (docs/hub-protocol.md); else a kUsage error.
Status check_repository(std::string_view name);

// A branch, tag or commit: 1 to 250 bytes of UTF-8 without control characters; else a kUsage error.
Status check_revision(std::string_view revision);

// Whether it has `digits` lower case hexadecimal digits.
bool is_hex(std::string_view text, size_t digits);
inline constexpr size_t kSha1Digits = 40;
inline constexpr size_t kSha256Digits = 64;

// A file's name inside a repository: relative, parts divided by one "/" each, none of them "." or
// "..", without backslashes and what a terminal would obey, UTF-8, and no longer than the limits.
// Else a kData error that shows the name.
Status check_file_name(std::string_view name);

}  // namespace airllm::fetch
