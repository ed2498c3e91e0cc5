#include "vfio/state_table.h"

#include <absl/strings/str_cat.h>

#include <array>

#include "base/check.h"

namespace godwit {
namespace {

using StateRow = std::array<DeviceState, kDeviceStateCount>;

constexpr DeviceState kError = DeviceState::kError;
constexpr DeviceState kStop = DeviceState::kStop;
constexpr DeviceState kRunning = DeviceState::kRunning;
constexpr DeviceState kStopCopy = DeviceState::kStopCopy;
constexpr DeviceState kResuming = DeviceState::kResuming;
constexpr DeviceState kRunP2p = DeviceState::kRunningP2p;
constexpr DeviceState kPreCopy = DeviceState::kPreCopy;
constexpr DeviceState kPreP2p = DeviceState::kPreCopyP2p;

// Row: the state now; column: the state wanted; entry: the next step of a device that has every
// state, kError where there is none.
// clang-format off
constexpr std::array<StateRow, kDeviceStateCount> kNextStep = {{
    //        ERROR   STOP     RUNNING   STOP_COPY  RESUMING   RUN_P2P  PRE_COPY  PRE_COPY_P2P
    /*ERR */ {kError, kError,  kError,   kError,    kError,    kError,  kError,   kError},
    /*STOP*/ {kError, kStop,   kRunP2p,  kStopCopy, kResuming, kRunP2p, kRunP2p,  kRunP2p},
    /*RUN */ {kError, kRunP2p, kRunning, kRunP2p,   kRunP2p,   kRunP2p, kPreCopy, kRunP2p},
    /*S_C */ {kError, kStop,   kStop,    kStopCopy, kStop,     kStop,   kError,   kError},
    /*RES */ {kError, kStop,   kStop,    kStop,     kResuming, kStop,   kStop,    kStop},
    /*RP2P*/ {kError, kStop,   kRunning, kStop,     kStop,     kRunP2p, kRunning, kPreP2p},
    /*PC  */ {kError, kRunning, kRunning, kPreP2p,  kRunning,  kRunning, kPreCopy, kPreP2p},
    /*PCPP*/ {kError, kRunP2p, kRunP2p,  kStopCopy, kRunP2p,   kRunP2p, kPreCopy, kPreP2p},
}};
// clang-format on

constexpr size_t Index(DeviceState state) { return static_cast<size_t>(state); }

absl::Status NoWay(MigrationFlags flags, DeviceState now, DeviceState wanted) {
  return absl::FailedPreconditionError(
      absl::StrCat("no way from ", DeviceStateName(now), " to ", DeviceStateName(wanted),
                   " on a device that has ", MigrationFlagsName(flags)));
}

}  // namespace

bool HasState(MigrationFlags flags, DeviceState state) {
  switch (state) {
    case DeviceState::kError:
    case DeviceState::kStop:
    case DeviceState::kRunning:
    case DeviceState::kStopCopy:
    case DeviceState::kResuming:
      return true;
    case DeviceState::kRunningP2p:
      return flags.p2p;
    case DeviceState::kPreCopy:
      return flags.pre_copy;
    case DeviceState::kPreCopyP2p:
      return flags.p2p && flags.pre_copy;
  }
  return false;
}

bool IsSaving(DeviceState state) {
  return state == kPreCopy || state == kPreP2p || state == kStopCopy;
}

absl::StatusOr<DeviceState> NextStep(MigrationFlags flags, DeviceState now, DeviceState wanted) {
  if (!HasState(flags, now) || !HasState(flags, wanted)) return NoWay(flags, now, wanted);
  // A state that the device lacks is stepped over: its own next step comes instead. This ends,
  // as every walk of the full table does.
  DeviceState next = kNextStep[Index(now)][Index(wanted)];
  while (!HasState(flags, next)) next = kNextStep[Index(next)][Index(wanted)];
  if (next == kError) return NoWay(flags, now, wanted);
  return next;
}

absl::StatusOr<std::vector<DeviceState>> Walk(MigrationFlags flags, DeviceState now,
                                              DeviceState wanted) {
  std::vector<DeviceState> path;
  while (true) {
    const absl::StatusOr<DeviceState> next = NextStep(flags, now, wanted);
    if (!next.ok()) return next.status();
    if (*next == now) return path;
    GODWIT_CHECK(path.size() < kWalkStepsMax);
    path.push_back(*next);
    now = *next;
  }
}

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
