#include "engine/ping_control.h"

#include <absl/strings/str_cat.h>
#include <poll.h>

#include <utility>

#include "base/status_macros.h"
#include "engine/session_base.h"

namespace godwit {
namespace {

constexpr int kTickMs = 20;

}  // namespace

void SleepOn(const ControlChannel& channel, const std::vector<int>& fds) {
  const int writable = channel.wants_write() ? POLLOUT : 0;
  std::vector<pollfd> ready = {{channel.fd(), static_cast<short>(POLLIN | writable), 0}};
  for (const int fd : fds) ready.push_back({fd, POLLIN, 0});
  const int wait_ms = channel.probe_due() ? static_cast<int>(kProbeInterval.count()) : kTickMs;
  ::poll(ready.data(), ready.size(), wait_ms);
}

absl::StatusOr<std::optional<control::ControlMessage>> NextMessage(ControlChannel& channel) {
  GODWIT_RETURN_IF_ERROR(channel.Tick());
  auto message = channel.Receive();
  if (message.ok() && message->has_value() && (*message)->has_abort()) {
    return absl::AbortedError(
        absl::StrCat("peer ", channel.peer(), ": ", Printable((*message)->abort().reason())));
  }
  return message;
}

absl::StatusOr<control::ControlMessage> AwaitMessage(ControlChannel& channel,
                                                     control::ControlMessage::MessageCase wanted,
                                                     const char* name, Clock::Duration deadline,
                                                     int stop_fd) {
  while (Clock::Steady().Now() < deadline) {
    GODWIT_ASSIGN_OR_RETURN(std::optional<control::ControlMessage> message, NextMessage(channel));
    if (message.has_value()) {
      if (message->message_case() == wanted) return *std::move(message);
      return absl::InvalidArgumentError(
          absl::StrCat("waiting for ", name, ": the peer sent control message ",
                       static_cast<int>(message->message_case()), " out of turn"));
    }
    pollfd stop = {stop_fd, POLLIN, 0};  // poll(2) passes over a negative one
    if (::poll(&stop, 1, 0) > 0) return absl::CancelledError("stopped");
    SleepOn(channel, {stop_fd});
  }
  return absl::DeadlineExceededError(absl::StrCat("peer ", channel.peer(), " is there, but ", name,
                                                  " did not come: is it in a session?"));
}

}  // namespace godwit
