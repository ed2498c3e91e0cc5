// How a source gets hold of a target.
#ifndef GODWIT_ENGINE_CONTACT_H_
#define GODWIT_ENGINE_CONTACT_H_

#include <absl/status/statusor.h>

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

// What the loss of a target that has not welcomed us yet may mean, behind `status`; any other
// status is left as it is.
absl::Status ExplainHangUp(absl::Status status);

}  // namespace godwit

#endif  // GODWIT_ENGINE_CONTACT_H_
