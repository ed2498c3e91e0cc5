// A source's TCP lanes until its worker has them.
#ifndef GODWIT_ENGINE_TCP_LANE_OPENER_H_
#define GODWIT_ENGINE_TCP_LANE_OPENER_H_

#include <absl/status/status.h>
#include <poll.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "godwit/unique_fd.h"
#include "transport/lane_proof.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {

// Connects lanes of generation 0, says whose they are, and proves it when the target asks, which is
// not before its devices are in RESUMING. A connection that is lost until then is made anew, after
// a pause that doubles: once the worker has the lanes it is LaneMaker that does so.
//
// Ownership: owns the sockets until Take().
// Threads:   single-threaded.
// Blocking:  for each lane up to `timeout` to connect and as long to write, or until `cancel_fd` is
//            readable.
// Errors:    a lane's that was lost kAttempts times; of the first lane at once if it does not
//            connect: there is nobody, or a firewall.
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
  // Answers what has begun to come, and makes lost lanes anew when they are due; calls
  // `after_each` after each lane.
  absl::Status Tend(const std::function<void()>& after_each);
  // Each has been connected once: without that no target can have it.
  bool all_connected() const;
  // Of a lane that has just been lost the socket is dead, as its owner will find: the target had
  // it. REQUIRES: all_connected()
  std::vector<UniqueFd> Take();

 private:
  struct Opening {
    UniqueFd socket;  // once there was one; of a lost lane it is dead
    bool lost = false;
    bool proven = false;
    int attempts = 0;
    Clock::Duration due{0};  // of a lost lane's next attempt
  };

  absl::Status Open(size_t lane);
  absl::Status TendOne(size_t lane);
  // Tries again later. `why`, where that has been done often enough, or does not help.
  absl::Status Lost(size_t lane, const absl::Status& why);

  const TcpAddress address_;
  const LaneGreeting greeting_;
  const std::chrono::milliseconds timeout_;
  const int cancel_fd_;
  std::vector<Opening> lanes_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_TCP_LANE_OPENER_H_
