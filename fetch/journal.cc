#include "fetch/journal.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <string_view>

#include "base/check.h"
#include "base/little_endian.h"
#include "fetch/disk_error.h"

namespace airllm::fetch {
namespace {

constexpr std::string_view kMagic = "AIRLFTCH";
constexpr uint64_t kVersion = 1;
constexpr uint64_t kPage = 4096;
constexpr size_t kChecksum = 8;

// Where things are.
constexpr uint64_t kHeaderAt = 0;
constexpr uint64_t kLanesAt = kPage;
constexpr size_t kLaneBytes = 16;
constexpr uint64_t kLiveAt = 2 * kPage;
constexpr uint64_t kDurableAt = 4 * kPage;
constexpr uint64_t kBlocksAt = 6 * kPage;
constexpr size_t kCheckpointBytes = 8 + 8 + 32 + kHashBlock + kChecksum;
static_assert(kLanes * kLaneBytes <= kPage && kCheckpointBytes <= kPage);

// Writes numbers one behind the other.
class Packer {
 public:
  explicit Packer(std::span<std::byte> out) : out_(out) {}
  void number(uint64_t value, size_t bytes = 8) {
    for (size_t i = 0; i < bytes; ++i) out_[at_++] = static_cast<std::byte>(value >> (8 * i));
  }
  template <typename Range>
  void bytes(const Range& range) {
    for (const auto byte : range) out_[at_++] = static_cast<std::byte>(byte);
  }
  // Of all that came before.
  void checksum();

 private:
  std::span<std::byte> out_;
  size_t at_ = 0;
};

uint64_t number_at(std::span<const std::byte> bytes, size_t at, size_t count = 8) {
  return from_little_endian({reinterpret_cast<const char*>(bytes.data()) + at, count});
}

// Against tearing, not against forgers: who can write the journal can write the data.
uint64_t checksum_of(std::span<const std::byte> bytes) {
  std::array<std::byte, EVP_MAX_MD_SIZE> digest{};
  AIRLLM_CHECK(EVP_Digest(bytes.data(), bytes.size(),
                          reinterpret_cast<unsigned char*>(digest.data()), nullptr, EVP_sha256(),
                          nullptr) == 1);
  return number_at(digest, 0);
}

void Packer::checksum() { number(checksum_of(out_.first(at_))); }

bool is_checked(std::span<const std::byte> bytes) {
  const size_t content = bytes.size() - kChecksum;
  return number_at(bytes, content) == checksum_of(bytes.first(content));
}

Unexpected failed(const char* what, int reason) {
  return Unexpected(disk_error(std::string("the journal of the download: cannot ") + what, reason));
}

uint64_t file_bytes(const JournalSubject& subject) {
  return kBlocksAt + (blocks_of(subject.size_bytes) + 7) / 8;
}

}  // namespace

BootId current_boot_id() {
  BootId id{};
  const UniqueFd file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  std::array<char, 36> text{};
  if (file.valid() && ::read(file.get(), text.data(), text.size()) == ssize_t{text.size()}) {
    // Two digits to a byte, without the dashes.
    size_t digits = 0;
    for (const char c : text) {
      if (c == '-' || digits == 2 * id.size()) continue;
      const unsigned digit = c <= '9' ? static_cast<unsigned>(c - '0') : (c - 'a' + 10U) & 15U;
      id[digits / 2] |= static_cast<std::byte>(digit << (digits % 2 == 0 ? 4U : 0U));
      ++digits;
    }
    return id;
  }
  std::random_device random;
  for (std::byte& byte : id) byte = static_cast<std::byte>(random());
  return id;
}

Journal::Journal(UniqueFd fd, const JournalSubject& subject, const BootId& boot)
    : fd_(std::move(fd)),
      subject_(subject),
      boot_(boot),
      live_{kLiveAt, 0, {}},
      durable_{kDurableAt, 0, {}} {}

Journal::Journal(Journal&& other) noexcept
    : fd_(std::move(other.fd_)),
      subject_(std::move(other.subject_)),
      boot_(other.boot_),
      content_(std::move(other.content_)),
      received_before_(other.received_before_),
      live_{kLiveAt, other.live_.sequence, {}},
      durable_{kDurableAt, other.durable_.sequence, {}} {}

Result<Journal> Journal::open(UniqueFd fd, const JournalSubject& subject, const BootId& boot) {
  AIRLLM_CHECK(subject.size_bytes <= kMaxFileBytes);
  Journal journal(std::move(fd), subject, boot);
  AIRLLM_TRY_VOID(journal.load());
  return journal;
}

// magic, version, block size, size of the file, inode of the data, kind and digest of the hash,
// checksum; and, since it alone changes, the boot's id behind it.
std::array<std::byte, 128> Journal::header() const {
  std::array<std::byte, 128> bytes{};
  Packer out(bytes);
  out.bytes(kMagic);
  out.number(kVersion, 4);
  out.number(kBlockBytes, 4);
  out.number(subject_.size_bytes);
  out.number(subject_.data_inode);
  out.number(static_cast<uint64_t>(subject_.kind), 4);
  out.bytes(subject_.digest);  // at most 64 digits
  return bytes;
}

namespace {

constexpr size_t kBootAt = 128;
constexpr size_t kHeaderBytes = kBootAt + sizeof(BootId) + kChecksum;

std::array<std::byte, kHeaderBytes> with_boot(std::span<const std::byte> header,
                                              const BootId& boot) {
  std::array<std::byte, kHeaderBytes> bytes{};
  Packer out(bytes);
  out.bytes(header);
  out.bytes(boot);
  out.checksum();
  return bytes;
}

}  // namespace

Status Journal::load() {
  struct stat info {};
  if (::fstat(fd_.get(), &info) != 0) return failed("read it", errno);
  std::vector<std::byte> file(file_bytes(subject_));
  const bool has_length = static_cast<uint64_t>(info.st_size) == file.size();
  content_.blocks.assign(file.size() - kBlocksAt, 0);
  if (!has_length) {
    if (info.st_size > 0) content_.fresh_because = "it is about another file";
    return begin(std::nullopt);
  }
  for (size_t at = 0; at < file.size();) {
    const ssize_t got =
        ::pread(fd_.get(), file.data() + at, file.size() - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return failed("read it", got < 0 ? errno : EIO);
    at += static_cast<size_t>(got);
  }
  const std::span<const std::byte> all(file);
  const auto wanted = header();
  const auto head = all.first(kHeaderBytes);
  if (!std::equal(wanted.begin(), wanted.end(), head.begin()) || !is_checked(head)) {
    content_.fresh_because = "it is about another file, or damaged";
    return begin(std::nullopt);
  }
  for (size_t lane = 0; lane < kLanes; ++lane) {
    const size_t at = kLanesAt + lane * kLaneBytes;
    const uint64_t tail = number_at(all, at);
    const Lane state{tail >> 32U, static_cast<uint32_t>(tail)};
    // What fits no file is left out.
    if (state.block < blocks_of(subject_.size_bytes) && state.bytes < kBlockBytes) {
      content_.lanes[lane] = state;
    }
    received_before_[lane] = std::min(number_at(all, at + 8), UINT64_MAX / (2 * kLanes));
    content_.received += received_before_[lane];
  }
  const std::optional<Checkpoint> live = read_pair(live_, all);
  const std::optional<Checkpoint> durable = read_pair(durable_, all);
  const BootId& boot = boot_;
  if (!std::equal(boot.begin(), boot.end(), head.begin() + kBootAt)) {
    content_.fresh_because = "the machine stopped meanwhile: what was not synced is not trusted";
    content_.lanes = {};
    content_.checkpoint = durable;
    return begin(durable);
  }
  content_.checkpoint = live;
  if (durable && (!live || live->prefix < durable->prefix)) content_.checkpoint = durable;
  for (size_t i = 0; i < content_.blocks.size(); ++i) {
    content_.blocks[i] = static_cast<uint8_t>(all[kBlocksAt + i]);
  }
  return {};
}

std::optional<Checkpoint> Journal::read_pair(Pair& pair, std::span<const std::byte> file) const {
  std::optional<Checkpoint> best;
  for (uint64_t half = 0; half < 2; ++half) {
    const auto bytes = file.subspan(pair.offset + half * kPage, kCheckpointBytes);
    const uint64_t sequence = number_at(bytes, 0);
    Checkpoint found;
    found.prefix = number_at(bytes, 8);
    if (sequence == 0 || !is_checked(bytes) || found.prefix > subject_.size_bytes) continue;
    for (size_t i = 0; i < found.hash.words.size(); ++i) {
      found.hash.words[i] = static_cast<uint32_t>(number_at(bytes, 16 + 4 * i, 4));
    }
    for (size_t i = 0; i < kHashBlock; ++i) {
      found.hash.partial[i] = static_cast<uint8_t>(bytes[48 + i]);
    }
    if (sequence > pair.sequence) {
      pair.sequence = sequence;
      best = found;
    }
  }
  return best;
}

// Makes it one of this boot that holds no more than `checkpoint`. The header comes last: until it
// is there, the journal is still the old one, and this is done again.
Status Journal::begin(const std::optional<Checkpoint>& checkpoint) {
  const uint64_t bytes = file_bytes(subject_);
  const auto resize = [&](uint64_t size) {
    return ::ftruncate(fd_.get(), static_cast<off_t>(size)) == 0;
  };
  if (!checkpoint && !(resize(0) && resize(bytes))) return failed("set its size", errno);
  content_.blocks.assign(bytes - kBlocksAt, 0);
  if (checkpoint) AIRLLM_TRY_VOID(write(kBlocksAt, std::as_bytes(std::span(content_.blocks))));
  // Room for all of it now, so that a full disk is noticed before anything is fetched.
  const int reason = ::posix_fallocate(fd_.get(), 0, static_cast<off_t>(bytes));
  if (reason != 0 && reason != EOPNOTSUPP && reason != EINVAL) return failed("make room", reason);
  for (size_t lane = 0; lane < kLanes; ++lane) AIRLLM_TRY_VOID(save_lane(lane, {}, 0));
  const std::array<std::byte, 2 * kPage> nothing{};
  AIRLLM_TRY_VOID(write(kLiveAt, nothing));
  live_.sequence = 0;
  if (!checkpoint) {
    AIRLLM_TRY_VOID(write(kDurableAt, nothing));
    durable_.sequence = 0;
  }
  AIRLLM_TRY_VOID(sync());
  return write(kHeaderAt, with_boot(header(), boot_));
}

Status Journal::save_blocks(uint64_t first, uint64_t last, std::span<const uint8_t> blocks) {
  const uint64_t begin = first / 8;
  return write(kBlocksAt + begin, std::as_bytes(blocks.subspan(begin, (last + 7) / 8 - begin)));
}

Status Journal::save_lane(size_t lane, const Lane& state, uint64_t received) {
  std::array<std::byte, kLaneBytes> bytes{};
  Packer out(bytes);
  out.number(state.block << 32U | state.bytes);
  out.number(received_before_[lane] + received);
  return write(kLanesAt + lane * kLaneBytes, bytes);
}

Status Journal::save(Pair& pair, const Checkpoint& checkpoint) {
  const std::lock_guard lock(pair.mutex);
  ++pair.sequence;
  std::array<std::byte, kCheckpointBytes> bytes{};
  Packer out(bytes);
  out.number(pair.sequence);
  out.number(checkpoint.prefix);
  for (const uint32_t word : checkpoint.hash.words) out.number(word, 4);
  out.bytes(checkpoint.hash.partial);
  out.checksum();
  return write(pair.offset + pair.sequence % 2 * kPage, bytes);
}

Status Journal::save_live(const Checkpoint& checkpoint) { return save(live_, checkpoint); }

Status Journal::save_durable(const Checkpoint& checkpoint) {
  AIRLLM_TRY_VOID(save(durable_, checkpoint));
  return sync();
}

Status Journal::reset() { return begin(std::nullopt); }

Status Journal::write(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return failed("write it", put < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<size_t>(put));
    offset += static_cast<uint64_t>(put);
  }
  return {};
}

Status Journal::sync() {
  if (::fdatasync(fd_.get()) != 0) return failed("sync it", errno);
  return {};
}

}  // namespace airllm::fetch
