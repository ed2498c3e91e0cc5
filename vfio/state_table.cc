#include "godwit/device.h"

#include <absl/strings/str_cat.h>

namespace godwit {

absl::string_view DeviceStateName(DeviceState state) {
  switch (state) {
    case DeviceState::kError:
      return "ERROR";
    case DeviceState::kStop:
      return "STOP";
    case DeviceState::kRunning:
      return "RUNNING";
    case DeviceState::kStopCopy:
      return "STOP_COPY";
    case DeviceState::kResuming:
      return "RESUMING";
    case DeviceState::kRunningP2p:
      return "RUNNING_P2P";
    case DeviceState::kPreCopy:
      return "PRE_COPY";
    case DeviceState::kPreCopyP2p:
      return "PRE_COPY_P2P";
  }
  return "?";
}

std::string MigrationFlagsName(MigrationFlags flags) {
  return absl::StrCat("STOP_COPY", flags.p2p ? " P2P" : "", flags.pre_copy ? " PRE_COPY" : "");
}

}  // namespace godwit
