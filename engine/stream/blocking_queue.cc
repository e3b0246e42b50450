#include "base/check.h"
#include "engine/stream/read_queue.h"

namespace airllm::stream {
namespace {

class BlockingQueue : public ReadQueue {
 public:
  size_t room() const override { return begun_ ? 0 : 1; }

  void begin(const Read& read, size_t token) override {
    AIRLLM_CHECK(!begun_);
    begun_ = Begun{read, token};
  }

  std::optional<EndedRead> wait() override {
    AIRLLM_CHECK(begun_);
    const Begun begun = *begun_;
    EndedRead ended{begun.token, {}};
    ended.status = begun.read.file->read_at(begun.read.offset_bytes, begun.read.memory);
    begun_.reset();
    return ended;
  }

  void wake() override {}  // no wait() is longer than a read

 private:
  struct Begun {
    Read read;
    size_t token;
  };
  std::optional<Begun> begun_;
};

}  // namespace

std::unique_ptr<ReadQueue> make_blocking_queue() { return std::make_unique<BlockingQueue>(); }

}  // namespace airllm::stream
