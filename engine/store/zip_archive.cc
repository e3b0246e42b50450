#include "engine/store/zip_archive.h"

#include <algorithm>

#include "base/check.h"
#include "base/little_endian.h"
#include "base/units.h"
#include "base/utf8.h"

namespace airllm::store {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint32_t kCentralSignature = 0x02014b50;
constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kZip64EndSignature = 0x06064b50;
constexpr uint32_t kZip64LocatorSignature = 0x07064b50;
constexpr uint64_t kLocalBytes = 30;
constexpr uint64_t kCentralBytes = 46;
constexpr uint64_t kEndBytes = 22;
constexpr uint64_t kZip64EndBytes = 56;
constexpr uint64_t kZip64LocatorBytes = 20;
constexpr uint64_t kMaxCommentBytes = 0xffff;
constexpr uint64_t kMaxDirectoryBytes = 64 * kMiB;
constexpr uint16_t kZip64Field = 1;
constexpr uint32_t kInZip64Field = 0xffffffff;

// The number at an offset that the caller has checked.
template <typename Number>
Number number_at(std::string_view bytes, uint64_t at) {
  AIRLLM_CHECK(at + sizeof(Number) <= bytes.size());
  return static_cast<Number>(from_little_endian(bytes.substr(at, sizeof(Number))));
}

class Reader {
 public:
  Reader(const DiskFile& file, uint64_t file_bytes) : file_(file), file_bytes_(file_bytes) {}

  Result<ZipArchive> read() {
    AIRLLM_TRY_VOID(find_directory());
    ZipArchive archive;
    AIRLLM_TRY(archive.directory, read_bytes(file_, directory_offset_, directory_bytes_));
    std::string_view rest = archive.directory;
    while (!rest.empty()) {
      AIRLLM_TRY_VOID(read_entry(rest, archive));
    }
    return archive;
  }

 private:
  Unexpected bad(const std::string& why) const {
    return Unexpected(ErrorCode::kData, file_.path() + ": " + why);
  }

  // The end record is the last thing of the file but for a comment.
  Status find_directory() {
    const uint64_t tail_bytes = std::min(file_bytes_, kEndBytes + kMaxCommentBytes);
    AIRLLM_TRY(const std::string tail, read_bytes(file_, file_bytes_ - tail_bytes, tail_bytes));
    for (uint64_t back = kEndBytes; back <= tail_bytes; ++back) {
      const uint64_t at = tail_bytes - back;
      if (number_at<uint32_t>(tail, at) != kEndSignature) continue;
      if (number_at<uint16_t>(tail, at + 20) != back - kEndBytes) continue;
      directory_bytes_ = number_at<uint32_t>(tail, at + 12);
      directory_offset_ = number_at<uint32_t>(tail, at + 16);
      AIRLLM_TRY_VOID(read_zip64_end(file_bytes_ - back));
      if (directory_bytes_ > kMaxDirectoryBytes) return bad("its table of contents is too long");
      if (directory_offset_ > file_bytes_ || directory_bytes_ > file_bytes_ - directory_offset_) {
        return bad("its table of contents lies outside the file; it may be cut off");
      }
      return {};
    }
    return bad("it is no complete ZIP archive; it may be cut off");
  }

  Status read_zip64_end(uint64_t end_offset) {
    if (end_offset < kZip64LocatorBytes) return {};
    const uint64_t locator_offset = end_offset - kZip64LocatorBytes;
    AIRLLM_TRY(const std::string locator, read_bytes(file_, locator_offset, kZip64LocatorBytes));
    if (number_at<uint32_t>(locator, 0) != kZip64LocatorSignature) return {};
    const auto offset = number_at<uint64_t>(locator, 8);
    if (offset > locator_offset || locator_offset - offset < kZip64EndBytes) {
      return bad("its ZIP64 record lies outside the file");
    }
    AIRLLM_TRY(const std::string end, read_bytes(file_, offset, kZip64EndBytes));
    if (number_at<uint32_t>(end, 0) != kZip64EndSignature) return bad("it has no ZIP64 record");
    directory_bytes_ = number_at<uint64_t>(end, 40);
    directory_offset_ = number_at<uint64_t>(end, 48);
    return {};
  }

  // One entry of the table of contents, which is taken off `rest`.
  Status read_entry(std::string_view& rest, ZipArchive& archive) const {
    if (rest.size() < kCentralBytes || number_at<uint32_t>(rest, 0) != kCentralSignature) {
      return bad("its table of contents is damaged");
    }
    const auto flags = number_at<uint16_t>(rest, 8);
    const auto method = number_at<uint16_t>(rest, 10);
    const auto name_bytes = number_at<uint16_t>(rest, 28);
    const auto extra_bytes = number_at<uint16_t>(rest, 30);
    const auto comment_bytes = number_at<uint16_t>(rest, 32);
    const uint64_t bytes = kCentralBytes + name_bytes + extra_bytes + comment_bytes;
    if (bytes > rest.size()) return bad("its table of contents is damaged");
    const std::string name(rest.substr(kCentralBytes, name_bytes));
    const std::string shown = "'" + escape_for_display(name.substr(0, 120), true) + "'";
    if ((flags & 1) != 0) return bad(shown + " is encrypted");
    if (method != 0) return bad(shown + " is compressed");
    Sizes sizes{number_at<uint32_t>(rest, 24), number_at<uint32_t>(rest, 20),
                number_at<uint32_t>(rest, 42)};
    if (!read_zip64_field(rest.substr(kCentralBytes + name_bytes, extra_bytes), sizes)) {
      return bad("the sizes of " + shown + " are damaged");
    }
    if (sizes.bytes != sizes.stored_bytes) return bad("the sizes of " + shown + " differ");
    AIRLLM_TRY(const uint64_t offset, data_offset(sizes, shown));
    if (!archive.entries.emplace(name, ZipEntry{offset, sizes.bytes}).second) {
      return bad("it has " + shown + " twice");
    }
    rest.remove_prefix(bytes);
    return {};
  }

  struct Sizes {
    uint64_t bytes, stored_bytes, header_offset;
  };

  // Numbers that do not fit 32 bits are in a field of their own, in this order.
  static bool read_zip64_field(std::string_view extra, Sizes& sizes) {
    uint64_t* const numbers[] = {&sizes.bytes, &sizes.stored_bytes, &sizes.header_offset};
    while (extra.size() >= 4) {
      const auto id = number_at<uint16_t>(extra, 0);
      const auto bytes = number_at<uint16_t>(extra, 2);
      if (bytes > extra.size() - 4) return false;
      std::string_view field = extra.substr(4, bytes);
      extra.remove_prefix(size_t{4} + bytes);
      if (id != kZip64Field) continue;
      for (uint64_t* number : numbers) {
        if (*number != kInZip64Field) continue;
        if (field.size() < sizeof(uint64_t)) return false;
        *number = number_at<uint64_t>(field, 0);
        field.remove_prefix(sizeof(uint64_t));
      }
    }
    return true;
  }

  Result<uint64_t> data_offset(const Sizes& sizes, const std::string& shown) const {
    const Unexpected outside = bad(shown + " lies outside the file; it may be cut off");
    if (sizes.header_offset > file_bytes_ || file_bytes_ - sizes.header_offset < kLocalBytes) {
      return outside;
    }
    AIRLLM_TRY(const std::string header, read_bytes(file_, sizes.header_offset, kLocalBytes));
    if (number_at<uint32_t>(header, 0) != kLocalSignature) {
      return bad(shown + " is not where the table of contents says");
    }
    const uint64_t offset = sizes.header_offset + kLocalBytes + number_at<uint16_t>(header, 26) +
                            number_at<uint16_t>(header, 28);
    if (offset > file_bytes_ || sizes.bytes > file_bytes_ - offset) return outside;
    return offset;
  }

  const DiskFile& file_;
  uint64_t file_bytes_;
  uint64_t directory_offset_ = 0;
  uint64_t directory_bytes_ = 0;
};

}  // namespace

const ZipEntry* ZipArchive::find(std::string_view name) const {
  const auto at = entries.find(name);
  return at == entries.end() ? nullptr : &at->second;
}

Result<bool> is_zip_archive(const DiskFile& file) {
  AIRLLM_TRY(const uint64_t bytes, file.size_bytes());
  if (bytes < sizeof(uint32_t)) return false;
  AIRLLM_TRY(const std::string begin, read_bytes(file, 0, sizeof(uint32_t)));
  return number_at<uint32_t>(begin, 0) == kLocalSignature;
}

Result<ZipArchive> read_zip_archive(const DiskFile& file) {
  AIRLLM_TRY(const uint64_t bytes, file.size_bytes());
  if (bytes < kEndBytes) {
    return Unexpected(ErrorCode::kData, file.path() + ": it is too short for a ZIP archive");
  }
  return Reader(file, bytes).read();
}

}  // namespace airllm::store
