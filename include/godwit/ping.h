// Whether devices could move to a target, found out without moving one.
#ifndef GODWIT_PING_H_
#define GODWIT_PING_H_

#include <absl/status/statusor.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "godwit/session.h"
#include "godwit/trust.h"

namespace godwit {

inline constexpr std::chrono::seconds kPingTimeMax{10};

// As SourceOptions' of the same names.
struct PingOptions {
  std::string to;
  TrustOptions trust;
  TransportKind transport = TransportKind::kAuto;
  std::string rdma_device;
  uint32_t lanes = 4;
  uint64_t packet_bytes = uint64_t{1} << 20;
  std::chrono::milliseconds time{1000};  // how long packets flow; up to kPingTimeMax
  std::chrono::milliseconds connect_timeout{5000};
};

struct PingReport {
  struct Device {
    std::string name;
    std::string kind;
  };
  std::string peer;           // what was connected to
  std::string peer_software;  // "godwit 0.1.0"
  TrustKind trust = TrustKind::kPlain;
  Sealing sealing = Sealing::kOff;  // what a session would have; these packets are not sealed
  TransportKind transport = TransportKind::kTcp;  // kTcp or kVerbs
  std::string why_not_rdma;                       // where it is kTcp
  std::vector<Device> devices;                    // that the target waits with
  std::vector<std::string> lanes;                 // "verbs rxe0/1 qp 0x11"
  uint32_t mtu_bytes = 0;                         // of the RDMA path; 0 over TCP
  std::chrono::nanoseconds round_trip{0};         // between the control threads; a median
  uint64_t bytes = 0;                             // that have come there, of payload
  std::chrono::nanoseconds time{0};  // from the first one's sending to the last receipt
};

// To a target that waits for its source; it goes on waiting. Asks for all that a session asks for,
// up to its lanes, and then fills these with packets of zeros for a while. Uses 4 packets a lane.
//
// Threads:   any; makes one more.
// Blocking:  for connect_timeout, time and 13 s at most; looking up a name may take longer.
// Errors:    as SourceSession's until the devices would be touched. Aborted: the target gives its
//            reason. Unavailable or DeadlineExceeded: it is there, but hangs up or does not
//            answer, as a target does whose session has begun.
absl::StatusOr<PingReport> Ping(const PingOptions& options);

}  // namespace godwit

#endif  // GODWIT_PING_H_
