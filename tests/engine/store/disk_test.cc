#include "engine/store/disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/units.h"
#include "tests/engine/store/tiny_checkpoint.h"

namespace airllm::store {
namespace {

std::unique_ptr<DiskFile> open(const std::string& path, OpenMode mode) {
  Result<std::unique_ptr<DiskFile>> file = system_disk().open(path, mode);
  EXPECT_TRUE(file.has_value()) << file.error().message;
  return file ? std::move(*file) : nullptr;
}

TEST(SystemDisk, ReadBeyondTheEndIsTruncated) {
  const TemporaryFolder folder;
  write_file(folder / "x", "0123456789");
  const auto file = open(folder / "x", OpenMode::kRead);
  std::string text(4, ' ');
  EXPECT_TRUE(file->read_at(6, std::as_writable_bytes(std::span(text))).has_value());
  EXPECT_EQ(text, "6789");
  const Status status = file->read_at(7, std::as_writable_bytes(std::span(text)));
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kData);
  for (const std::string& part : {folder / "x", std::string("truncated"), std::string("byte 10")}) {
    EXPECT_NE(status.error().message.find(part), std::string::npos) << status.error().message;
  }
}

TEST(SystemDisk, DirectReadMayEndAtTheEndOfTheFile) {
  const TemporaryFolder folder;
  std::string text(2 * kPageBytes + 10, 'a');
  text.back() = 'z';
  write_file(folder / "x", text);
  const auto file = open(folder / "x", OpenMode::kReadDirect);
  if (!file->is_direct()) GTEST_SKIP() << "no O_DIRECT on the file system of " << folder.path();
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kPageBytes, 4 * kPageBytes));
  EXPECT_TRUE(file->read_at(kPageBytes, {memory, 2 * kPageBytes}).has_value());
  EXPECT_EQ(static_cast<char>(memory[kPageBytes + 9]), 'z');
  const Status status = file->read_at(kPageBytes, {memory, 3 * kPageBytes});
  ASSERT_FALSE(status.has_value()) << "a whole page more than the file has";
  EXPECT_EQ(status.error().code, ErrorCode::kData);
  std::free(memory);
}

std::string numbered(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 2654435761U >> 13);
  return text;
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Whether the page cache has the file or not.
TEST(SystemDisk, ReadsMuchFromAnyPlace) {
  const TemporaryFolder folder;
  const std::string text = numbered(3 * kMiB + 1234);
  write_file(folder / "x", text);
  for (Disk* const disk : {&system_disk(), &buffered_disk()}) {
    Result<std::unique_ptr<DiskFile>> file = disk->open(folder / "x", OpenMode::kRead);
    ASSERT_TRUE(file.has_value());
    for (const bool is_dropped : {false, true}) {
      IoBuffer buffer;
      for (const auto& [offset, bytes] :
           std::vector<std::pair<uint64_t, uint64_t>>{{0, text.size()},
                                                      {kPageBytes, kMiB},
                                                      {1, kMiB},
                                                      {4095, 2 * kMiB + 2},
                                                      {4097, text.size() - 4097},
                                                      {5000, 10},
                                                      {text.size() - 300 * kKiB, 300 * kKiB}}) {
        SCOPED_TRACE(std::to_string(offset) + " " + std::to_string(bytes));
        if (is_dropped) {
          ::fsync((*file)->descriptor());
          ::posix_fadvise((*file)->descriptor(), 0, 0, POSIX_FADV_DONTNEED);
        }
        const Result<std::span<std::byte>> read = (*file)->read_bulk(offset, bytes, buffer);
        ASSERT_TRUE(read.has_value()) << read.error().message;
        EXPECT_TRUE(text_of(*read) == text.substr(offset, bytes));
      }
    }
    EXPECT_EQ(::fcntl((*file)->descriptor(), F_GETFL) & O_DIRECT, 0);
  }
}

TEST(SystemDisk, ReadingMuchBeyondTheEndIsTruncated) {
  const TemporaryFolder folder;
  write_file(folder / "x", numbered(kMiB + 10));
  const auto file = open(folder / "x", OpenMode::kRead);
  ::fsync(file->descriptor());
  ::posix_fadvise(file->descriptor(), 0, 0, POSIX_FADV_DONTNEED);
  IoBuffer buffer;
  for (const uint64_t more : {uint64_t{1}, kPageBytes, kMiB}) {
    const Result<std::span<std::byte>> read = file->read_bulk(kPageBytes, kMiB + more, buffer);
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code, ErrorCode::kData);
    EXPECT_NE(read.error().message.find("byte 1048586"), std::string::npos) << read.error().message;
  }
}

TEST(SystemDisk, WritesWholePagesAndWhatIsLeft) {
  const TemporaryFolder folder;
  const std::string text = numbered(3 * kPageBytes + 77);
  IoBuffer buffer;
  ASSERT_TRUE(buffer.reserve(text.size()).has_value());
  std::copy_n(std::as_bytes(std::span(text)).begin(), text.size(), buffer.memory().begin());
  const auto file = open(folder / "x", OpenMode::kCreateDirect);
  const std::span<const std::byte> data = buffer.memory().first(text.size());
  EXPECT_TRUE(file->write_at(0, data.first(2 * kPageBytes)).has_value());
  EXPECT_TRUE(file->write_at(2 * kPageBytes, data.subspan(2 * kPageBytes)).has_value());
  EXPECT_TRUE(file->sync().has_value());
  EXPECT_TRUE(text_of(data) == text);
  std::string read(text.size(), ' ');
  const auto again = open(folder / "x", OpenMode::kRead);
  EXPECT_TRUE(again->read_at(0, std::as_writable_bytes(std::span(read))).has_value());
  EXPECT_TRUE(read == text);
  EXPECT_EQ(again->size_bytes().value(), text.size());
}

TEST(SystemDisk, AdoptsRegularFilesOnly) {
  const TemporaryFolder folder;
  write_file(folder / "x", "text");
  auto file = system_disk().adopt(UniqueFd(::open((folder / "x").c_str(), O_RDONLY | O_CLOEXEC)),
                                  "LABEL", OpenMode::kRead);
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ((*file)->path(), "LABEL");
  EXPECT_EQ(*read_text(**file, 10), "text");
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const UniqueFd writer(pipe[1]);
  const int others[] = {pipe[0], ::open("/dev/zero", O_RDONLY | O_CLOEXEC),
                        ::open(folder.path().c_str(), O_RDONLY | O_CLOEXEC)};
  for (const int fd : others) {
    const auto refused = system_disk().adopt(UniqueFd(fd), "LABEL", OpenMode::kRead);
    ASSERT_FALSE(refused.has_value());
    EXPECT_NE(refused.error().message.find("LABEL: not a regular file"), std::string::npos);
  }
}

TEST(SystemDisk, IdentityChangesWithTheContent) {
  const TemporaryFolder folder;
  write_file(folder / "x", "text");
  const auto file = open(folder / "x", OpenMode::kRead);
  const std::string first = *file->identity();
  EXPECT_EQ(*file->identity(), first);
  std::filesystem::last_write_time(
      folder / "x", std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_NE(*file->identity(), first);
}

TEST(SystemDisk, ReadTextHasALimit) {
  const TemporaryFolder folder;
  write_file(folder / "x", std::string(11, 'x'));
  const auto file = open(folder / "x", OpenMode::kRead);
  EXPECT_TRUE(read_text(*file, 11).has_value());
  const Result<std::string> refused = read_text(*file, 10);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kData);
}

TEST(SystemDisk, RemoveTreeFollowsNoLinks) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "tree/inner");
  std::filesystem::create_directories(folder / "kept");
  write_file(folder / "kept/file", "x");
  std::filesystem::create_directory_symlink(folder / "kept", folder / "tree/inner/link");
  const auto entries = system_disk().list(folder / "tree/inner");
  ASSERT_EQ(entries->size(), 1U);
  EXPECT_FALSE(entries->front().is_directory);
  EXPECT_TRUE(system_disk().remove_tree(folder / "tree").has_value());
  EXPECT_FALSE(system_disk().exists(folder / "tree"));
  EXPECT_TRUE(system_disk().exists(folder / "kept/file"));
  EXPECT_TRUE(system_disk().remove_tree(folder / "tree").has_value());
}

TEST(SystemDisk, WritesTextAtomically) {
  const TemporaryFolder folder;
  ASSERT_TRUE(write_text_atomically(system_disk(), folder / "x", "one").has_value());
  ASSERT_TRUE(write_text_atomically(system_disk(), folder / "x", "two").has_value());
  EXPECT_EQ(read_file(folder / "x"), "two");
  EXPECT_EQ(system_disk().list(folder.path())->size(), 1U);
  const Status failed = write_text_atomically(system_disk(), folder / "no/x", "text");
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kNoInput);
}

TEST(SystemDisk, OpensRegularFilesOnly) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  for (const std::string& path : {folder / "pipe", folder.path(), std::string("/dev/full")}) {
    for (const OpenMode mode : {OpenMode::kRead, OpenMode::kReadDirect}) {
      const auto file = system_disk().open(path, mode);
      ASSERT_FALSE(file.has_value()) << path;
      EXPECT_NE(file.error().message.find(path), std::string::npos) << file.error().message;
    }
  }
}

}  // namespace
}  // namespace airllm::store
