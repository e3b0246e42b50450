// The messages between a daemon and the downloader airllm-fetch, as plain structs. docs/fetch.md is
// their contract.
//
// Frames, hello and cancel are those of messages.h. The daemon sends Hello, FetchSettings,
// FetchRequest, Grant and Cancel; the downloader sends Hello and FetchEvent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "protocol/messages.h"
#include "protocol/msgpack_view.h"

namespace airllm::protocol {

inline constexpr uint64_t kFetchProtocolVersion = 1;
// Files that one "files" event lists at most, and bytes that one "data" event has at most.
inline constexpr uint64_t kMaxListedFiles = 1000;
inline constexpr uint64_t kMaxFetchDataBytes = uint64_t{256} << 10;

// type "settings": for all requests of the connection, from now on. What is unset stays as it is.
struct FetchSettings {
  std::optional<uint64_t> connections;  // open at once, all files together; not 0
  std::optional<uint64_t> limit_rate;   // bytes per second of all together; 0: no limit
};

// Which repository, and who asks.
struct Repository {
  std::string endpoint;    // "https://hub.example", perhaps with a path; no query, no user
  std::string repository;  // "name" or "owner/name"
  std::string revision;    // a branch, a tag or a commit; a whole commit for "read" and "file"
  std::string token;       // the user's; empty: none
  bool own_token = false;  // instead of it the downloader's own, where that may go to the endpoint
};

// method "repository": its files come in "files" events, then "done" tells the commit.
struct RepositoryParams {
  Repository from;
};

// method "read": bytes of a file, in "data" events, in order. Nothing is verified but the sizes.
struct ReadParams {
  Repository from;
  std::string name;
  std::optional<uint64_t> size;  // of the whole file, when it is known: another one is an error
  uint64_t offset = 0;
  uint64_t length = 0;  // not 0; what lies beyond the file's end is left out
};

// method "file": a file into descriptors. Exactly one of sha256 and git_sha1 is given, in
// hexadecimal digits. The message carries two descriptors of regular files, open for reading and
// writing: the data and the journal.
struct FileParams {
  Repository from;
  std::string name;
  uint64_t size = 0;
  std::string sha256;
  std::string git_sha1;
  // How far beyond the hashed prefix may be written.
  uint64_t window = 0;
  // Nothing is written at or behind this offset until a Grant allows it; unset: no such limit.
  std::optional<uint64_t> limit;
};

using FetchParams = std::variant<RepositoryParams, ReadParams, FileParams, UnknownMethod>;

// type "request", as in messages.h.
struct FetchRequest {
  uint64_t id = 0;  // chosen by the daemon, not 0; unique among its running requests
  FetchParams params;
};

// type "grant": the file request `id` may write up to `limit`. One below the last is ignored.
struct Grant {
  uint64_t id = 0;
  uint64_t limit = 0;
};

struct ListedFile {
  std::string name;  // relative, with slashes, checked
  uint64_t size = 0;
  std::string git_sha1;  // of the git blob: of an LFS file that of its pointer
  std::string sha256;    // of an LFS file's content; else empty
};

// kind "files".
struct ListedFiles {
  std::vector<ListedFile> files;
};

// kind "data".
struct FetchData {
  uint64_t offset = 0;
  Bytes data;
};

// kind "progress" of a file. The prefix grows, but for a small file that starts over.
struct FetchProgress {
  uint64_t prefix = 0;    // bytes from the beginning that are written and hashed
  uint64_t received = 0;  // bytes that the network has brought for this file, since it began
};

// kind "done". Of a repository: commit, files, size. Of a file: size, received. Of a read: size,
// that of the whole file, and received.
struct FetchDone {
  std::string commit;
  uint64_t files = 0;
  uint64_t size = 0;
  uint64_t received = 0;
};

// kind "error": the end of a request that failed; with id 0, of the connection.
struct FetchFailed {
  Error error;
  std::string reason;      // one of the words of docs/fetch.md, for programs
  bool resumable = false;  // the same request, with the same descriptors, goes on where it was
};

using FetchEventBody = std::variant<ListedFiles, FetchData, FetchProgress, FetchDone, FetchFailed>;

// type "event": {"type","id","event":kind,"body":{...}}.
struct FetchEvent {
  uint64_t id = 0;
  FetchEventBody body;
};

// What may arrive at the downloader, and at its daemon.
using ToFetch = std::variant<Hello, FetchSettings, FetchRequest, Grant, Cancel>;
using FromFetch = std::variant<Hello, FetchEvent>;

// As encode() and the decode functions of framing.h.
Result<std::string> encode_to_fetch(const ToFetch& message);
Result<std::string> encode_from_fetch(const FromFetch& message);
Result<ToFetch> decode_to_fetch(std::string_view payload);
Result<FromFetch> decode_from_fetch(std::string_view payload);

}  // namespace airllm::protocol
