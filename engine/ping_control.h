// The control channel's part of a ping, on both sides.
#ifndef GODWIT_ENGINE_PING_CONTROL_H_
#define GODWIT_ENGINE_PING_CONTROL_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <optional>
#include <vector>

#include "base/clock.h"
#include "transport/control.pb.h"
#include "transport/control_channel.h"

namespace godwit {

// Sleeps until the channel or one of `fds` has something, or a moment has passed.
void SleepOn(const ControlChannel& channel, const std::vector<int>& fds);

// The next message, if there is one. Aborted: it was Abort, with the peer's reason.
absl::StatusOr<std::optional<control::ControlMessage>> NextMessage(ControlChannel& channel);

// The next message, which has to be that one: InvalidArgument if not. DeadlineExceeded.
// Cancelled: `stop_fd`, where there is one, has become readable.
absl::StatusOr<control::ControlMessage> AwaitMessage(ControlChannel& channel,
                                                     control::ControlMessage::MessageCase wanted,
                                                     const char* name, Clock::Duration deadline,
                                                     int stop_fd = -1);

}  // namespace godwit

#endif  // GODWIT_ENGINE_PING_CONTROL_H_
