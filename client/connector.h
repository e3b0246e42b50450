// Finds a daemon that answers: looks at the candidates in order, waits for one that restarts, and
// with --spawn starts one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "client/args.h"
#include "client/patience.h"

namespace airllm::client {

// Connects to the socket at `path` without saying anything, and without waiting but 0.2 s for a
// queue that is full. `error` is an errno: ENOENT or ENOTDIR without a socket, ECONNREFUSED when
// nobody listens, EAGAIN when too many wait.
struct Attempt {
  UniqueFd socket;  // when it worked
  int error = 0;
};
Attempt try_connect(const std::string& path);

// try_connect() as a result: nobody there, or too many waiting, is kUnavailable; what the system
// refuses kNoPermission with the reason; a path that is no socket's is kUsage.
Result<UniqueFd> connect_socket(const std::string& path);

// Not thread-safe.
class Connector {
 public:
  // What `globals` and the environment say; a setting that is wrong is kUsage.
  static Result<Connector> create(const Globals& globals);

  struct Found {
    UniqueFd socket;
    std::string path;
  };
  // A socket that takes the connection. kUnavailable when none does in time, kNoPermission when one
  // is there that we may not use.
  Result<Found> connect();

  // Waits a little after the daemon said or showed that it is going away; `why` when the time is
  // over, kCancelled after a signal.
  Status wait_after(const Error& why);
  Patience& patience() { return patience_; }

 private:
  Connector(const Globals& globals, Patience patience);
  struct Absence;
  std::optional<Found> try_candidates(Absence& absence);
  Result<Found> spawn();

  Globals globals_;
  std::vector<std::string> candidates_;
  bool is_named_;
  Patience patience_;
};

}  // namespace airllm::client
