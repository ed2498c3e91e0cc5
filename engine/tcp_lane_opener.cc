#include "engine/tcp_lane_opener.h"

#include <absl/strings/str_cat.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/errno_status.h"
#include "base/status_macros.h"

namespace godwit {

absl::Status TcpLaneOpener::Connect() {
  lanes_.emplace_back();
  return Announce(lanes_.size() - 1);
}

absl::Status TcpLaneOpener::Announce(size_t lane) {
  Opening& opening = lanes_[lane];
  opening.proven = false;
  while (true) {
    GODWIT_ASSIGN_OR_RETURN(opening.socket, ConnectTcp(address_, timeout_, cancel_fd_));
    TuneLaneSocket(opening.socket.get());
    absl::Status said =
        greeting_.Announce(opening.socket.get(), static_cast<uint16_t>(lane), /*generation=*/0,
                           std::chrono::steady_clock::now() + timeout_);
    if (said.ok() || ++opening.attempts >= kAttempts) return said;
  }
}

void TcpLaneOpener::AddPollFds(std::vector<pollfd>& fds) const {
  for (const Opening& opening : lanes_) fds.push_back({opening.socket.get(), POLLIN, 0});
}

absl::Status TcpLaneOpener::Tend() {
  for (size_t lane = 0; lane < lanes_.size(); ++lane) {
    absl::Status tended = TendOne(lane);
    if (tended.ok()) continue;
    if (absl::IsCancelled(tended) || ++lanes_[lane].attempts >= kAttempts) return tended;
    GODWIT_RETURN_IF_ERROR(Announce(lane));
  }
  return absl::OkStatus();
}

absl::Status TcpLaneOpener::TendOne(size_t lane) {
  Opening& opening = lanes_[lane];
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

std::vector<UniqueFd> TcpLaneOpener::Take() {
  std::vector<UniqueFd> sockets;
  sockets.reserve(lanes_.size());
  for (Opening& opening : lanes_) sockets.push_back(std::move(opening.socket));
  lanes_.clear();
  return sockets;
}

}  // namespace godwit
