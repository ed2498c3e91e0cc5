// What an RDMA device says of its own accord.
#ifndef GODWIT_TRANSPORT_VERBS_VERBS_EVENT_H_
#define GODWIT_TRANSPORT_VERBS_VERBS_EVENT_H_

#include <infiniband/verbs.h>

#include <cstdint>
#include <string>

namespace godwit {

struct VerbsEvent {
  enum class Kind {
    kQueuePairDead,  // or its completion queue
    kPortDown,
    kPortUp,
    kAddressChanged,  // the port's GIDs, LID or subnet manager
    kDeviceDead,
    kOther,  // of no consequence to a session
  };
  Kind kind = Kind::kOther;
  uint32_t queue_pair_number = 0;  // of kQueuePairDead
  uint32_t port = 0;               // of kPortDown, kPortUp, kAddressChanged
  std::string text;                // "port error", as libibverbs names it
};

VerbsEvent::Kind KindOfVerbsEvent(ibv_event_type type);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_VERBS_EVENT_H_
