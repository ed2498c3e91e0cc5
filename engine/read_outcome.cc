#include "engine/read_outcome.h"

#include <cerrno>

namespace godwit {
namespace {

constexpr int kErrnoRestartSys = 512;  // include/linux/errno.h: never meant for user space

}  // namespace

ReadOutcome ClassifyRead(int result, DeviceState state) {
  const bool pre_copy = state == DeviceState::kPreCopy || state == DeviceState::kPreCopyP2p;
  if (!pre_copy && state != DeviceState::kStopCopy) return ReadOutcome::kError;
  if (result > 0) return ReadOutcome::kData;
  switch (-result) {
    case 0:
      return pre_copy ? ReadOutcome::kNothingNow : ReadOutcome::kEnd;
    case ENOMSG:
      return pre_copy ? ReadOutcome::kNothingNow : ReadOutcome::kError;
    case EAGAIN:
      return ReadOutcome::kNothingNow;
    case ECANCELED:
    case EINTR:
    case kErrnoRestartSys:
      return ReadOutcome::kCancelled;
    default:
      return ReadOutcome::kError;
  }
}

}  // namespace godwit
