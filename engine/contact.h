// How a source gets hold of a target.
#ifndef GODWIT_ENGINE_CONTACT_H_
#define GODWIT_ENGINE_CONTACT_H_

#include <absl/status/statusor.h>

#include <array>
#include <chrono>
#include <memory>
#include <string>

#include "godwit/trust.h"
#include "transport/control_channel.h"
#include "transport/tcp/tcp_socket.h"
#include "transport/tls/tls_context.h"

namespace godwit {

struct Contact {
  std::unique_ptr<ControlChannel> channel;
  TcpAddress lane_address;  // the channel's, in numbers
};

// Connects to `to` ("ADDR:PORT"); inside `tls` unless that is null, with a peer of the name that is
// expected. Errors as ParseTcpAddress(), ConnectTcp() and CheckPlainAllowed().
absl::StatusOr<Contact> ContactTarget(const std::string& to, const TrustOptions& trust,
                                      const TlsContext* tls, std::chrono::milliseconds timeout,
                                      int cancel_fd = -1);

// Whether `status` may be of a target that had no place for us among strangers, and is worth
// another try: it hung up on `channel` before its first byte.
bool MayHaveHadNoRoom(const absl::Status& status, const ControlChannel& channel);
// Waits before each further try. In all far longer than a flood of strangers takes for as many
// connections as a target keeps, and less than a person notices where it is no flood.
inline constexpr std::array<std::chrono::milliseconds, 5> kNoRoomWaits = {
    std::chrono::milliseconds(5), std::chrono::milliseconds(10), std::chrono::milliseconds(20),
    std::chrono::milliseconds(40), std::chrono::milliseconds(80)};
inline constexpr std::chrono::milliseconds kNoRoomConnectTimeout{500};

// What the loss of a target that has not welcomed us yet may mean, behind `status`; any other
// status is left as it is.
absl::Status ExplainHangUp(absl::Status status);

}  // namespace godwit

#endif  // GODWIT_ENGINE_CONTACT_H_
