// The file of `airllm ask --profile`: Chrome's trace format, which Perfetto (ui.perfetto.dev)
// shows. https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "base/json_fwd.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "protocol/messages.h"

namespace airllm::client {

// Written as events come, so that no more than a piece of it is ever held. Not thread-safe.
class TraceFile {
 public:
  // Empties the file, or makes it. Where it cannot be written: kCannotCreate.
  static Result<TraceFile> create(const std::string& path);

  // The job begins, maybe once more: the file begins anew.
  Status begin(const protocol::Accepted& accepted);
  Status add(const protocol::ProfileEvent& event);
  // After it the file is whole. Without begin() it is a trace of nothing.
  Status finish();

 private:
  TraceFile(std::string path, UniqueFd file) : path_(std::move(path)), file_(std::move(file)) {}
  Status add_name(const char* what, uint64_t thread, const std::string& name);
  Status add_object(const Json& object);
  Status write(std::string_view text);
  Status flush();

  std::string path_;
  UniqueFd file_;
  std::string pending_;
  bool is_first_ = true;
  bool is_flushed_ = false;  // some of it is in the file
  std::set<uint64_t> named_threads_;
};

}  // namespace airllm::client
