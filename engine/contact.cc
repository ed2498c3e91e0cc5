#include "engine/contact.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"

namespace godwit {

absl::StatusOr<Contact> ContactTarget(const std::string& to, const TrustOptions& trust,
                                      const TlsContext* tls, std::chrono::milliseconds timeout,
                                      int cancel_fd) {
  GODWIT_ASSIGN_OR_RETURN(const TcpAddress address, ParseTcpAddress(to));
  std::unique_ptr<TlsStream> stream;
  if (tls != nullptr) {
    // (A zone is this host's word for where an address is, and in no certificate.)
    const std::string name =
        trust.peer_name.empty() ? address.host.substr(0, address.host.find('%')) : trust.peer_name;
    GODWIT_ASSIGN_OR_RETURN(stream, tls->NewStream(name));
  }
  GODWIT_ASSIGN_OR_RETURN(UniqueFd socket, ConnectTcp(address, timeout, cancel_fd));
  GODWIT_RETURN_IF_ERROR(Annotate(CheckPlainAllowed(trust, socket.get(), /*peer=*/true),
                                  absl::StrCat("connecting to ", to)));
  Contact contact;
  // Lanes go where the control channel has gone, whatever the name stands for by then.
  const absl::StatusOr<TcpAddress> there = ParseTcpAddress(PeerText(socket.get()));
  contact.lane_address = there.ok() ? *there : address;
  contact.channel = std::make_unique<ControlChannel>(std::move(socket), to,
                                                     /*expect_preface=*/true, std::move(stream));
  // At once: who has said nothing is the first to make room. What fails is said by the next call.
  (void)contact.channel->Flush();
  return contact;
}

bool MayHaveHadNoRoom(const absl::Status& status, const ControlChannel& channel) {
  return absl::IsUnavailable(status) && channel.hung_up() &&
         channel.standing() == ControlChannel::Standing::kSilent;
}

absl::Status ExplainHangUp(absl::Status status) {
  if (!absl::IsUnavailable(status) && !absl::IsDataLoss(status)) return status;
  return absl::Status(
      status.code(),
      absl::StrCat(
          status.message(),
          "; it had not welcomed us: a target in a session takes no other one and no ping, "
          "and says itself whom it has turned away"));
}

}  // namespace godwit
