// The migration states' next-step table: which state comes next on the way to the wanted one.
#ifndef GODWIT_VFIO_STATE_TABLE_H_
#define GODWIT_VFIO_STATE_TABLE_H_

#include <absl/status/statusor.h>

#include <vector>

#include "godwit/device.h"

namespace godwit {

// No walk takes more steps. One that takes them all: PRE_COPY → RUNNING → RUNNING_P2P → STOP →
// RESUMING.
inline constexpr size_t kWalkStepsMax = 4;

// Whether a device with `flags` has `state`. ERROR is a state of every device.
bool HasState(MigrationFlags flags, DeviceState state);

// PRE_COPY, PRE_COPY_P2P and STOP_COPY: one saving session, one data_fd.
bool IsSaving(DeviceState state);

// The next state on the way from `now` to `wanted`, `now` itself if they are the same.
// FailedPrecondition if there is no way: from or to ERROR, from STOP_COPY back to pre-copy, or
// where the device lacks one of the two.
absl::StatusOr<DeviceState> NextStep(MigrationFlags flags, DeviceState now, DeviceState wanted);

// The states to enter one after the other, `wanted` last; empty if `now` is `wanted`.
// FailedPrecondition as for NextStep().
absl::StatusOr<std::vector<DeviceState>> Walk(MigrationFlags flags, DeviceState now,
                                              DeviceState wanted);

}  // namespace godwit

#endif  // GODWIT_VFIO_STATE_TABLE_H_
