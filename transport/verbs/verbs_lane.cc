#include "transport/verbs/verbs_lane.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "base/check.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "transport/verbs/completion_status.h"

namespace godwit {
namespace {

constexpr uint8_t kHopLimit = 64;
constexpr uint8_t kMinRnrTimer = 12;  // 0.64 ms; soft-RoCE collapses at 1 (0.01 ms)
constexpr uint8_t kRnrRetries = 6;    // 7 means for ever
// A lost packet is sent again after 4.096 us * 2^16 = 268 ms (a NIC may take four times that), so
// a dead peer is noticed after 2 to 8 s, and a round trip of 100 ms isn't taken for a loss.
constexpr uint8_t kAckTimeoutExponent = 16;
constexpr uint8_t kRetries = 6;  // 7 is the most that NICs take, but soft-RoCE's "for ever"

uint32_t RandomPsn() {
  std::random_device random;
  return random() & 0xffffff;
}

absl::Status CheckLimits(const RdmaPort& port, const LaneLimits& limits, const Arena& arena) {
  GODWIT_CHECK(limits.header_bytes >= 1 &&
               limits.header_bytes <= kHeaderRoomBytes - kLaneHeaderRoomBytes);
  GODWIT_CHECK(limits.payload_bytes_max >= 1 && limits.queue_packets >= 1);
  GODWIT_CHECK(limits.payload_bytes_max <= arena.payload_bytes_max());
  const uint64_t message_bytes = limits.header_bytes + limits.payload_bytes_max;
  const uint64_t message_bytes_max = std::min<uint64_t>(kMessageBytesMax, port.message_bytes_max);
  if (message_bytes > message_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("packets of ", message_bytes,
                                                   " bytes with their header are over this RDMA "
                                                   "port's limit of ",
                                                   message_bytes_max));
  }
  return absl::OkStatus();
}

// The largest power of two that is at most half of the queue: buffers come back while the other
// half is on its way.
uint64_t SignalMask(uint32_t queue_packets, uint32_t interval_max) {
  uint64_t interval = 1;
  while (interval * 4 <= queue_packets && interval * 2 <= interval_max) interval *= 2;
  return interval - 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<VerbsLane>> VerbsLane::Create(const VerbsDevice& device,
                                                             LaneRole role,
                                                             const LaneLimits& limits) {
  const bool sender = role == LaneRole::kSender;
  GODWIT_ASSIGN_OR_RETURN(std::unique_ptr<VerbsQueuePair> queue_pair,
                          MakeVerbsQueuePair(device, sender ? limits.queue_packets : 1,
                                             sender ? 1 : limits.queue_packets));
  const Local local = {device.name(), device.path(), device.local_key(), &device.arena()};
  return CreateOver(std::move(queue_pair), local, role, limits);
}

absl::StatusOr<std::unique_ptr<VerbsLane>> VerbsLane::CreateOver(
    std::unique_ptr<VerbsQueuePair> queue_pair, const Local& local, LaneRole role,
    const LaneLimits& limits) {
  GODWIT_RETURN_IF_ERROR(
      Annotate(CheckLimits(local.path.port, limits, *local.arena), local.port_name));
  std::unique_ptr<VerbsLane> lane(new VerbsLane(std::move(queue_pair), local, role, limits));
  GODWIT_RETURN_IF_ERROR(lane->ToInit());
  return lane;
}

VerbsLane::VerbsLane(std::unique_ptr<VerbsQueuePair> queue_pair, const Local& local, LaneRole role,
                     const LaneLimits& limits)
    : queue_pair_(std::move(queue_pair)),
      qp_(queue_pair_->qp()),
      cq_(queue_pair_->cq()),
      role_(role),
      limits_(limits),
      local_(local),
      signal_mask_(SignalMask(limits.queue_packets, kSignalIntervalMax)),
      name_(absl::StrFormat("verbs %s qp 0x%x", local.port_name, queue_pair_->qp()->qp_num)),
      held_(limits.queue_packets) {
  endpoint_.queue_pair_number = qp_->qp_num;
  endpoint_.start_psn = RandomPsn();
  endpoint_.gid = local.path.gid.bytes;
  endpoint_.mtu = local.path.port.active_mtu;
  endpoint_.gid_index = local.path.gid.index;
  endpoint_.lid = local.path.port.lid;

  for (size_t i = 0; i < kBurstMax; ++i) {
    sges_[i].lkey = local.local_key;
    // What a receive may take; a send sets its own length.
    sges_[i].length = static_cast<uint32_t>(limits.header_bytes + limits.payload_bytes_max);
    send_wrs_[i].opcode = IBV_WR_SEND;
    send_wrs_[i].sg_list = &sges_[i];
    send_wrs_[i].num_sge = 1;
    send_wrs_[i].next = &send_wrs_[i + 1];
    receive_wrs_[i].sg_list = &sges_[i];
    receive_wrs_[i].num_sge = 1;
    receive_wrs_[i].next = &receive_wrs_[i + 1];
  }
}

VerbsLane::~VerbsLane() {
  // Otherwise the NIC could write into a Buffer that somebody else has by then.
  GODWIT_CHECK(quiescent());
}

absl::Status VerbsLane::ToInit() {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.pkey_index = 0;
  attributes.port_num = local_.path.port.number;
  attributes.qp_access_flags = 0;  // the peer may reach no memory of ours but by our receives
  const int error = queue_pair_->Modify(
      attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  if (error != 0) return ErrnoStatus(error, absl::StrCat(name_, ": can't set up the queue pair"));
  return absl::OkStatus();
}

absl::Status VerbsLane::ToReadyToReceive(const VerbsEndpoint& peer) {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTR;
  attributes.path_mtu = static_cast<ibv_mtu>(std::min(endpoint_.mtu, peer.mtu));
  attributes.dest_qp_num = peer.queue_pair_number;
  attributes.rq_psn = peer.start_psn;
  attributes.max_dest_rd_atomic = 0;  // nobody reads our memory
  attributes.min_rnr_timer = kMinRnrTimer;
  attributes.ah_attr.is_global = 1;
  std::memcpy(attributes.ah_attr.grh.dgid.raw, peer.gid.data(), peer.gid.size());
  attributes.ah_attr.grh.sgid_index = static_cast<uint8_t>(local_.path.gid.index);
  attributes.ah_attr.grh.hop_limit = kHopLimit;
  attributes.ah_attr.dlid = static_cast<uint16_t>(peer.lid);
  attributes.ah_attr.port_num = local_.path.port.number;
  const int error = queue_pair_->Modify(
      attributes, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  if (error == 0) return absl::OkStatus();
  return ErrnoStatus(
      error, absl::StrCat("can't reach the peer's RDMA port ", VerbsEndpointText(peer), " from ",
                          RdmaGidText(local_.path.gid.bytes)));
}

absl::Status VerbsLane::ToReadyToSend() {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTS;
  attributes.sq_psn = endpoint_.start_psn;
  attributes.timeout = kAckTimeoutExponent;
  attributes.retry_cnt = kRetries;
  attributes.rnr_retry = kRnrRetries;
  attributes.max_rd_atomic = 0;
  const int error = queue_pair_->Modify(attributes, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT |
                                                        IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                                        IBV_QP_MAX_QP_RD_ATOMIC);
  return error == 0 ? absl::OkStatus() : ErrnoStatus(error, "can't start sending");
}

absl::Status VerbsLane::Connect(const VerbsEndpoint& peer) {
  GODWIT_CHECK(!connected_);
  if (!status_.ok()) return status_;
  absl::Status connected = ValidateVerbsEndpoint(peer);
  if (connected.ok()) connected = ToReadyToReceive(peer);
  if (connected.ok()) connected = ToReadyToSend();
  if (connected.ok()) {
    connected_ = true;
  } else {
    Fail(std::move(connected));
  }
  return status_;
}

void VerbsLane::Close() {
  if (status_.ok()) status_ = absl::CancelledError(absl::StrCat(name_, ": closed"));
  stream_ended_ = true;
  StopQueuePair();
}

// The first failure is the cause of those that follow, so only it is kept.
void VerbsLane::Fail(absl::Status status) {
  if (status_.ok()) status_ = Annotate(status, name_);
  StopQueuePair();
}

// In ERR the NIC flushes what it holds: one completion each, which is how the lane gets quiescent.
void VerbsLane::StopQueuePair() {
  if (stopped_) return;
  stopped_ = true;
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  if (queue_pair_->Modify(attributes, IBV_QP_STATE) != 0) Abandon();
}

// For failures after which completions may never come. One is a chain of sends taken in part: its
// last element, the signalled one, wasn't, so nothing tells when the NIC has done with the others.
void VerbsLane::FailAndAbandon(absl::Status status) {
  Fail(std::move(status));
  Abandon();
}

// Takes the Buffers back from the NIC without its help, by destroying the queue pair.
void VerbsLane::Abandon() {
  if (abandoned_) return;
  stopped_ = true;
  abandoned_ = true;
  queue_pair_->DestroyQp();
  completed_ = posted_;
  if (role_ == LaneRole::kReceiver) {
    while (!held_.empty()) held_.Pop();
  }
}

// A receiver is woken up by the end of a burst, not by each message before it: the sender marks
// that as solicited. Failures wake it up all the same (InfiniBand specification, 11.4.2.2), except
// on soft-RoCE the flushes of its own queue pair: whoever waits looks now and then.
void VerbsLane::ArmWakeup() {
  queue_pair_->TakeEvents();
  const int error = ibv_req_notify_cq(cq_, /*solicited_only=*/role_ == LaneRole::kReceiver ? 1 : 0);
  if (error != 0) Fail(ErrnoStatus(error, "can't arm the completion queue"));
}

}  // namespace godwit
