// HOT PATH. Per packet: one SGE. Per burst: one doorbell. No allocation, no lock, no system call
// (except inside soft-RoCE), no log; failures leave for verbs_lane.cc.
// Set-up fixed every work-request field that never changes: opcode, sg_list, num_sge, lkey, and
// next == the following element.
#include <absl/base/optimization.h>
#include <absl/strings/str_cat.h>

#include <algorithm>

#include "base/check.h"
#include "base/errno_status.h"
#include "transport/verbs/completion_status.h"
#include "transport/verbs/verbs_lane.h"

namespace godwit {
namespace {

// Solicited: it wakes the receiver, see ArmWakeup().
constexpr unsigned kSignalled = IBV_SEND_SIGNALED | IBV_SEND_SOLICITED;

// How many of the chain's first elements were posted when the post failed at `rejected`.
template <typename WorkRequest>
size_t PostedBefore(const WorkRequest* chain, const WorkRequest* rejected, size_t burst) {
  if (rejected < chain || rejected >= chain + burst) return 0;
  return static_cast<size_t>(rejected - chain);
}

uint64_t Address(const Buffer& buffer, size_t header_bytes) {
  return reinterpret_cast<uintptr_t>(buffer.header(header_bytes));
}

}  // namespace

bool VerbsLane::InArena(const Buffer& buffer, size_t payload_bytes) const {
  const Arena& arena = *local_.arena;
  return buffer && payload_bytes <= limits_.payload_bytes_max &&
         buffer.payload() > arena.address() &&
         buffer.payload() + payload_bytes <= arena.address() + arena.size_bytes();
}

size_t VerbsLane::Send(absl::Span<Buffer> packets) {
  if (ABSL_PREDICT_FALSE(role_ != LaneRole::kSender || !connected_ || !status_.ok())) return 0;
  const size_t count = std::min(packets.size(), held_.free());
  size_t taken = 0;
  while (taken < count) {
    const size_t burst = std::min(count - taken, kBurstMax);
    const size_t posted = SendBurst(packets.subspan(taken, burst));
    taken += posted;
    if (ABSL_PREDICT_FALSE(posted < burst)) break;
  }
  return taken;
}

size_t VerbsLane::SendBurst(absl::Span<Buffer> packets) {
  size_t burst = packets.size();
  for (size_t i = 0; i < burst; ++i) {
    GODWIT_DCHECK(InArena(packets[i], packets[i].payload_bytes()));
    sges_[i].addr = Address(packets[i], limits_.header_bytes);
    sges_[i].length = static_cast<uint32_t>(limits_.header_bytes + packets[i].payload_bytes());
    send_wrs_[i].wr_id = posted_ + i + 1;  // "this many packets have left"
    // An RC queue completes in order: with the last one signalled the whole burst is covered.
    send_wrs_[i].send_flags = ((burst - 1 - i) & signal_mask_) == 0 ? kSignalled : 0U;
  }
  ibv_send_wr& last = send_wrs_[burst - 1];
  last.next = nullptr;
  ibv_send_wr* rejected = nullptr;
  const int error = ibv_post_send(qp_, send_wrs_.data(), &rejected);
  last.next = &send_wrs_[burst];
  if (ABSL_PREDICT_FALSE(error != 0)) burst = PostedBefore(send_wrs_.data(), rejected, burst);

  for (size_t i = 0; i < burst; ++i) held_.Push(std::move(packets[i]));
  posted_ += burst;
  if (ABSL_PREDICT_FALSE(error != 0)) FailAndAbandon(ErrnoStatus(error, "can't post sends"));
  return burst;
}

size_t VerbsLane::PollSent(absl::Span<Buffer> sent) {
  if (role_ != LaneRole::kSender) return 0;
  PollSendCompletions();
  const size_t finished = held_.size() - static_cast<size_t>(posted_ - completed_);
  const size_t count = std::min(finished, sent.size());
  for (size_t i = 0; i < count; ++i) sent[i] = held_.Pop();
  return count;
}

void VerbsLane::PollSendCompletions() {
  while (posted_ != completed_) {
    const int count = ibv_poll_cq(cq_, kBurstMax, completions_.data());
    if (ABSL_PREDICT_FALSE(count < 0)) {
      return FailAndAbandon(ErrnoStatus(-count, "can't poll the completion queue"));
    }
    for (size_t i = 0; i < static_cast<size_t>(count) && !abandoned_; ++i) {
      TakeSendCompletion(completions_[i]);
    }
    if (static_cast<size_t>(count) < kBurstMax) return;
  }
}

void VerbsLane::TakeSendCompletion(const ibv_wc& completion) {
  if (ABSL_PREDICT_FALSE(completion.wr_id - completed_ > posted_ - completed_)) {
    return FailAndAbandon(absl::InternalError("the NIC completed a send that was never posted"));
  }
  completed_ = completion.wr_id;  // also when it failed: the NIC is done with it and all before it
  if (ABSL_PREDICT_FALSE(completion.status != IBV_WC_SUCCESS)) {
    Fail(CompletionStatus(completion, role_));
  }
}

size_t VerbsLane::receives_wanted() const {
  return role_ == LaneRole::kReceiver && status_.ok() ? held_.free() : 0;
}

size_t VerbsLane::PostReceives(absl::Span<Buffer> buffers) {
  const size_t count = std::min(buffers.size(), receives_wanted());
  size_t taken = 0;
  while (taken < count) {
    const size_t burst = std::min(count - taken, kBurstMax);
    const size_t posted = PostReceiveBurst(buffers.subspan(taken, burst));
    taken += posted;
    if (ABSL_PREDICT_FALSE(posted < burst)) break;
  }
  return taken;
}

size_t VerbsLane::PostReceiveBurst(absl::Span<Buffer> buffers) {
  size_t burst = buffers.size();
  for (size_t i = 0; i < burst; ++i) {
    GODWIT_DCHECK(InArena(buffers[i], limits_.payload_bytes_max));
    sges_[i].addr = Address(buffers[i], limits_.header_bytes);
    receive_wrs_[i].wr_id = posted_ + i + 1;
  }
  ibv_recv_wr& last = receive_wrs_[burst - 1];
  last.next = nullptr;
  ibv_recv_wr* rejected = nullptr;
  const int error = ibv_post_recv(qp_, receive_wrs_.data(), &rejected);
  last.next = &receive_wrs_[burst];
  if (ABSL_PREDICT_FALSE(error != 0)) burst = PostedBefore(receive_wrs_.data(), rejected, burst);

  for (size_t i = 0; i < burst; ++i) held_.Push(std::move(buffers[i]));
  posted_ += burst;
  if (ABSL_PREDICT_FALSE(error != 0)) Fail(ErrnoStatus(error, "can't post receives"));
  return burst;
}

size_t VerbsLane::PollReceived(absl::Span<Buffer> received) {
  if (role_ != LaneRole::kReceiver) return 0;
  size_t delivered = 0;
  while (delivered < received.size() && posted_ != completed_) {
    const size_t want = std::min(received.size() - delivered, kBurstMax);
    const int count = ibv_poll_cq(cq_, static_cast<int>(want), completions_.data());
    if (ABSL_PREDICT_FALSE(count < 0)) {
      FailAndAbandon(ErrnoStatus(-count, "can't poll the completion queue"));
      break;
    }
    for (size_t i = 0; i < static_cast<size_t>(count) && !abandoned_; ++i) {
      if (TakeReceived(completions_[i], received[delivered])) ++delivered;
    }
    if (static_cast<size_t>(count) < want) break;
  }
  return delivered;
}

// True if a message was put into `received`. Otherwise its Buffer goes back to the arena.
bool VerbsLane::TakeReceived(const ibv_wc& completion, Buffer& received) {
  if (ABSL_PREDICT_FALSE(completion.wr_id != completed_ + 1)) {
    FailAndAbandon(absl::InternalError("the NIC completed receives out of order"));
    return false;
  }
  Buffer buffer = held_.Pop();
  ++completed_;
  if (ABSL_PREDICT_FALSE(stream_ended_)) return false;
  const size_t bytes = completion.byte_len;
  const size_t bytes_max = limits_.header_bytes + limits_.payload_bytes_max;
  const bool good =
      completion.status == IBV_WC_SUCCESS && bytes >= limits_.header_bytes && bytes <= bytes_max;
  if (ABSL_PREDICT_FALSE(!good)) {
    stream_ended_ = true;  // what comes later would come after a hole
    Fail(completion.status != IBV_WC_SUCCESS
             ? CompletionStatus(completion, role_)
             : absl::InvalidArgumentError(absl::StrCat("the peer sent a message of ", bytes,
                                                       " bytes; the limits are ",
                                                       limits_.header_bytes, " to ", bytes_max)));
    return false;
  }
  buffer.set_payload_bytes(bytes - limits_.header_bytes);
  received = std::move(buffer);
  return true;
}

}  // namespace godwit
