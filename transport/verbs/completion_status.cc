#include "transport/verbs/completion_status.h"

#include <absl/strings/str_format.h>

namespace godwit {
namespace {

struct Meaning {
  absl::StatusCode code;
  const char* advice;
};

Meaning MeaningOf(ibv_wc_status status, LaneRole role) {
  const bool receiving = role == LaneRole::kReceiver;
  switch (status) {
    case IBV_WC_RETRY_EXC_ERR:
      return {absl::StatusCode::kUnavailable, ": is the peer still there?"};
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return {absl::StatusCode::kUnavailable, ": the peer had no buffer posted for it"};
    case IBV_WC_WR_FLUSH_ERR:
      return {absl::StatusCode::kUnavailable, ": the queue pair was shut down"};
    case IBV_WC_REM_ABORT_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
      return {absl::StatusCode::kUnavailable, ""};
    // A receiver sees a message that is longer than its buffer as one or the other, depending on
    // the NIC.
    case IBV_WC_LOC_LEN_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
      if (receiving) {
        return {absl::StatusCode::kInvalidArgument, ": the peer's message is over the limit"};
      }
      break;
    default:
      break;
  }
  const bool remote = status == IBV_WC_REM_INV_REQ_ERR || status == IBV_WC_REM_ACCESS_ERR ||
                      status == IBV_WC_REM_OP_ERR;
  if (remote) return {absl::StatusCode::kAborted, ": the peer's NIC refused it"};
  return {absl::StatusCode::kInternal, ""};
}

}  // namespace

absl::Status CompletionStatus(const ibv_wc& completion, LaneRole role) {
  const Meaning meaning = MeaningOf(completion.status, role);
  return absl::Status(meaning.code, absl::StrFormat("%s failed: %s (vendor error 0x%x)%s",
                                                    role == LaneRole::kSender ? "send" : "receive",
                                                    ibv_wc_status_str(completion.status),
                                                    completion.vendor_err, meaning.advice));
}

}  // namespace godwit
