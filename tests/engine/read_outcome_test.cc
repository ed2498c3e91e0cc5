// Goal: what a read means is what the drivers mean, for every result in every state.
#include "engine/read_outcome.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <limits>
#include <vector>

namespace godwit {
namespace {

using enum ReadOutcome;

struct Row {
  int result;
  ReadOutcome pre_copy;   // PRE_COPY and PRE_COPY_P2P
  ReadOutcome stop_copy;  // STOP_COPY
};

constexpr int kErestartsys = 512;  // raw, from a read that io-wq gave up

// "Nothing now" in PRE_COPY is ENOMSG on some drivers (mlx5, virtio) and 0 on others (hisi, qat,
// mtty); in STOP_COPY 0 is the end on all.
const std::vector<Row> kRows = {
    {1, kData, kData},
    {24, kData, kData},  // mlx5's first read
    {1 << 20, kData, kData},
    {std::numeric_limits<int>::max(), kData, kData},
    {0, kNothingNow, kEnd},
    {-ENOMSG, kNothingNow, kError},
    {-EAGAIN, kNothingNow, kNothingNow},
    {-ECANCELED, kCancelled, kCancelled},
    {-EINTR, kCancelled, kCancelled},
    {-kErestartsys, kCancelled, kCancelled},
    {-ENODEV, kError, kError},
    {-EIO, kError, kError},
    {-EINVAL, kError, kError},
    {-EFAULT, kError, kError},
    {-ENOMEM, kError, kError},
    {-EBADF, kError, kError},
    {-EPERM, kError, kError},
    {-EISDIR, kError, kError},
    {-ENOTCONN, kError, kError},
    {-513, kError, kError},  // its neighbours
    {-511, kError, kError},
};

TEST(ReadOutcomeTest, EveryResultInEverySavingState) {
  for (const Row& row : kRows) {
    EXPECT_EQ(ClassifyRead(row.result, DeviceState::kPreCopy), row.pre_copy) << row.result;
    EXPECT_EQ(ClassifyRead(row.result, DeviceState::kPreCopyP2p), row.pre_copy) << row.result;
    EXPECT_EQ(ClassifyRead(row.result, DeviceState::kStopCopy), row.stop_copy) << row.result;
  }
}

TEST(ReadOutcomeTest, OutsideTheSavingStatesNothingReadCounts) {
  for (const DeviceState state : {DeviceState::kError, DeviceState::kStop, DeviceState::kRunning,
                                  DeviceState::kResuming, DeviceState::kRunningP2p}) {
    for (const Row& row : kRows) {
      EXPECT_EQ(ClassifyRead(row.result, state), kError)
          << row.result << " in " << DeviceStateName(state);
    }
  }
}

TEST(ReadOutcomeTest, AnErrorIsNeverTakenForDataOrTheEnd) {
  for (int error = 1; error <= 4095; ++error) {
    for (const DeviceState state :
         {DeviceState::kPreCopy, DeviceState::kPreCopyP2p, DeviceState::kStopCopy}) {
      const ReadOutcome outcome = ClassifyRead(-error, state);
      EXPECT_NE(outcome, kData) << error;
      EXPECT_NE(outcome, kEnd) << error;
    }
  }
}

}  // namespace
}  // namespace godwit
