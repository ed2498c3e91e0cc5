#include "transport/verbs/verbs_queue_pair.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>

#include <cerrno>

#include "base/check.h"
#include "base/errno_status.h"
#include "base/status_macros.h"

namespace godwit {
namespace {

class RealQueuePair final : public VerbsQueuePair {
 public:
  ~RealQueuePair() override;

  absl::Status Create(const VerbsDevice& device, uint32_t sends_max, uint32_t receives_max);

  int Modify(ibv_qp_attr& attributes, int mask) override {
    return ibv_modify_qp(qp_, &attributes, mask);
  }
  void DestroyQp() override;
  int event_fd() const override { return channel_->fd; }
  void TakeEvents() override;

 private:
  ibv_comp_channel* channel_ = nullptr;
};

absl::Status RealQueuePair::Create(const VerbsDevice& device, uint32_t sends_max,
                                   uint32_t receives_max) {
  const uint32_t entries = sends_max + receives_max;
  const RdmaDeviceInfo& info = device.info();
  if (sends_max > info.queue_entries_max || receives_max > info.queue_entries_max ||
      entries > info.completion_entries_max) {
    return absl::InvalidArgumentError(absl::StrCat("RDMA device ", device.name(), " can't queue ",
                                                   entries, " packets a lane; its limit is ",
                                                   info.queue_entries_max));
  }
  channel_ = ibv_create_comp_channel(device.context());
  if (channel_ == nullptr) {
    return ErrnoStatus(errno, absl::StrCat("can't make a completion channel on ", device.name()));
  }
  const int flags = ::fcntl(channel_->fd, F_GETFL);
  if (flags < 0 || ::fcntl(channel_->fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "can't make a completion channel non-blocking");
  }
  cq_ = ibv_create_cq(device.context(), static_cast<int>(entries), nullptr, channel_, 0);
  if (cq_ == nullptr) {
    return ErrnoStatus(
        errno, absl::StrCat("can't make a completion queue of ", entries, " on ", device.name()));
  }
  ibv_qp_init_attr attributes{};
  attributes.send_cq = cq_;
  attributes.recv_cq = cq_;
  attributes.cap.max_send_wr = sends_max;
  attributes.cap.max_recv_wr = receives_max;
  attributes.cap.max_send_sge = 1;
  attributes.cap.max_recv_sge = 1;
  attributes.qp_type = IBV_QPT_RC;
  attributes.sq_sig_all = 0;
  qp_ = ibv_create_qp(device.protection_domain(), &attributes);
  if (qp_ == nullptr) {
    return ErrnoStatus(errno, absl::StrCat("can't make a queue pair for ", entries, " packets on ",
                                           device.name()));
  }
  // So that an event of the completion queue names the lane.
  cq_->cq_context = reinterpret_cast<void*>(uintptr_t{qp_->qp_num});
  return absl::OkStatus();
}

void RealQueuePair::DestroyQp() {
  if (qp_ == nullptr) return;
  const int error = ibv_destroy_qp(qp_);
  // EIO: the device itself has been taken away, and has let go of everything.
  GODWIT_CHECK(error == 0 || error == EIO);
  qp_ = nullptr;
}

void RealQueuePair::TakeEvents() {
  unsigned taken = 0;
  ibv_cq* cq = nullptr;
  void* context = nullptr;
  while (ibv_get_cq_event(channel_, &cq, &context) == 0) ++taken;
  if (taken > 0) ibv_ack_cq_events(cq_, taken);
}

RealQueuePair::~RealQueuePair() {
  DestroyQp();
  if (cq_ != nullptr) {
    TakeEvents();  // destroying a queue waits for every event taken to be acknowledged
    const int error = ibv_destroy_cq(cq_);
    GODWIT_CHECK(error == 0 || error == EIO);
  }
  if (channel_ != nullptr) ibv_destroy_comp_channel(channel_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<VerbsQueuePair>> MakeVerbsQueuePair(const VerbsDevice& device,
                                                                   uint32_t sends_max,
                                                                   uint32_t receives_max) {
  auto queue_pair = std::make_unique<RealQueuePair>();
  GODWIT_RETURN_IF_ERROR(queue_pair->Create(device, sends_max, receives_max));
  return queue_pair;
}

}  // namespace godwit
