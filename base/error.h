// Error: an expected failure as a value, with what a person needs to act on it.
//
// Bugs abort (see check.h); failures of files, peers, input and memory travel as Error inside a
// Result<T> (see result.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace airllm {

// Why something failed. Each code has a stable name (seen by scripts in JSON) and an exit status
// after sysexits(3).
enum class ErrorCode {
  kUsage,         // 64: the command or request was formed wrongly
  kData,          // 65: input data is malformed (not UTF-8, a broken file, a bad checksum)
  kNoInput,       // 66: a named file or model does not exist or is not usable
  kUnavailable,   // 69: no daemon, or the daemon is stopping
  kInternal,      // 70: a bug
  kOs,            // 71: the operating system refused something basic (fork, memory)
  kCannotCreate,  // 73: an output cannot be created, or its name is taken
  kIo,            // 74: reading or writing failed, a disk is full
  kTemporary,     // 75: try again later (busy, locked by another process)
  kProtocol,      // 76: the peer broke the protocol
  kNoPermission,  // 77: not allowed
  kConfig,        // 78: a setting is wrong
  kCancelled,     // 130: cancelled by the user
};

// The stable name of `code`, such as "no_input".
std::string_view error_name(ErrorCode code);
// The inverse of error_name(); an unknown name gives kInternal.
ErrorCode error_code_from_name(std::string_view name);
// The exit status of a program that fails with `code`.
int exit_status(ErrorCode code);
// The inverse of exit_status(); nothing for a status that no code has.
std::optional<ErrorCode> error_code_from_exit_status(int status);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // what failed and where: path, offset or tensor, the system's reason
  std::string remedy;   // what to do about it; may be empty
};

// An Error from the current errno: "<what>: <strerror text>". ENOENT, EACCES, ENOSPC and the like
// choose a fitting code; `remedy` may be empty.
Error errno_error(std::string_view what, int errno_value, std::string remedy = {});

}  // namespace airllm
