// Reads by io_uring (io_uring(7)). The ring may only read: with a filter of system calls around the
// daemon it would otherwise be a way past it.
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/unique_fd.h"
#include "engine/stream/read_queue.h"

namespace airllm::stream {
namespace {

constexpr uint64_t kWakeToken = ~uint64_t{0};
// What the kernel takes as one registered buffer.
constexpr size_t kMostRegisteredBytes = size_t{1} << 30;

// Debian 12's liburing declares these two and does not have them (2.3, mended in 2.4).
int register_at(const io_uring& ring, unsigned operation, const void* argument, unsigned count) {
  const long result = ::syscall(__NR_io_uring_register, ring.ring_fd, operation, argument, count);
  return result < 0 ? -errno : static_cast<int>(result);
}

Unexpected refused(const std::string& what, int error) {
  return Unexpected(errno_error("io_uring: " + what, error));
}

class UringQueue : public ReadQueue {
 public:
  explicit UringQueue(unsigned depth) : reads_(depth) {}

  ~UringQueue() override {
    AIRLLM_CHECK(in_flight_ == 0);
    if (has_ring_) ::io_uring_queue_exit(&ring_);
  }

  Status open(std::span<std::byte> registered) {
    wake_fd_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
    if (!wake_fd_.valid()) return refused("making an eventfd", errno);
    io_uring_params params{};
    params.flags = IORING_SETUP_R_DISABLED;
    const auto entries = static_cast<unsigned>(reads_.size()) + 1;  // one for the eventfd
    const int made = ::io_uring_queue_init_params(entries, &ring_, &params);
    if (made < 0) return refused("setting up", -made);
    has_ring_ = true;
    AIRLLM_TRY_VOID(restrict_to_reading());
    if (!registered.empty() && registered.size() <= kMostRegisteredBytes) {
      const iovec buffer{registered.data(), registered.size()};
      if (::io_uring_register_buffers(&ring_, &buffer, 1) == 0) registered_ = registered;
    }
    const int enabled = register_at(ring_, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    if (enabled < 0) return refused("enabling", -enabled);
    begin_wake_read();
    return {};
  }

  size_t room() const override { return reads_.size() - in_flight_; }

  void begin(const Read& read, size_t token) override {
    const size_t slot = free_slot();
    reads_[slot] = Begun{read, token, true};
    ++in_flight_;
    io_uring_sqe* const entry = next_entry();
    const int fd = read.file->descriptor();
    const auto bytes = static_cast<unsigned>(read.memory.size());
    if (is_registered(read.memory)) {
      ::io_uring_prep_read_fixed(entry, fd, read.memory.data(), bytes, read.offset_bytes, 0);
    } else {
      ::io_uring_prep_read(entry, fd, read.memory.data(), bytes, read.offset_bytes);
    }
    entry->user_data = slot;
  }

  std::optional<EndedRead> wait() override {
    io_uring_cqe* ended = nullptr;
    int error = 0;
    do {
      error = ::io_uring_submit_and_wait(&ring_, 1);
      if (error >= 0) error = ::io_uring_peek_cqe(&ring_, &ended);
    } while (error == -EINTR || error == -EAGAIN);
    AIRLLM_CHECK(error == 0);
    const uint64_t slot = ended->user_data;
    const int got = ended->res;
    ::io_uring_cqe_seen(&ring_, ended);
    if (slot == kWakeToken) {
      begin_wake_read();
      return std::nullopt;
    }
    Begun& begun = reads_[slot];
    begun.is_under_way = false;
    --in_flight_;
    return EndedRead{begun.token, finish(begun.read, got)};
  }

  void wake() override {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_fd_.get(), &one, sizeof(one));
  }

 private:
  struct Begun {
    Read read;
    size_t token = 0;
    bool is_under_way = false;
  };

  Status restrict_to_reading() {
    std::array<io_uring_restriction, 4> allowed{};
    allowed[0].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[0].sqe_op = IORING_OP_READ;
    allowed[1].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[1].sqe_op = IORING_OP_READ_FIXED;
    allowed[2].opcode = IORING_RESTRICTION_REGISTER_OP;
    allowed[2].register_op = IORING_REGISTER_BUFFERS;
    allowed[3].opcode = IORING_RESTRICTION_REGISTER_OP;
    allowed[3].register_op = IORING_REGISTER_ENABLE_RINGS;
    const int error = register_at(ring_, IORING_REGISTER_RESTRICTIONS, allowed.data(),
                                  static_cast<unsigned>(allowed.size()));
    if (error < 0) return refused("restricting it to reading", -error);
    return {};
  }

  // There is an entry for each read that may be under way.
  io_uring_sqe* next_entry() {
    io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
    AIRLLM_CHECK(entry != nullptr);
    return entry;
  }

  void begin_wake_read() {
    io_uring_sqe* const entry = next_entry();
    ::io_uring_prep_read(entry, wake_fd_.get(), &wakes_, sizeof(wakes_), 0);
    entry->user_data = kWakeToken;
  }

  size_t free_slot() const {
    for (size_t i = 0; i < reads_.size(); ++i) {
      if (!reads_[i].is_under_way) return i;
    }
    AIRLLM_CHECK(false);
  }

  bool is_registered(std::span<const std::byte> memory) const {
    return !registered_.empty() && memory.data() >= registered_.data() &&
           memory.data() + memory.size() <= registered_.data() + registered_.size();
  }

  // Whatever is not the whole of it, the file's own way to read makes good, or says why it cannot.
  static Status finish(const Read& read, int got) {
    if (got >= 0 && static_cast<size_t>(got) == read.memory.size()) return {};
    return read.file->read_at(read.offset_bytes, read.memory);
  }

  std::vector<Begun> reads_;
  size_t in_flight_ = 0;
  UniqueFd wake_fd_;
  uint64_t wakes_ = 0;
  io_uring ring_{};
  bool has_ring_ = false;
  std::span<std::byte> registered_;
};

}  // namespace

const char* usable_reader(ReaderKind kind) {
  if (kind == ReaderKind::kAuto)
    kind = make_uring_queue(1, {}) ? ReaderKind::kUring : ReaderKind::kThreads;
  return kind == ReaderKind::kUring ? kUringName : kThreadsName;
}

Result<std::unique_ptr<ReadQueue>> make_uring_queue(unsigned depth,
                                                    std::span<std::byte> registered) {
  auto queue = std::make_unique<UringQueue>(depth);
  AIRLLM_TRY_VOID(queue->open(registered));
  return std::unique_ptr<ReadQueue>(std::move(queue));
}

}  // namespace airllm::stream
