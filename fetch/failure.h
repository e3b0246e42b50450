// Why a request ends: an Error for people, a word for programs, and whether going on is possible.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "protocol/fetch_messages.h"

namespace airllm::fetch {

using Failure = protocol::FetchFailed;

// The words of docs/fetch.md.
namespace reason {
inline constexpr std::string_view kUsage = "usage";
inline constexpr std::string_view kCancelled = "cancelled";
inline constexpr std::string_view kGated = "gated";
inline constexpr std::string_view kUnauthorized = "unauthorized";
inline constexpr std::string_view kNoRepository = "no_repository";
inline constexpr std::string_view kNoRevision = "no_revision";
inline constexpr std::string_view kNoFile = "no_file";
inline constexpr std::string_view kListing = "listing";
inline constexpr std::string_view kTooLarge = "too_large";
inline constexpr std::string_view kChanged = "changed";
inline constexpr std::string_view kHash = "hash";
inline constexpr std::string_view kServer = "server";
inline constexpr std::string_view kNetwork = "network";
inline constexpr std::string_view kTls = "tls";
inline constexpr std::string_view kDiskFull = "disk_full";
inline constexpr std::string_view kIo = "io";
inline constexpr std::string_view kBusy = "busy";
inline constexpr std::string_view kProtocol = "protocol";
}  // namespace reason

inline Failure failure(std::string_view why, ErrorCode code, std::string message,
                       std::string remedy = {}) {
  return {{code, std::move(message), std::move(remedy)}, std::string(why), false};
}

inline Failure failure(std::string_view why, Error error) {
  return {std::move(error), std::string(why), false};
}

// One after which the same request goes on where it was.
inline Failure resumable(Failure failed) {
  failed.resumable = true;
  return failed;
}

}  // namespace airllm::fetch
