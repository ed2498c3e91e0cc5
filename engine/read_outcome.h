// What the result of a read from a device's data_fd means: one pure function for every driver.
#ifndef GODWIT_ENGINE_READ_OUTCOME_H_
#define GODWIT_ENGINE_READ_OUTCOME_H_

#include "godwit/device.h"

namespace godwit {

enum class ReadOutcome {
  kData,        // that many bytes
  kNothingNow,  // ask again later
  kEnd,         // the stream is complete
  kCancelled,   // a cancelled read: nothing was read as far as anybody can tell
  kError,
};

// `result` is bytes or a negative errno; `state` is the device's saving state. Sources: the drivers
// of Linux 6.12 (in PRE_COPY mlx5 and virtio say ENOMSG for "nothing now", hisi, qat and mtty 0;
// in STOP_COPY 0 is the end everywhere) and fs/io_uring (a read cancelled in io-wq can complete
// with EINTR or the kernel's internal 512, ERESTARTSYS).
ReadOutcome ClassifyRead(int result, DeviceState state);

}  // namespace godwit

#endif  // GODWIT_ENGINE_READ_OUTCOME_H_
