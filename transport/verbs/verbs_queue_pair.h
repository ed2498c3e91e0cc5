// The verbs objects beneath one lane.
#ifndef GODWIT_TRANSPORT_VERBS_VERBS_QUEUE_PAIR_H_
#define GODWIT_TRANSPORT_VERBS_VERBS_QUEUE_PAIR_H_

#include <absl/status/statusor.h>
#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>

#include "transport/verbs/verbs_device.h"

namespace godwit {

// An RC queue pair, the completion queue of both its directions, and that one's event channel.
// A seam: what is virtual here goes through libibverbs' own tables. Posting, polling and arming
// are not here: they are inline calls through qp()->context->ops, which a fake HCA can fill.
//
// Ownership: owns its objects and destroys them.
// Threads:   one thread.
// Blocking:  Modify() and DestroyQp() are system calls; TakeEvents() never blocks.
// Errors:    errno values; 0 is success.
class VerbsQueuePair {
 public:
  virtual ~VerbsQueuePair() = default;
  VerbsQueuePair(const VerbsQueuePair&) = delete;
  VerbsQueuePair& operator=(const VerbsQueuePair&) = delete;

  ibv_qp* qp() const { return qp_; }
  ibv_cq* cq() const { return cq_; }

  [[nodiscard]] virtual int Modify(ibv_qp_attr& attributes, int mask) = 0;
  // Destroys the queue pair ahead of the rest: from then on the NIC holds no buffer of it.
  virtual void DestroyQp() = 0;
  // Readable when an armed completion queue has something.
  virtual int event_fd() const = 0;
  // Takes and acknowledges every event that is there.
  virtual void TakeEvents() = 0;

 protected:
  VerbsQueuePair() = default;
  ibv_qp* qp_ = nullptr;
  ibv_cq* cq_ = nullptr;
};

// On the real device; in RESET. `sends_max` and `receives_max` bound what may be posted, and the
// completion queue has room for all of it, so that it can't overrun.
absl::StatusOr<std::unique_ptr<VerbsQueuePair>> MakeVerbsQueuePair(const VerbsDevice& device,
                                                                   uint32_t sends_max,
                                                                   uint32_t receives_max);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_VERBS_QUEUE_PAIR_H_
