// Which models were being loaded when the process died. A model that brings the daemon down while
// it loads would do so for ever under a service manager that starts the daemon again; so one that
// was loading at two crashes in a row is refused until it has been verified.
//
// The marks are in one small file of the store, written before a load begins and after it ends, so
// that they survive kill -9 and a power cut. A load is from opening the model to the end of its
// first whole sweep, as far as the engine works on it: a job that waits is no load. A crash while a
// model is not loading changes nothing for it.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"
#include "engine/store/disk.h"

namespace airllm::store {

// Thread-safe. A mark that cannot be written is logged, and the load goes on without it.
class LoadMarks {
 public:
  // Reads the file at `path`; loads that the last process did not end count as crashes.
  static std::unique_ptr<LoadMarks> open(Disk& disk, std::string path);

  // kData for a model that was loading at two crashes in a row. `place` is its folder below the
  // store's, `name` what its users call it.
  Status check(const std::string& place, const std::string& name) const;
  // A load begins; the mark is durable when this returns.
  void begin(const std::string& place);
  // It is over without having succeeded, or goes on later.
  void end(const std::string& place);
  // The model is sound, or gone: its crashes are forgotten, and the load is over.
  void clear(const std::string& place);
  // The model lies elsewhere from now on; what is known of it goes along.
  void move(const std::string& from, const std::string& to);
  // The process ends in order: no load is under way from now on.
  void close();

 private:
  struct Mark {
    int crashes = 0;
    bool loading = false;
  };

  LoadMarks(Disk& disk, std::string path) : disk_(disk), path_(std::move(path)) {}
  Status read();
  void write();  // lock held

  Disk& disk_;
  const std::string path_;
  mutable std::mutex mutex_;
  std::map<std::string, Mark> marks_;
  bool closed_ = false;
};

}  // namespace airllm::store
