#include "engine/session_offer.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "engine/packet.h"
#include "engine/session_base.h"
#include "transport/tls/tls_context.h"

namespace godwit {

absl::Status CheckOffer(const SessionOffer& offer) {
  if (offer.lanes < 1 || offer.lanes > kLanesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(offer.lanes, " lanes, a session has 1 to ", kLanesMax));
  }
  if (offer.packet_bytes < 1 || offer.packet_bytes > kPacketBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("packets of ", offer.packet_bytes,
                                                   " bytes, allowed are 1 to ", kPacketBytesMax));
  }
  return CheckRdma(offer.transport, offer.rdma_device);
}

bool OffersVerbs(const SessionOffer& offer) {
  return offer.transport == TransportKind::kVerbs ||
         (offer.transport == TransportKind::kAuto && HasUsableRdmaPort(offer.rdma_device));
}

control::Hello HelloOf(const SessionOffer& offer, bool verbs, const std::string& session_id,
                       int control_socket) {
  control::Hello hello;
  hello.set_software(SoftwareName());
  hello.set_session_id(session_id);
  hello.set_frame_version(kFrameVersion);
  if (verbs) hello.add_transports(control::TRANSPORT_VERBS);
  if (offer.transport != TransportKind::kVerbs) hello.add_transports(control::TRANSPORT_TCP);
  hello.set_lanes(offer.lanes);
  hello.set_packet_bytes(offer.packet_bytes);
  hello.set_seal(ToProto(offer.seal));
  hello.set_off_loopback(!IsOnLoopback(control_socket));
  return hello;
}

absl::Status CheckWelcome(const control::Hello& hello, const control::Welcome& welcome) {
  if (std::find(hello.transports().begin(), hello.transports().end(), welcome.transport()) ==
      hello.transports().end()) {
    return absl::InvalidArgumentError("the target chose a transport that was not offered");
  }
  if (welcome.window_packets() < kWindowPacketsMin ||
      welcome.window_packets() > kWindowPacketsMax || welcome.queue_packets() < kQueuePacketsMin ||
      welcome.queue_packets() > kQueuePacketsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the target's window of ", welcome.window_packets(), " or queue of ",
                     welcome.queue_packets(), " packets is out of bounds"));
  }
  return absl::OkStatus();
}

control::Welcome WelcomeOf(const TargetBudget& budget, Sealing sealing, TransportKind transport) {
  control::Welcome welcome;
  welcome.set_software(SoftwareName());
  welcome.set_window_packets(budget.window_packets);
  welcome.set_queue_packets(budget.queue_packets);
  welcome.set_sealing(ToProto(sealing));
  welcome.set_transport(transport == TransportKind::kVerbs ? control::TRANSPORT_VERBS
                                                           : control::TRANSPORT_TCP);
  return welcome;
}

}  // namespace godwit
