// Stream sockets for lanes and for the control channel: addresses, connecting, accepting.
#ifndef GODWIT_TRANSPORT_TCP_TCP_SOCKET_H_
#define GODWIT_TRANSPORT_TCP_TCP_SOCKET_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/types/span.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "godwit/unique_fd.h"

namespace godwit {

using Deadline = std::chrono::steady_clock::time_point;

// The two halves of "ADDR:PORT": "10.0.0.2:7471", "[fe80::1%eth0]:7471", "target.example:7471".
struct TcpAddress {
  std::string host;  // without brackets
  uint16_t port = 0;

  std::string ToString() const;  // as it was written
};

// InvalidArgument names the text and the forms that are understood.
absl::StatusOr<TcpAddress> ParseTcpAddress(absl::string_view text);

// A non-blocking listening socket on `address`. Port 0: the kernel chooses one, see LocalPort.
absl::StatusOr<UniqueFd> ListenTcp(const TcpAddress& address);
absl::StatusOr<uint16_t> LocalPort(int socket);

// Connects to the first of the host's addresses that answers; each gets an equal share of what is
// left of `timeout`. Looking up a name may block for longer. The socket is in blocking mode.
// Unavailable: nobody listens there (yet), or no name server answers. DeadlineExceeded: no answer.
// Aborted: it was reset as soon as it stood. NotFound: no such host. Cancelled: `cancel_fd`, where
// there is one, has become readable.
absl::StatusOr<UniqueFd> ConnectTcp(const TcpAddress& address, std::chrono::milliseconds timeout,
                                    int cancel_fd = -1);

// The next connection, in blocking mode. DeadlineExceeded if there is none by `deadline`; one in
// the past asks without waiting.
absl::StatusOr<UniqueFd> AcceptTcp(int listener, Deadline deadline);

// "10.0.0.2:7471", or "a local socket" where there is no such address: for names and messages.
std::string PeerText(int socket);

// Makes a connected socket fit for a lane: blocking mode (io_uring then waits by itself), no
// delay; and between two addresses of this host a congestion control that is quick there, and
// little that waits in the sockets. Their buffers' sizes are left to the kernel, which chooses them
// better. Never fails: at worst the lane is slower.
void TuneLaneSocket(int socket);

// Reads or writes all of `bytes` by `deadline`, whatever the socket's mode. DeadlineExceeded and
// DataLoss (the peer closed) say how many bytes of how many were through; Cancelled: `cancel_fd`,
// where there is one, has become readable; else Unavailable.
absl::Status ReadExactly(int socket, absl::Span<std::byte> bytes, Deadline deadline,
                         int cancel_fd = -1);
absl::Status WriteAll(int socket, absl::Span<const std::byte> bytes, Deadline deadline);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_TCP_TCP_SOCKET_H_
