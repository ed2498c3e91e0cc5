#include "tests/transport/verbs/fake_hca.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace godwit {
namespace {

FakeQp& Of(ibv_qp* qp) { return *static_cast<FakeQp*>(qp->qp_context); }
FakeQp& Of(ibv_cq* cq) { return *static_cast<FakeQp*>(cq->cq_context); }

std::byte* Address(const ibv_sge& sge) { return reinterpret_cast<std::byte*>(sge.addr); }

int PostSend(ibv_qp* qp, ibv_send_wr* wr, ibv_send_wr** bad) {
  FakeQp& fake = Of(qp);
  GODWIT_CHECK(fake.state == IBV_QPS_RTS || fake.state == IBV_QPS_ERR);
  size_t count = 0;
  for (; wr != nullptr; wr = wr->next, ++count) {
    GODWIT_CHECK(wr->opcode == IBV_WR_SEND && wr->num_sge == 1);
    if (fake.reject_at == count) {
      *bad = wr;
      return ENOMEM;
    }
    const bool signalled = (wr->send_flags & IBV_SEND_SIGNALED) != 0;
    if (signalled) fake.signalled.push_back(wr->wr_id);
    if ((wr->send_flags & IBV_SEND_SOLICITED) != 0) fake.solicited.push_back(wr->wr_id);
    fake.sends.push_back({wr->wr_id, Address(*wr->sg_list), wr->sg_list->length, signalled});
  }
  fake.send_chains.push_back(count);
  return 0;
}

int PostReceive(ibv_qp* qp, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  FakeQp& fake = Of(qp);
  GODWIT_CHECK(fake.state != IBV_QPS_RESET);
  size_t count = 0;
  for (; wr != nullptr; wr = wr->next, ++count) {
    GODWIT_CHECK(wr->num_sge == 1);
    if (fake.reject_at == count) {
      *bad = wr;
      return ENOMEM;
    }
    fake.receives.push_back({wr->wr_id, Address(*wr->sg_list), wr->sg_list->length, true});
  }
  fake.receive_chains.push_back(count);
  return 0;
}

int PollCq(ibv_cq* cq, int entries, ibv_wc* completions) {
  FakeQp& fake = Of(cq);
  if (fake.poll_error != 0) return -fake.poll_error;
  int count = 0;
  for (; count < entries && !fake.completions.empty(); ++count) {
    completions[count] = fake.completions.front();
    fake.completions.pop_front();
  }
  return count;
}

int RequestNotify(ibv_cq* cq, int solicited_only) {
  Of(cq).armed = true;
  Of(cq).armed_for_solicited = solicited_only != 0;
  return 0;
}

class FakeQueuePair final : public VerbsQueuePair {
 public:
  explicit FakeQueuePair(FakeQp& fake) : fake_(fake) {
    qp_ = &fake.qp;
    cq_ = &fake.cq;
  }
  ~FakeQueuePair() override {
    DestroyQp();
    fake_.destroyed = true;
  }

  int Modify(ibv_qp_attr& attributes, int mask) override {
    if (fake_.modify_error != 0 && attributes.qp_state == fake_.modify_error_state) {
      return fake_.modify_error;
    }
    if ((mask & IBV_QP_AV) != 0) fake_.attributes.ah_attr = attributes.ah_attr;
    if ((mask & IBV_QP_PATH_MTU) != 0) fake_.attributes.path_mtu = attributes.path_mtu;
    if ((mask & IBV_QP_DEST_QPN) != 0) fake_.attributes.dest_qp_num = attributes.dest_qp_num;
    if ((mask & IBV_QP_RQ_PSN) != 0) fake_.attributes.rq_psn = attributes.rq_psn;
    if ((mask & IBV_QP_SQ_PSN) != 0) fake_.attributes.sq_psn = attributes.sq_psn;
    if ((mask & IBV_QP_TIMEOUT) != 0) fake_.attributes.timeout = attributes.timeout;
    if ((mask & IBV_QP_RETRY_CNT) != 0) fake_.attributes.retry_cnt = attributes.retry_cnt;
    if ((mask & IBV_QP_RNR_RETRY) != 0) fake_.attributes.rnr_retry = attributes.rnr_retry;
    if ((mask & IBV_QP_MIN_RNR_TIMER) != 0) {
      fake_.attributes.min_rnr_timer = attributes.min_rnr_timer;
    }
    if ((mask & IBV_QP_PORT) != 0) fake_.attributes.port_num = attributes.port_num;
    if (attributes.qp_state == IBV_QPS_ERR) {
      fake_.hca->ToError(fake_);
    } else {
      fake_.state = attributes.qp_state;
    }
    return 0;
  }
  void DestroyQp() override {
    fake_.sends.clear();
    fake_.receives.clear();
    fake_.qp_destroyed = true;
  }
  int event_fd() const override { return 1000; }
  void TakeEvents() override {
    GODWIT_CHECK(!fake_.armed || fake_.events_taken >= 0);
    ++fake_.events_taken;
  }

 private:
  FakeQp& fake_;
};

}  // namespace

FakeHca::FakeHca() {
  context_.ops.post_send = &PostSend;
  context_.ops.post_recv = &PostReceive;
  context_.ops.poll_cq = &PollCq;
  context_.ops.req_notify_cq = &RequestNotify;
}

std::unique_ptr<VerbsQueuePair> FakeHca::MakeQueuePair(size_t sends_max, size_t receives_max) {
  auto fake = std::make_unique<FakeQp>();
  fake->hca = this;
  fake->qp.context = &context_;
  fake->qp.qp_context = fake.get();
  fake->qp.qp_num = kFirstNumber + static_cast<uint32_t>(qps_.size());
  fake->cq.context = &context_;
  fake->cq.cq_context = fake.get();
  fake->completions_max = sends_max + receives_max;
  qps_.push_back(std::move(fake));
  return std::make_unique<FakeQueuePair>(*qps_.back());
}

void FakeHca::Complete(FakeQp& qp, uint64_t wr_id, ibv_wc_status status, uint32_t bytes,
                       uint32_t vendor_error) {
  ibv_wc completion{};
  completion.wr_id = wr_id;
  completion.status = status;
  completion.byte_len = bytes;
  completion.vendor_err = vendor_error;
  completion.qp_num = qp.qp.qp_num;
  qp.completions.push_back(completion);
  GODWIT_CHECK(qp.completions.size() <= qp.completions_max);  // a real queue would be dead now
}

size_t FakeHca::Deliver(FakeQp& from, size_t messages) {
  size_t delivered = 0;
  while (delivered < messages && DeliverOne(from)) ++delivered;
  return delivered;
}

bool FakeHca::DeliverOne(FakeQp& from) {
  if (from.state != IBV_QPS_RTS || from.sends.empty()) return false;
  const size_t peer_index = from.attributes.dest_qp_num - kFirstNumber;
  FakeQp* const to = peer_index < qps_.size() ? qps_[peer_index].get() : nullptr;
  const bool reachable = to != nullptr && to->state == IBV_QPS_RTS && !to->qp_destroyed &&
                         to->attributes.rq_psn == from.attributes.sq_psn;
  if (!reachable) return FailOldest(from, IBV_WC_RETRY_EXC_ERR, 0x81), false;
  if (to->receives.empty()) return FailOldest(from, IBV_WC_RNR_RETRY_EXC_ERR, 0x87), false;

  const FakeQp::Work send = from.sends.front();
  const FakeQp::Work receive = to->receives.front();
  if (send.length > receive.length) {
    FailOldest(*to, IBV_WC_LOC_LEN_ERR, 0);
    FailOldest(from, IBV_WC_REM_INV_REQ_ERR, 0);
    return false;
  }
  std::memcpy(receive.address, send.address, send.length);
  to->receives.pop_front();
  Complete(*to, receive.wr_id, IBV_WC_SUCCESS, to->next_receive_bytes.value_or(send.length));
  to->next_receive_bytes.reset();
  from.sends.pop_front();
  if (send.signalled) Complete(from, send.wr_id, IBV_WC_SUCCESS);
  return true;
}

void FakeHca::FailOldest(FakeQp& qp, ibv_wc_status status, uint32_t vendor_error) {
  std::deque<FakeQp::Work>& queue = qp.sends.empty() ? qp.receives : qp.sends;
  GODWIT_CHECK(!queue.empty());
  Complete(qp, queue.front().wr_id, status, 0, vendor_error);
  queue.pop_front();
  ToError(qp);
}

void FakeHca::ToError(FakeQp& qp) {
  qp.state = IBV_QPS_ERR;
  if (!qp.flush) return;
  for (std::deque<FakeQp::Work>* queue : {&qp.sends, &qp.receives}) {
    for (const FakeQp::Work& work : *queue) Complete(qp, work.wr_id, IBV_WC_WR_FLUSH_ERR);
    queue->clear();
  }
}

}  // namespace godwit
