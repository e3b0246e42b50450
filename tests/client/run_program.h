// Runs the built `airllm` as a user would: arguments, environment, stdin; with pipes or a terminal.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace airllm::client {

struct RunOptions {
  std::string input;  // for stdin, which then ends
  // "NAME=VALUE". The program sees these, PATH, and nothing else.
  std::vector<std::string> environment;
  bool terminal = false;        // stdin, stdout and stderr are one terminal
  bool stdout_is_full = false;  // stdout is /dev/full
  std::string program;          // empty: the built airllm
};

struct Finished {
  int status = -1;  // exit status
  int signal = 0;   // that killed it, or 0
  std::string out;
  std::string err;  // empty with a terminal, which mixes both
};

// A program under way. Not thread-safe.
class Running {
 public:
  Running(const std::vector<std::string>& args, const RunOptions& options);
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  pid_t pid() const { return pid_; }
  void send_signal(int number) const;
  void close_stdout() { out_.reset(); }
  // Reads until stdout holds `text`; false when it ends or nothing comes for ten seconds.
  bool wait_for_output(const std::string& text);
  // Whether the program ends by itself while nobody reads what it prints.
  bool ends_unread(int timeout_ms) const;
  // Reads the rest and waits for the end; kills what takes longer than 30 seconds.
  Finished finish();

 private:
  void start_with_pipes(const std::vector<std::string>& args, const RunOptions& options);
  void start_with_terminal(const std::vector<std::string>& args, const RunOptions& options);
  bool read_some(int timeout_ms);

  pid_t pid_ = -1;
  UniqueFd in_, out_, err_;
  std::string input_;
  Finished finished_;
};

Finished run_airllm(const std::vector<std::string>& args, const RunOptions& options = {});

// A folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // Writes a file (and the folders above it), gives its path.
  std::string write(const std::string& name, const std::string& content) const;

 private:
  std::string path_;
};

}  // namespace airllm::client
