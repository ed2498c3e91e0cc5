// What a source asks of a target, in a session or in a ping: docs/wire-format.md, section 4, steps
// 1 and 2.
#ifndef GODWIT_ENGINE_SESSION_OFFER_H_
#define GODWIT_ENGINE_SESSION_OFFER_H_

#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/buffer_budget.h"
#include "godwit/session.h"
#include "transport/control.pb.h"

namespace godwit {

struct SessionOffer {
  TransportKind transport = TransportKind::kAuto;
  std::string rdma_device;
  uint32_t lanes = 0;
  size_t packet_bytes = 0;
  SealMode seal = SealMode::kAuto;
};

// InvalidArgument where the format has no such session; errors of CheckRdma().
absl::Status CheckOffer(const SessionOffer& offer);

// Whether queue pairs are among what it offers: they were asked for, or this host can.
bool OffersVerbs(const SessionOffer& offer);

// `control_socket` tells whether the session leaves this host.
control::Hello HelloOf(const SessionOffer& offer, bool verbs, const std::string& session_id,
                       int control_socket);

// Whether the target took what was offered, within the format's bounds.
absl::Status CheckWelcome(const control::Hello& hello, const control::Welcome& welcome);

// The target's answer.
control::Welcome WelcomeOf(const TargetBudget& budget, Sealing sealing, TransportKind transport);

}  // namespace godwit

#endif  // GODWIT_ENGINE_SESSION_OFFER_H_
