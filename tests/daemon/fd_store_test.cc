#include "daemon/fd_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/check.h"
#include "tests/daemon/temporary_dir.h"

namespace airllm::daemon {
namespace {

// A service manager's end of NOTIFY_SOCKET.
class Manager {
 public:
  Manager() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    const std::string path = dir_ / "notify";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    AIRLLM_CHECK(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) ==
                 0);
    ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  ~Manager() { ::unsetenv("NOTIFY_SOCKET"); }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  struct Message {
    std::string text;
    UniqueFd fd;
  };
  // Nothing when none has come.
  std::optional<Message> receive() {
    std::array<char, 1024> text{};
    alignas(cmsghdr) std::array<char, 256> control{};
    iovec part{text.data(), text.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t length = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    if (length < 0) return std::nullopt;
    Message out{std::string(text.data(), static_cast<size_t>(length)), UniqueFd()};
    for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at)) {
      if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(at), sizeof(fd));
      out.fd.reset(fd);
    }
    return out;
  }

 private:
  TemporaryDir dir_;
  UniqueFd socket_;
};

ino_t file_of(int fd) {
  struct stat info {};
  EXPECT_EQ(::fstat(fd, &info), 0);
  return info.st_ino;
}

TEST(FdStore, HandsTheManagerADuplicateAndTakesItBackByName) {
  Manager manager;
  FdStore store({});
  const UniqueFd memory(::memfd_create("test", MFD_CLOEXEC));
  store.keep("airllm-weights-0123", memory.get());
  auto kept = manager.receive();
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->text, "FDSTORE=1\nFDPOLL=0\nFDNAME=airllm-weights-0123");
  ASSERT_TRUE(kept->fd.valid());
  EXPECT_EQ(file_of(kept->fd.get()), file_of(memory.get()));
  store.forget("airllm-weights-0123");
  auto forgotten = manager.receive();
  ASSERT_TRUE(forgotten);
  EXPECT_EQ(forgotten->text, "FDSTOREREMOVE=1\nFDNAME=airllm-weights-0123");
  EXPECT_FALSE(forgotten->fd.valid());
}

TEST(FdStore, ANameCanForgeNoMessage) {
  Manager manager;
  FdStore store({});
  for (const std::string& name :
       {std::string(), std::string("a\nMAINPID=1"), std::string("a:b"), std::string("a b"),
        std::string("\xc3\xa4"), std::string(256, 'x'), std::string("a\0b", 3)}) {
    store.keep(name, 0);
    store.forget(name);
    EXPECT_FALSE(manager.receive()) << name;
  }
}

TEST(FdStore, WithoutAManagerNothingHappens) {
  ::unsetenv("NOTIFY_SOCKET");
  FdStore store({});
  store.keep("airllm-weights-0123", 0);
  store.forget("airllm-weights-0123");
  EXPECT_TRUE(store.take().empty());
}

TEST(FdStore, GivesWhatWasPassedOnce) {
  std::vector<engine::MemoryStore::Entry> held;
  held.push_back({"a", UniqueFd(::memfd_create("test", MFD_CLOEXEC))});
  FdStore store(std::move(held));
  EXPECT_EQ(store.take().size(), 1U);
  EXPECT_TRUE(store.take().empty());
}

}  // namespace
}  // namespace airllm::daemon
