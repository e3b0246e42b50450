#include "base/error.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <string>

namespace airllm {
namespace {

struct CodeCase {
  ErrorCode code;
  const char* name;
  int status;
};

constexpr std::array kCodes{
    CodeCase{ErrorCode::kUsage, "usage", 64},
    CodeCase{ErrorCode::kData, "data", 65},
    CodeCase{ErrorCode::kNoInput, "no_input", 66},
    CodeCase{ErrorCode::kUnavailable, "unavailable", 69},
    CodeCase{ErrorCode::kInternal, "internal", 70},
    CodeCase{ErrorCode::kOs, "os", 71},
    CodeCase{ErrorCode::kCannotCreate, "cannot_create", 73},
    CodeCase{ErrorCode::kIo, "io", 74},
    CodeCase{ErrorCode::kTemporary, "temporary", 75},
    CodeCase{ErrorCode::kProtocol, "protocol", 76},
    CodeCase{ErrorCode::kNoPermission, "no_permission", 77},
    CodeCase{ErrorCode::kConfig, "config", 78},
    CodeCase{ErrorCode::kCancelled, "cancelled", 130},
};

TEST(ErrorCodes, NamesAndExitStatusesAreStable) {
  for (const CodeCase& c : kCodes) {
    EXPECT_EQ(error_name(c.code), c.name);
    EXPECT_EQ(exit_status(c.code), c.status) << c.name;
    EXPECT_EQ(error_code_from_name(c.name), c.code) << c.name;
  }
}

TEST(ErrorCodes, UnknownNameIsInternal) {
  EXPECT_EQ(error_code_from_name("surprise"), ErrorCode::kInternal);
  EXPECT_EQ(error_code_from_name(""), ErrorCode::kInternal);
}

TEST(ErrnoError, ChoosesTheCode) {
  EXPECT_EQ(errno_error("x", ENOENT).code, ErrorCode::kNoInput);
  EXPECT_EQ(errno_error("x", EACCES).code, ErrorCode::kNoPermission);
  EXPECT_EQ(errno_error("x", EPERM).code, ErrorCode::kNoPermission);
  EXPECT_EQ(errno_error("x", EEXIST).code, ErrorCode::kCannotCreate);
  EXPECT_EQ(errno_error("x", ENOMEM).code, ErrorCode::kOs);
  EXPECT_EQ(errno_error("x", EIO).code, ErrorCode::kIo);
}

TEST(ErrnoError, SaysWhatAndWhy) {
  const Error error = errno_error("cannot open /some/file", ENOENT, "look elsewhere");
  EXPECT_EQ(error.message, "cannot open /some/file: No such file or directory");
  EXPECT_EQ(error.remedy, "look elsewhere");
}

TEST(ErrnoError, AFullDiskHasARemedyOfItsOwn) {
  const Error error = errno_error("cannot write /some/file", ENOSPC);
  EXPECT_EQ(error.code, ErrorCode::kIo);
  EXPECT_NE(error.remedy.find("disk space"), std::string::npos);
  EXPECT_EQ(errno_error("x", ENOSPC, "mine").remedy, "mine");
}

}  // namespace
}  // namespace airllm
