// Descriptors that misbehave as drivers do, without a driver.
#ifndef GODWIT_TESTS_ENGINE_BYTE_SOURCES_H_
#define GODWIT_TESTS_ENGINE_BYTE_SOURCES_H_

#include <absl/strings/string_view.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "godwit/unique_fd.h"

namespace godwit {

struct FdPair {
  UniqueFd read;
  UniqueFd write;
};

inline FdPair MakePipe(int flags = 0) {
  int fds[2] = {-1, -1};
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC | flags), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

inline FdPair MakeSocketPair(int type) {
  int fds[2] = {-1, -1};
  EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// All of it or, once the reader has gone, as much as it took.
inline void WriteOut(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    const ssize_t done =
        written < 0 && errno == ENOTSOCK ? ::write(fd, bytes.data(), bytes.size()) : written;
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && (errno == EPIPE || errno == ECONNRESET)) return;
    ASSERT_GT(done, 0) << "errno " << errno;
    bytes.remove_prefix(static_cast<size_t>(done));
  }
}

inline std::string ReadUntilEnd(int fd) {
  std::string all;
  char bytes[4096];
  while (true) {
    const ssize_t got = ::read(fd, bytes, sizeof(bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return all;
    all.append(bytes, static_cast<size_t>(got));
  }
}

// A stream that gives `before`, then fails with ECONNRESET once, and then ends: a reader that asks
// again after the error is told that all is well.
inline UniqueFd FailsAfter(absl::string_view before) {
  FdPair pair = MakeSocketPair(SOCK_STREAM);
  EXPECT_EQ(::send(pair.read.get(), "x", 1, 0), 1);  // unread when the far end closes: a reset
  WriteOut(pair.write.get(), before);
  return std::move(pair.read);
}

// The next read or write of `near` fails with ECONNREFUSED, those after it work: what `far` writes
// arrives, and what is written arrives at `far`.
struct FailsOnce {
  UniqueFd near;
  UniqueFd far;
};
inline FailsOnce MakeFailsOnce() {
  sockaddr_in addresses[2] = {};
  UniqueFd sockets[2];
  for (int i = 0; i < 2; ++i) {
    sockets[i].Reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    addresses[i].sin_family = AF_INET;
    addresses[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const address = reinterpret_cast<sockaddr*>(&addresses[i]);
    socklen_t bytes = sizeof(addresses[i]);
    EXPECT_EQ(::bind(sockets[i].get(), address, bytes), 0);
    EXPECT_EQ(::getsockname(sockets[i].get(), address, &bytes), 0);
  }
  const auto connect = [&](int socket, int to) {
    EXPECT_EQ(::connect(socket, reinterpret_cast<sockaddr*>(&addresses[to]), sizeof(sockaddr_in)),
              0);
  };
  connect(sockets[0].get(), 1);
  sockets[1].Reset();  // nobody there: the answer to this is an error
  EXPECT_EQ(::send(sockets[0].get(), "x", 1, 0), 1);
  pollfd failed = {sockets[0].get(), POLLIN, 0};
  EXPECT_EQ(::poll(&failed, 1, 10'000), 1);
  sockets[1].Reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(
      ::bind(sockets[1].get(), reinterpret_cast<sockaddr*>(&addresses[1]), sizeof(sockaddr_in)), 0);
  connect(sockets[1].get(), 0);
  return {std::move(sockets[0]), std::move(sockets[1])};
}

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_BYTE_SOURCES_H_
