#include "transport/tcp/tcp_socket.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <memory>

#include "base/errno_status.h"
#include "base/processors.h"
#include "base/status_macros.h"

namespace godwit {
namespace {

using std::chrono::steady_clock;

// Connections that wait to be accepted: a session's lanes all arrive at once, and with them may
// come strangers. Where it is full a lane's connect(2) is tried again only after a second.
constexpr int kBacklog = 4096;

struct FreeAddrInfo {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using AddrInfoList = std::unique_ptr<addrinfo, FreeAddrInfo>;

absl::StatusOr<AddrInfoList> Resolve(const TcpAddress& address, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error =
      ::getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &list);
  if (error == 0) return AddrInfoList(list);
  // EAI_AGAIN: no name server answers, which says nothing about the host.
  const auto code =
      error == EAI_AGAIN ? absl::StatusCode::kUnavailable : absl::StatusCode::kNotFound;
  return absl::Status(
      code, absl::StrCat("no address for host \"", address.host,
                         "\": ", error == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(error),
                         "; is the name right, and does this host know a name server?"));
}

absl::Status BadAddress(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is not an address: ", why,
                   "; wanted is ADDR:PORT, like 10.0.0.2:7471, [::1]:7471 or a host's name:7471"));
}

// Waits for `events`; false once `deadline` has passed. A deadline in the past looks once.
bool IsReadable(int fd) {
  pollfd readable = {fd, POLLIN, 0};
  return ::poll(&readable, 1, 0) > 0;
}

// False after `deadline`, or once `cancel_fd` (-1: none) is readable.
absl::StatusOr<bool> PollUntil(int fd, short events, Deadline deadline, int cancel_fd = -1) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
    const auto timeout_ms = std::clamp<std::chrono::milliseconds::rep>(
        left.count(), 0, std::numeric_limits<int>::max());
    std::array<pollfd, 2> wanted = {{{fd, events, 0}, {cancel_fd, POLLIN, 0}}};
    const int ready = ::poll(wanted.data(), wanted.size(), static_cast<int>(timeout_ms));
    if (ready > 0) return wanted[0].revents != 0;
    if (ready == 0 && timeout_ms == 0) return false;
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, "poll");
  }
}

absl::Status SetBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
    return ErrnoStatus(errno, "fcntl");
  }
  return absl::OkStatus();
}

// 0, or the errno of the attempt; ETIMEDOUT after `deadline`, ECANCELED once `cancel_fd` (-1: none)
// is readable.
int ConnectOne(int fd, const addrinfo& to, Deadline deadline, int cancel_fd) {
  if (::connect(fd, to.ai_addr, to.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  const absl::StatusOr<bool> connected = PollUntil(fd, POLLOUT, deadline, cancel_fd);
  if (!connected.ok()) return EIO;
  if (!*connected) return cancel_fd >= 0 && IsReadable(cancel_fd) ? ECANCELED : ETIMEDOUT;
  int error = 0;
  socklen_t length = sizeof(error);
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

absl::Status ConnectFailed(const TcpAddress& address, int error) {
  const std::string what =
      absl::StrCat("can't connect to ", address.ToString(), ": ", std::strerror(error));
  if (error == ETIMEDOUT) {
    return absl::DeadlineExceededError(
        absl::StrCat(what, "; is the address right, and does every firewall let it through?"));
  }
  if (error == ECONNREFUSED) {
    return absl::UnavailableError(absl::StrCat(what, "; is `godwit receive` running there?"));
  }
  if (error == ECONNRESET) return absl::AbortedError(what);  // somebody was there
  return absl::UnavailableError(what);
}

bool SameHost(const sockaddr_storage& a, const sockaddr_storage& b) {
  if (a.ss_family != b.ss_family) return false;
  if (a.ss_family == AF_INET) {
    const uint32_t first = reinterpret_cast<const sockaddr_in&>(a).sin_addr.s_addr;
    const uint32_t second = reinterpret_cast<const sockaddr_in&>(b).sin_addr.s_addr;
    return first == second || (ntohl(first) >> 24 == 127 && ntohl(second) >> 24 == 127);
  }
  if (a.ss_family == AF_INET6) {  // ::1 is the only loopback address there
    return std::memcmp(&reinterpret_cast<const sockaddr_in6&>(a).sin6_addr,
                       &reinterpret_cast<const sockaddr_in6&>(b).sin6_addr, sizeof(in6_addr)) == 0;
  }
  return false;
}

absl::Status Unfinished(absl::StatusCode code, absl::string_view why, size_t done_bytes,
                        size_t bytes) {
  return absl::Status(code, absl::StrCat(why, " after ", done_bytes, " of ", bytes, " bytes"));
}

// What ReadExactly and WriteAll share: `move(done)` is recv or send of what is left.
template <typename Move>
absl::Status MoveAll(int socket, size_t bytes, short events, Deadline deadline, int cancel_fd,
                     Move move) {
  size_t done_bytes = 0;
  while (done_bytes < bytes) {
    const ssize_t moved = move(done_bytes);
    if (moved > 0) {
      done_bytes += static_cast<size_t>(moved);
    } else if (moved == 0) {
      return Unfinished(absl::StatusCode::kDataLoss, "the peer closed the connection", done_bytes,
                        bytes);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      GODWIT_ASSIGN_OR_RETURN(const bool ready, PollUntil(socket, events, deadline, cancel_fd));
      if (!ready) {
        if (cancel_fd >= 0 && IsReadable(cancel_fd)) return absl::CancelledError("cancelled");
        return Unfinished(absl::StatusCode::kDeadlineExceeded, "the peer was silent for too long",
                          done_bytes, bytes);
      }
    } else if (errno != EINTR) {
      return Unfinished(absl::StatusCode::kUnavailable, std::strerror(errno), done_bytes, bytes);
    }
  }
  return absl::OkStatus();
}

// What waits in a socket's queues has left the near caches when it is received: on loopback, which
// has no delay to fill, as little as possible. Paced at whatever rate the window allows (1.2
// windows a round trip, tcp_update_pacing_rate() of Linux) a sender does not put out a whole window
// at once; and it sleeps while a MiB has not been sent.
void KeepSocketsShort(int socket) {
  constexpr uint64_t kAnyRate = uint64_t{1} << 62;  // bytes a second; all ones: not paced
  static_cast<void>(
      ::setsockopt(socket, SOL_SOCKET, SO_MAX_PACING_RATE, &kAnyRate, sizeof(kAnyRate)));
  constexpr int kUnsentBytesMax = 1 << 20;
  static_cast<void>(::setsockopt(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kUnsentBytesMax,
                                 sizeof(kUnsentBytesMax)));
}

}  // namespace

std::string TcpAddress::ToString() const {
  const bool brackets = host.find(':') != std::string::npos;
  return absl::StrCat(brackets ? "[" : "", host, brackets ? "]:" : ":", port);
}

absl::StatusOr<TcpAddress> ParseTcpAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return BadAddress(text, "it has no port");
  absl::string_view host = text.substr(0, colon);
  const absl::string_view port_text = text.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find_first_of("[]:") != absl::string_view::npos) {
    return BadAddress(text, "an IPv6 address stands in brackets");
  }
  if (host.empty()) return BadAddress(text, "it has no host");
  uint32_t port = 0;
  const bool digits = port_text.find_first_not_of("0123456789") == absl::string_view::npos;
  if (!digits || !absl::SimpleAtoi(port_text, &port) || port > 65535) {
    return BadAddress(text, "the port is not a number from 0 to 65535");
  }
  return TcpAddress{std::string(host), static_cast<uint16_t>(port)};
}

absl::StatusOr<UniqueFd> ListenTcp(const TcpAddress& address) {
  GODWIT_ASSIGN_OR_RETURN(const AddrInfoList list, Resolve(address, AI_PASSIVE));
  int error = 0;
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next) {
    UniqueFd fd(::socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (fd.valid() && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        ::bind(fd.get(), at->ai_addr, at->ai_addrlen) == 0 && ::listen(fd.get(), kBacklog) == 0) {
      return fd;
    }
    error = errno;
  }
  const absl::Status failed =
      ErrnoStatus(error, absl::StrCat("can't listen on ", address.ToString()));
  const absl::string_view advice =
      error == EADDRINUSE      ? "; choose another port, or 0 for a free one"
      : error == EADDRNOTAVAIL ? "; give an address of this host, or 0.0.0.0 for all of them"
      : error == EACCES        ? "; choose a port from 1024 up"
                               : "";
  return absl::Status(failed.code(), absl::StrCat(failed.message(), advice));
}

absl::StatusOr<uint16_t> LocalPort(int socket) {
  sockaddr_storage local{};
  socklen_t length = sizeof(local);
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&local), &length) != 0) {
    return ErrnoStatus(errno, "getsockname");
  }
  if (local.ss_family == AF_INET) return ntohs(reinterpret_cast<sockaddr_in&>(local).sin_port);
  if (local.ss_family == AF_INET6) return ntohs(reinterpret_cast<sockaddr_in6&>(local).sin6_port);
  return absl::InvalidArgumentError("not a TCP socket");
}

absl::StatusOr<UniqueFd> ConnectTcp(const TcpAddress& address, std::chrono::milliseconds timeout,
                                    int cancel_fd) {
  if (address.port == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("can't connect to ", address.ToString(), ": port 0 is for listening only"));
  }
  GODWIT_ASSIGN_OR_RETURN(const AddrInfoList list, Resolve(address, 0));
  int addresses_left = 0;
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next) ++addresses_left;
  const Deadline deadline = steady_clock::now() + timeout;
  int error = 0;
  for (const addrinfo* at = list.get(); at != nullptr; at = at->ai_next, --addresses_left) {
    UniqueFd fd(::socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) {
      error = errno;
      continue;
    }
    const auto now = steady_clock::now();
    error = ConnectOne(fd.get(), *at, now + (deadline - now) / addresses_left, cancel_fd);
    if (error == ECANCELED) return absl::CancelledError("cancelled");
    if (error != 0) continue;
    GODWIT_RETURN_IF_ERROR(SetBlocking(fd.get()));
    return fd;
  }
  return ConnectFailed(address, error);
}

absl::StatusOr<UniqueFd> AcceptTcp(int listener, Deadline deadline) {
  while (true) {
    UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (fd.valid()) return fd;
    // accept(2): errors of a connection that died while it waited are as good as none.
    const bool none = errno == EAGAIN || errno == EWOULDBLOCK;
    const bool died = errno == ECONNABORTED || errno == EPROTO || errno == EINTR;
    if (!none && !died) return ErrnoStatus(errno, "accept");
    GODWIT_ASSIGN_OR_RETURN(const bool ready, PollUntil(listener, POLLIN, deadline));
    if (!ready) return absl::DeadlineExceededError("nobody connected in time");
  }
}

std::string PeerText(int socket) {
  sockaddr_storage peer{};
  socklen_t length = sizeof(peer);
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &length) != 0 ||
      (peer.ss_family != AF_INET && peer.ss_family != AF_INET6) ||
      ::getnameinfo(reinterpret_cast<sockaddr*>(&peer), length, host, sizeof(host), port,
                    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "a local socket";
  }
  return absl::StrCat(peer.ss_family == AF_INET6 ? "[" : "", host,
                      peer.ss_family == AF_INET6 ? "]:" : ":", port);
}

void TuneLaneSocket(int socket) {
  static_cast<void>(SetBlocking(socket));
  sockaddr_storage local{};
  sockaddr_storage peer{};
  socklen_t local_length = sizeof(local);
  socklen_t peer_length = sizeof(peer);
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&local), &local_length) != 0 ||
      ::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &peer_length) != 0 ||
      (local.ss_family != AF_INET && local.ss_family != AF_INET6)) {
    return;
  }
  const int on = 1;
  static_cast<void>(::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
  if (!SameHost(local, peer)) return;
  // On one processor what waits lets one end go on before the other has to.
  if (ProcessorsToRunOn() > 1) KeepSocketsShort(socket);
  // One that paces by what it has measured, like bbr, makes loopback slow.
  for (const absl::string_view name : {"cubic", "reno"}) {
    if (::setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, name.data(),
                     static_cast<socklen_t>(name.size())) == 0) {
      return;
    }
  }
}

absl::Status ReadExactly(int socket, absl::Span<std::byte> bytes, Deadline deadline,
                         int cancel_fd) {
  return MoveAll(socket, bytes.size(), POLLIN, deadline, cancel_fd, [&](size_t done_bytes) {
    return ::recv(socket, bytes.data() + done_bytes, bytes.size() - done_bytes, MSG_DONTWAIT);
  });
}

absl::Status WriteAll(int socket, absl::Span<const std::byte> bytes, Deadline deadline) {
  return MoveAll(socket, bytes.size(), POLLOUT, deadline, -1, [&](size_t done_bytes) {
    return ::send(socket, bytes.data() + done_bytes, bytes.size() - done_bytes,
                  MSG_DONTWAIT | MSG_NOSIGNAL);
  });
}

}  // namespace godwit
