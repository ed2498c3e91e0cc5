// A lane over one RC queue pair.
#ifndef GODWIT_TRANSPORT_VERBS_VERBS_LANE_H_
#define GODWIT_TRANSPORT_VERBS_VERBS_LANE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>
#include <infiniband/verbs.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/arena.h"
#include "transport/lane.h"
#include "transport/verbs/buffer_fifo.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_endpoint.h"
#include "transport/verbs/verbs_queue_pair.h"

namespace godwit {

// Life: both ends Create() a lane, the receiver posts its receives, the endpoints cross the
// control channel, both ends Connect(), and only when the receiver has said so does the sender
// send. A send never finds the peer without a buffer: credits see to that, so RNR retries are
// finite and only cover the moments of set-up.
//
// Ownership: owns its queue pair. The device outlives it. REQUIRES, to destroy it: quiescent().
// Threads:   single-threaded, as every Lane.
// Blocking:  Create() and Connect() make system calls and may block; so does the one call that
//            stops the queue pair, on Close() or at the first failure. Nothing else does.
// Errors:    as every Lane; the first cause is kept, flushes that follow from it don't replace it.
class VerbsLane final : public Lane {
 public:
  // InvalidArgument if the device can't do what the limits ask for.
  static absl::StatusOr<std::unique_ptr<VerbsLane>> Create(const VerbsDevice& device, LaneRole role,
                                                           const LaneLimits& limits);

  // What a lane has to know of its device's port.
  struct Local {
    std::string port_name;  // "rxe0/1"
    RdmaPath path;
    uint32_t local_key = 0;
    const Arena* arena = nullptr;
  };
  // Over a queue pair of any make, in RESET.
  static absl::StatusOr<std::unique_ptr<VerbsLane>> CreateOver(
      std::unique_ptr<VerbsQueuePair> queue_pair, const Local& local, LaneRole role,
      const LaneLimits& limits);

  ~VerbsLane() override;

  // What the peer's Connect() needs.
  const VerbsEndpoint& local() const { return endpoint_; }
  // Once. Receives may be posted before; sends only after. InvalidArgument for an endpoint that no
  // honest peer has; a failure is the lane's first failure.
  absl::Status Connect(const VerbsEndpoint& peer);

  size_t Send(absl::Span<Buffer> packets) override;
  size_t PollSent(absl::Span<Buffer> sent) override;
  size_t PostReceives(absl::Span<Buffer> buffers) override;
  size_t receives_wanted() const override;
  size_t PollReceived(absl::Span<Buffer> received) override;
  void Close() override;
  bool quiescent() const override { return posted_ == completed_; }
  // Always false: an RC queue pair hears nothing of its peer's end. The control channel does.
  bool peer_closed() const override { return false; }
  const absl::Status& status() const override { return status_; }
  const std::string& name() const override { return name_; }
  int wakeup_fd() const override { return queue_pair_->event_fd(); }
  void ArmWakeup() override;

 private:
  static constexpr size_t kBurstMax = 32;  // work requests a doorbell, completions a poll
  static constexpr uint32_t kSignalIntervalMax = 32;

  VerbsLane(std::unique_ptr<VerbsQueuePair> queue_pair, const Local& local, LaneRole role,
            const LaneLimits& limits);
  absl::Status ToInit();
  absl::Status ToReadyToReceive(const VerbsEndpoint& peer);
  absl::Status ToReadyToSend();

  size_t SendBurst(absl::Span<Buffer> packets);
  size_t PostReceiveBurst(absl::Span<Buffer> buffers);
  void PollSendCompletions();
  void TakeSendCompletion(const ibv_wc& completion);
  bool TakeReceived(const ibv_wc& completion, Buffer& received);
  bool InArena(const Buffer& buffer, size_t payload_bytes) const;

  // Both keep the first status and stop the queue pair; see verbs_lane.cc.
  void Fail(absl::Status status);
  void FailAndAbandon(absl::Status status);
  void StopQueuePair();
  void Abandon();

  // Constant after construction.
  const std::unique_ptr<VerbsQueuePair> queue_pair_;
  ibv_qp* const qp_;
  ibv_cq* const cq_;
  const LaneRole role_;
  const LaneLimits limits_;
  const Local local_;
  // A send is signalled if so many follow it in its burst that none of these bits is set.
  const uint64_t signal_mask_;
  VerbsEndpoint endpoint_;
  std::string name_;

  // Hot. A lane has one direction, so one FIFO and one pair of counters: wr_id is the count of
  // work requests up to and with its own. posted_ - completed_ of them are the NIC's, the oldest
  // Buffers in held_ may be finished sends that wait for PollSent.
  BufferFifo held_;
  uint64_t posted_ = 0;
  uint64_t completed_ = 0;
  // Set-up fixed every field that never changes. One more than a burst: the last one's `next`.
  std::array<ibv_sge, kBurstMax> sges_{};
  std::array<ibv_send_wr, kBurstMax + 1> send_wrs_{};
  std::array<ibv_recv_wr, kBurstMax + 1> receive_wrs_{};
  std::array<ibv_wc, kBurstMax> completions_{};

  // Cold.
  absl::Status status_;
  bool connected_ = false;
  bool stream_ended_ = false;  // no message is passed on any more
  bool stopped_ = false;       // the queue pair is in ERR or gone
  bool abandoned_ = false;     // it is gone: what the completion queue still says is stale
};

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_VERBS_VERBS_LANE_H_
