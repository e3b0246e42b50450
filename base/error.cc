#include "base/error.h"

#include <array>
#include <cerrno>
#include <system_error>

namespace airllm {
namespace {

struct CodeInfo {
  ErrorCode code;
  std::string_view name;
  int exit_status;
};

constexpr std::array kCodes{
    CodeInfo{ErrorCode::kUsage, "usage", 64},
    CodeInfo{ErrorCode::kData, "data", 65},
    CodeInfo{ErrorCode::kNoInput, "no_input", 66},
    CodeInfo{ErrorCode::kUnavailable, "unavailable", 69},
    CodeInfo{ErrorCode::kInternal, "internal", 70},
    CodeInfo{ErrorCode::kOs, "os", 71},
    CodeInfo{ErrorCode::kCannotCreate, "cannot_create", 73},
    CodeInfo{ErrorCode::kIo, "io", 74},
    CodeInfo{ErrorCode::kTemporary, "temporary", 75},
    CodeInfo{ErrorCode::kProtocol, "protocol", 76},
    CodeInfo{ErrorCode::kNoPermission, "no_permission", 77},
    CodeInfo{ErrorCode::kConfig, "config", 78},
    CodeInfo{ErrorCode::kCancelled, "cancelled", 130},
};

const CodeInfo& info(ErrorCode code) {
  for (const CodeInfo& entry : kCodes) {
    if (entry.code == code) return entry;
  }
  return kCodes[4];
}

ErrorCode code_for_errno(int value) {
  switch (value) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ELOOP: return ErrorCode::kNoInput;
    case EACCES:
    case EPERM:
    case EROFS: return ErrorCode::kNoPermission;
    case ENOMEM:
    case EMFILE:
    case ENFILE: return ErrorCode::kOs;
    case EEXIST:
    case ENOTEMPTY:
    case ENAMETOOLONG: return ErrorCode::kCannotCreate;
    default: return ErrorCode::kIo;
  }
}

}  // namespace

std::string_view error_name(ErrorCode code) { return info(code).name; }

ErrorCode error_code_from_name(std::string_view name) {
  for (const CodeInfo& entry : kCodes) {
    if (entry.name == name) return entry.code;
  }
  return ErrorCode::kInternal;
}

int exit_status(ErrorCode code) { return info(code).exit_status; }

std::optional<ErrorCode> error_code_from_exit_status(int status) {
  for (const CodeInfo& entry : kCodes) {
    if (entry.exit_status == status) return entry.code;
  }
  return std::nullopt;
}

Error errno_error(std::string_view what, int errno_value, std::string remedy) {
  Error error;
  error.code = code_for_errno(errno_value);
  error.message = std::string(what) + ": " + std::generic_category().message(errno_value);
  error.remedy = std::move(remedy);
  if (error.remedy.empty() && (errno_value == ENOSPC || errno_value == EDQUOT)) {
    error.remedy = "free some disk space, or use a store on another disk";
  }
  return error;
}

}  // namespace airllm
