#include "engine/target_limits.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <string>
#include <vector>

#include "engine/packet.h"
#include "engine/session_base.h"

namespace godwit {

absl::Status CheckTargetLimits(const TargetOptions& options) {
  if (options.lanes_max < 1 || options.lanes_max > kLanesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("at most ", options.lanes_max, " lanes, a session has 1 to ", kLanesMax));
  }
  if (options.packet_bytes_max < 1 || options.packet_bytes_max > kPacketBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("packets of at most ", options.packet_bytes_max,
                                                   " bytes, allowed are 1 to ", kPacketBytesMax));
  }
  return absl::OkStatus();
}

absl::Status CheckAskedFor(const control::Hello& hello, const TargetOptions& options) {
  if (hello.frame_version() != kFrameVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the source's frames are of version ", hello.frame_version(), ", this side knows ",
        kFrameVersion, ": install the same Godwit on both hosts"));
  }
  if (hello.lanes() < 1 || hello.lanes() > kLanesMax || hello.packet_bytes() < 1 ||
      hello.packet_bytes() > kPacketBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the source asks for ", hello.lanes(), " lanes and packets of ", hello.packet_bytes(),
        " bytes: allowed are 1 to ", kLanesMax, " and 1 to ", kPacketBytesMax));
  }
  if (hello.lanes() > options.lanes_max) {
    return absl::FailedPreconditionError(
        absl::StrCat("the source asks for ", hello.lanes(), " lanes, the target takes at most ",
                     options.lanes_max, ": lower --lanes at the source or raise it at the target"));
  }
  if (hello.packet_bytes() > options.packet_bytes_max) {
    return absl::FailedPreconditionError(
        absl::StrCat("the source asks for packets of ", hello.packet_bytes(),
                     " bytes, the target takes at most ", options.packet_bytes_max,
                     ": lower --packet-bytes at the source or raise it at the target"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TransportKind> ChooseTransport(const control::Hello& hello,
                                              const TargetOptions& options) {
  const bool verbs_here =
      options.transport == TransportKind::kVerbs ||
      (options.transport == TransportKind::kAuto && HasUsableRdmaPort(options.rdma_device));
  const bool tcp_here = options.transport != TransportKind::kVerbs;
  for (const int offered : hello.transports()) {
    if (offered == control::TRANSPORT_VERBS && verbs_here) return TransportKind::kVerbs;
    if (offered == control::TRANSPORT_TCP && tcp_here) return TransportKind::kTcp;
  }
  return NoCommonTransport(hello, options.transport);
}

absl::Status NoCommonTransport(const control::Hello& hello, TransportKind accepted) {
  std::vector<absl::string_view> offered;
  for (const int transport : hello.transports()) {
    if (transport == control::TRANSPORT_TCP) offered.emplace_back("tcp");
    if (transport == control::TRANSPORT_VERBS) offered.emplace_back("verbs");
  }
  if (offered.empty()) {
    return absl::FailedPreconditionError(
        "the source offers no transport that the target knows: it knows tcp and verbs");
  }
  if (accepted == TransportKind::kAuto) {
    return absl::FailedPreconditionError(
        "the source wants to use RDMA and the target has no RDMA port that is up: see "
        "`godwit devices` there, or use --transport tcp at the source");
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the source offers transport ", absl::StrJoin(offered, " and "), ", the target takes only ",
      TransportName(accepted), ": change --transport at the source or at the target"));
}

}  // namespace godwit
