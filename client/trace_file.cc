#include "client/trace_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/json.h"

namespace airllm::client {
namespace {

constexpr size_t kPieceBytes = size_t{64} << 10;
// The daemon's threads are shown as those of one process.
constexpr uint64_t kProcess = 1;
// Viewers take thread 0 for none.
constexpr uint64_t kFirstThread = 1;
// A daemon has a few readers; names for more would only fill memory.
constexpr size_t kMostThreadNames = 1024;
constexpr double kNanosecondsPerMicrosecond = 1000;

Unexpected write_error(const std::string& path, int error) {
  return Unexpected(errno_error("cannot write the profile " + path, error,
                                error == ENOSPC ? "make room there, or give --profile another file"
                                                : "give --profile another file"));
}

std::string thread_name(const protocol::ProfileEvent& event) {
  if (event.kind == "copy") return "copies";
  return event.thread == 0 ? "engine" : "reader " + std::to_string(event.thread);
}

// What stands on the bar.
std::string label(const protocol::ProfileEvent& event) {
  if (event.kind == "stage" && !event.name.empty()) return event.name;
  if (event.name.empty() || (event.kind != "read" && event.kind != "copy")) return event.kind;
  return event.kind + " " + event.name;
}

Json details(const protocol::ProfileEvent& event) {
  Json args = Json::object();
  if (event.kind == "read") {
    args["bytes"] = event.read_bytes;
    if (!event.name.empty()) {
      args["shard"] = event.name;
      args["offset"] = event.offset;
    }
  } else if (event.kind == "copy") {
    args["bytes"] = event.read_bytes;
    if (!event.name.empty()) args["shard"] = event.name;
  } else if (event.kind == "sweep" || event.kind == "stage") {
    args["read_bytes"] = event.read_bytes;
    args["cache_bytes"] = event.cache_bytes;
  }
  if (event.kind == "sweep") {
    args["rows"] = event.rows;
    args["other_rows"] = event.other_rows;
  }
  return args;
}

}  // namespace

Result<TraceFile> TraceFile::create(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file.valid()) {
    Error error = errno_error("cannot write the profile " + path, errno,
                              "give --profile a file in a folder that you may write to");
    error.code = ErrorCode::kCannotCreate;
    return Unexpected(std::move(error));
  }
  return TraceFile(path, std::move(file));
}

Status TraceFile::begin(const protocol::Accepted& accepted) {
  if (is_flushed_ && (ftruncate(file_.get(), 0) != 0 || lseek(file_.get(), 0, SEEK_SET) < 0)) {
    return write_error(path_, errno);
  }
  is_first_ = true;
  pending_.clear();
  named_threads_.clear();
  return add_name("process_name", 0,
                  "airllmd: " + accepted.model + ", job " + std::to_string(accepted.job));
}

Status TraceFile::add(const protocol::ProfileEvent& event) {
  if (named_threads_.size() < kMostThreadNames && named_threads_.insert(event.thread).second) {
    AIRLLM_TRY_VOID(add_name("thread_name", event.thread, thread_name(event)));
  }
  return add_object({{"name", label(event)},
                     {"cat", event.kind},
                     {"ph", "X"},
                     {"ts", static_cast<double>(event.begin_ns) / kNanosecondsPerMicrosecond},
                     {"dur", static_cast<double>(event.duration_ns) / kNanosecondsPerMicrosecond},
                     {"pid", kProcess},
                     {"tid", kFirstThread + event.thread},
                     {"args", details(event)}});
}

Status TraceFile::add_name(const char* what, uint64_t thread, const std::string& name) {
  return add_object({{"name", what},
                     {"ph", "M"},
                     {"pid", kProcess},
                     {"tid", kFirstThread + thread},
                     {"args", {{"name", name}}}});
}

Status TraceFile::add_object(const Json& object) {
  const char* const before = is_first_ ? "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n" : ",\n";
  is_first_ = false;
  return write(before + object.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Status TraceFile::finish() {
  AIRLLM_TRY_VOID(write(is_first_ ? "{\"traceEvents\":[]}\n" : "\n]}\n"));
  AIRLLM_TRY_VOID(flush());
  if (close(file_.release()) != 0) return write_error(path_, errno);
  return {};
}

Status TraceFile::write(std::string_view text) {
  pending_ += text;
  return pending_.size() < kPieceBytes ? Status() : flush();
}

Status TraceFile::flush() {
  std::string_view rest = pending_;
  is_flushed_ = is_flushed_ || !rest.empty();
  while (!rest.empty()) {
    const ssize_t written = ::write(file_.get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return write_error(path_, errno);
    rest.remove_prefix(static_cast<size_t>(written));
  }
  pending_.clear();
  return {};
}

}  // namespace airllm::client
