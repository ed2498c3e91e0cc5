// What a completion with an error means for the lane.
#ifndef GODWIT_TRANSPORT_VERBS_COMPLETION_STATUS_H_
#define GODWIT_TRANSPORT_VERBS_COMPLETION_STATUS_H_

#include <absl/status/status.h>
#include <infiniband/verbs.h>

#include "transport/lane.h"

namespace godwit {

// "send failed: transport retry counter exceeded (vendor error 0x81): is the peer still there?".
// Unavailable where another lane or another try may work, InvalidArgument for a message over the
// limits, Aborted where the peer's NIC refused, Internal for our own mistakes.
// REQUIRES: completion.status != IBV_WC_SUCCESS
absl::Status CompletionStatus(const ibv_wc& completion, LaneRole role);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_COMPLETION_STATUS_H_
