// An HCA in memory: RC queue pairs that send to each other when the test says so. It keeps the
// rules that lanes rest on: completions in order, none for an unsignalled success, one for every
// failure, and ERR flushes what is held.
#ifndef GODWIT_TESTS_TRANSPORT_VERBS_FAKE_HCA_H_
#define GODWIT_TESTS_TRANSPORT_VERBS_FAKE_HCA_H_

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "transport/verbs/verbs_queue_pair.h"

namespace godwit {

class FakeHca;

// The state of one queue pair and its completion queue; it outlives the lane on it.
struct FakeQp {
  struct Work {
    uint64_t wr_id = 0;
    std::byte* address = nullptr;
    uint32_t length = 0;
    bool signalled = false;
  };

  FakeHca* hca = nullptr;
  ibv_qp qp{};
  ibv_cq cq{};
  size_t completions_max = 0;
  ibv_qp_state state = IBV_QPS_RESET;
  ibv_qp_attr attributes{};  // every field ever set by Modify()
  std::deque<Work> sends;
  std::deque<Work> receives;
  std::deque<ibv_wc> completions;
  bool qp_destroyed = false;
  bool destroyed = false;
  bool armed = false;
  bool armed_for_solicited = false;  // only

  // What it has seen.
  std::vector<size_t> send_chains;  // lengths
  std::vector<size_t> receive_chains;
  std::vector<uint64_t> signalled;  // wr_ids
  std::vector<uint64_t> solicited;
  int events_taken = 0;

  // What it is to do wrong.
  std::optional<size_t> reject_at;  // the post fails at this element of the chain
  int modify_error = 0;
  ibv_qp_state modify_error_state = IBV_QPS_ERR;  // where modify_error strikes
  int poll_error = 0;
  std::optional<uint32_t> next_receive_bytes;  // byte_len of the next receive
  bool flush = true;                           // false: ERR says nothing
};

class FakeHca {
 public:
  FakeHca();

  // The lane's side; `sends_max` + `receives_max` bounds the completion queue.
  std::unique_ptr<VerbsQueuePair> MakeQueuePair(size_t sends_max, size_t receives_max);
  // The test's side: by number, in order of making, from kFirstNumber.
  static constexpr uint32_t kFirstNumber = 0x11;
  FakeQp& Qp(size_t index) { return *qps_.at(index); }

  // Carries up to `messages` over the wire of `from`; returns how many went.
  size_t Deliver(FakeQp& from, size_t messages = SIZE_MAX);
  // Fails the oldest send (or else receive) of `qp` as a NIC would, and goes to ERR.
  void FailOldest(FakeQp& qp, ibv_wc_status status, uint32_t vendor_error);
  void ToError(FakeQp& qp);

 private:
  void Complete(FakeQp& qp, uint64_t wr_id, ibv_wc_status status, uint32_t bytes = 0,
                uint32_t vendor_error = 0);
  bool DeliverOne(FakeQp& from);

  ibv_context context_{};
  std::vector<std::unique_ptr<FakeQp>> qps_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_TRANSPORT_VERBS_FAKE_HCA_H_
