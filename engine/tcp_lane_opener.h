// A source's TCP lanes until its worker has them.
#ifndef GODWIT_ENGINE_TCP_LANE_OPENER_H_
#define GODWIT_ENGINE_TCP_LANE_OPENER_H_

#include <absl/status/status.h>
#include <poll.h>

#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

#include "godwit/unique_fd.h"
#include "transport/lane_proof.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {

// Connects lanes of generation 0, says whose they are, and proves it when the target asks, which is
// not before its devices are in RESUMING. A connection that is lost until then is made anew: once
// the worker has the lanes it is LaneMaker that does so.
//
// Ownership: owns the sockets until Take().
// Threads:   single-threaded.
// Blocking:  Connect() and Tend() for `timeout` at most each time that they connect or write, or
//            until `cancel_fd` is readable.
// Errors:    a lane's that was lost kAttempts times; the first connection's at once: there is
//            nobody, or a firewall.
class TcpLaneOpener {
 public:
  static constexpr int kAttempts = 8;

  TcpLaneOpener(TcpAddress address, LaneGreeting greeting, std::chrono::milliseconds timeout,
                int cancel_fd)
      : address_(std::move(address)),
        greeting_(std::move(greeting)),
        timeout_(timeout),
        cancel_fd_(cancel_fd) {}

  // The next lane.
  absl::Status Connect();
  // Something has come for Tend(), or a lane was lost, when one of these is ready.
  void AddPollFds(std::vector<pollfd>& fds) const;
  // Never waits for what has not begun to come.
  absl::Status Tend();
  std::vector<UniqueFd> Take();

 private:
  struct Opening {
    UniqueFd socket;
    bool proven = false;
    int attempts = 0;
  };

  absl::Status Announce(size_t lane);
  absl::Status TendOne(size_t lane);

  const TcpAddress address_;
  const LaneGreeting greeting_;
  const std::chrono::milliseconds timeout_;
  const int cancel_fd_;
  std::vector<Opening> lanes_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_TCP_LANE_OPENER_H_
