// What the tests' networks have in common: a proxy between a source and a target on this host.
#ifndef GODWIT_TESTS_TOOLS_PROXY_H_
#define GODWIT_TESTS_TOOLS_PROXY_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string_view>
#include <thread>

namespace godwit::proxy {

inline sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

inline bool SendAll(int to, const char* bytes, size_t count) {
  while (count > 0) {
    const ssize_t sent = ::send(to, bytes, count, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    count -= static_cast<size_t>(sent);
  }
  return true;
}

// Until one end closes; then the other hears of it. `before_sending` gets what has come, may change
// it, and takes its time.
template <typename BeforeSending>
void Carry(int from, int to, BeforeSending before_sending) {
  std::array<char, 65536> bytes;
  while (true) {
    const ssize_t got = ::recv(from, bytes.data(), bytes.size(), 0);
    if (got <= 0) break;
    before_sending(bytes.data(), static_cast<size_t>(got));
    if (!SendAll(to, bytes.data(), static_cast<size_t>(got))) break;
  }
  ::shutdown(from, SHUT_RDWR);
  ::shutdown(to, SHUT_RDWR);
}

// The number of the lane that a connection begins as, once it has said that much; none: it is no
// lane. A preface is "GODWITLN", session id, generation, number (2 bytes each, big-endian).
inline std::optional<size_t> LaneNumber(int source) {
  constexpr std::string_view kLanePreface = "GODWITLN";
  constexpr size_t kPrefaceBytes = 28;
  constexpr size_t kNumberAt = 26;
  std::array<char, kPrefaceBytes> first;
  if (::recv(source, first.data(), first.size(), MSG_PEEK | MSG_WAITALL) !=
          static_cast<ssize_t>(first.size()) ||
      std::string_view(first.data(), kLanePreface.size()) != kLanePreface) {
    return std::nullopt;
  }
  return static_cast<size_t>(static_cast<unsigned char>(first[kNumberAt])) << 8 |
         static_cast<unsigned char>(first[kNumberAt + 1]);
}

// Connects a source that has come to `port`, carries back what is said there, and has `forth` carry
// what the source says: it gets both sockets.
template <typename Forth>
void Connect(int source, uint16_t port, int socket_bytes, Forth forth) {
  const int target = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_bytes > 0) {
    ::setsockopt(target, SOL_SOCKET, SO_SNDBUF, &socket_bytes, sizeof(socket_bytes));
  }
  const sockaddr_in address = Loopback(port);
  if (::connect(target, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    // What the target says at the begin must not wait for what `forth` wants to see of the source.
    std::thread back([target, source] { Carry(target, source, [](char*, size_t) {}); });
    forth(source, target);
    back.join();
  }
  ::close(source);
  ::close(target);
}

// Listens on a free port of 127.0.0.1, prints it, and connects everyone who comes to `port` of the
// same host, each on a thread of its own. `socket_bytes`: what the path holds at either end; 0: as
// the kernel likes. Returns the exit code where it can't go on.
template <typename Forth>
int Run(const char* name, uint16_t port, int socket_bytes, Forth forth) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_bytes > 0) {
    // Connections inherit it.
    ::setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &socket_bytes, sizeof(socket_bytes));
  }
  sockaddr_in address = Loopback(0);
  socklen_t length = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener, any, length) != 0 || ::listen(listener, 64) != 0 ||
      ::getsockname(listener, any, &length) != 0) {
    std::perror(name);
    return 1;
  }
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  while (true) {
    const int source = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (source < 0) return 1;
    std::thread([=] { Connect(source, port, socket_bytes, forth); }).detach();
  }
}

}  // namespace godwit::proxy

#endif  // GODWIT_TESTS_TOOLS_PROXY_H_
