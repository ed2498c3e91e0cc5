#include "engine/tcp_lane_opener.h"

#include <absl/strings/str_cat.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/errno_status.h"
#include "base/status_macros.h"

namespace godwit {
namespace {

// Between two attempts for a lane, doubling: under 3 s for all of them.
constexpr std::chrono::milliseconds kPauseMin{20};

}  // namespace

absl::Status TcpLaneOpener::Connect() {
  const size_t lane = lanes_.size();
  lanes_.emplace_back();
  const absl::Status opened = Open(lane);
  const bool lost = lanes_[lane].socket.valid() || absl::IsAborted(opened);
  return opened.ok() || (lane == 0 && !lost) ? opened : Lost(lane, opened);
}

absl::Status TcpLaneOpener::Open(size_t lane) {
  Opening& opening = lanes_[lane];
  GODWIT_ASSIGN_OR_RETURN(opening.socket, ConnectTcp(address_, timeout_, cancel_fd_));
  opening.lost = opening.proven = false;
  TuneLaneSocket(opening.socket.get());
  return greeting_.Announce(opening.socket.get(), static_cast<uint16_t>(lane), /*generation=*/0,
                            std::chrono::steady_clock::now() + timeout_);
}

absl::Status TcpLaneOpener::Lost(size_t lane, const absl::Status& why) {
  Opening& opening = lanes_[lane];
  if (absl::IsCancelled(why) || absl::IsInvalidArgument(why)) return why;
  if (++opening.attempts >= kAttempts) return why;
  opening.lost = true;
  opening.due = Clock::Steady().Now() + kPauseMin * (1 << (opening.attempts - 1));
  return absl::OkStatus();
}

void TcpLaneOpener::AddPollFds(std::vector<pollfd>& fds) const {
  for (const Opening& opening : lanes_) {
    if (!opening.lost) fds.push_back({opening.socket.get(), POLLIN, 0});
  }
}

absl::Status TcpLaneOpener::Tend(const std::function<void()>& after_each) {
  for (size_t lane = 0; lane < lanes_.size(); ++lane) {
    const absl::Status tended = TendOne(lane);
    if (!tended.ok()) GODWIT_RETURN_IF_ERROR(Lost(lane, tended));
    after_each();
  }
  return absl::OkStatus();
}

absl::Status TcpLaneOpener::TendOne(size_t lane) {
  Opening& opening = lanes_[lane];
  if (opening.lost) {
    return Clock::Steady().Now() < opening.due ? absl::OkStatus() : Open(lane);
  }
  char byte = 0;
  const ssize_t got = ::recv(opening.socket.get(), &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
    return absl::OkStatus();
  }
  if (got < 0) return ErrnoStatus(errno, absl::StrCat("lane ", lane, " to ", address_.ToString()));
  if (got == 0) {
    return absl::DataLossError(
        absl::StrCat("lane ", lane, ": the target, or something between, ",
                     "closed the connection before it could carry anything"));
  }
  if (!greeting_.proves() || opening.proven) {
    return absl::InvalidArgumentError(
        absl::StrCat("lane ", lane, ": the target says something where it has nothing to say"));
  }
  GODWIT_RETURN_IF_ERROR(greeting_.Prove(opening.socket.get(), static_cast<uint16_t>(lane),
                                         /*generation=*/0,
                                         std::chrono::steady_clock::now() + timeout_, cancel_fd_));
  opening.proven = true;
  return absl::OkStatus();
}

bool TcpLaneOpener::all_connected() const {
  return std::all_of(lanes_.begin(), lanes_.end(),
                     [](const Opening& opening) { return opening.socket.valid(); });
}

std::vector<UniqueFd> TcpLaneOpener::Take() {
  std::vector<UniqueFd> sockets;
  sockets.reserve(lanes_.size());
  for (Opening& opening : lanes_) sockets.push_back(std::move(opening.socket));
  lanes_.clear();
  return sockets;
}

}  // namespace godwit
