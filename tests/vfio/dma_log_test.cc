// Goal: what the device has written is known, or all is taken for written; what no kernel would
// take is refused before it is asked.
#include <limits>

#include "tests/vfio/fake_kernel.h"
#include "vfio/kernel_device.h"

namespace godwit {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kPage = 4096;
constexpr IovaRange kRange = {0x100000, 130 * kPage};

class DmaLogTest : public testing::Test {
 protected:
  DmaLogTest() { kernel_.has_dma_logging = true; }

  std::unique_ptr<KernelDevice> Adopted() {
    auto device = KernelDevice::Adopt(UniqueFd(kernel_.GiveDevice()), "nic", kernel_);
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? *std::move(device) : nullptr;
  }
  FakeKernel kernel_;
};

TEST_F(DmaLogTest, ReportsEachWrittenPageOnce) {
  const auto device = Adopted();
  DmaLog& log = device->dma_log();
  ASSERT_TRUE(log.supported());
  ASSERT_TRUE(log.Start(kPage, {kRange}).ok());
  EXPECT_EQ(kernel_.dma_page_bytes, kPage);
  ASSERT_EQ(kernel_.dma_ranges.size(), 1u);
  EXPECT_EQ(kernel_.dma_ranges[0].iova, kRange.iova);

  kernel_.dma_dirty = {kRange.iova, kRange.iova + 65 * kPage, kRange.iova + 129 * kPage};
  std::vector<uint64_t> bitmap(DirtyBitmapWords(kRange, kPage));
  ASSERT_TRUE(log.Report(kRange, kPage, absl::MakeSpan(bitmap)).ok());
  EXPECT_THAT(bitmap, ElementsAre(1, 2, 2));
  // Read and cleared; bits of another device's report stay.
  bitmap = {4, 0, 0};
  ASSERT_TRUE(log.Report(kRange, kPage, absl::MakeSpan(bitmap)).ok());
  EXPECT_THAT(bitmap, ElementsAre(4, 0, 0));
  ASSERT_TRUE(log.Stop().ok());
  EXPECT_TRUE(kernel_.dma_ranges.empty());
}

TEST_F(DmaLogTest, AfterAnErrorAllIsDirty) {
  const auto device = Adopted();
  DmaLog& log = device->dma_log();
  const uint64_t all = ~uint64_t{0};
  std::vector<uint64_t> bitmap(3);
  // Not started.
  EXPECT_EQ(log.Report(kRange, kPage, absl::MakeSpan(bitmap)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(bitmap, ElementsAre(all, all, all));

  ASSERT_TRUE(log.Start(kPage, {kRange}).ok());
  for (const int error : {EIO, EINVAL, EFAULT, ENOMEM}) {
    kernel_.dma_report_error = error;
    kernel_.dma_dirty = {kRange.iova};
    bitmap = {0, 0, 0};
    EXPECT_FALSE(log.Report(kRange, kPage, absl::MakeSpan(bitmap)).ok());
    EXPECT_THAT(bitmap, ElementsAre(all, all, all));
  }
  bitmap = {0, 0, 0};
  EXPECT_EQ(log.Report(kRange, 2048, absl::MakeSpan(bitmap)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(bitmap, ElementsAre(all, all, all));
  // Then it may be begun anew.
  kernel_.dma_report_error = 0;
  EXPECT_TRUE(log.Stop().ok());
  EXPECT_TRUE(log.Start(kPage, {kRange}).ok());
}

TEST_F(DmaLogTest, ABitmapThatIsTooSmallIsNotHandedToTheKernel) {
  const auto device = Adopted();
  ASSERT_TRUE(device->dma_log().Start(kPage, {kRange}).ok());
  std::vector<uint64_t> bitmap(2);
  const absl::Status refusal = device->dma_log().Report(kRange, kPage, absl::MakeSpan(bitmap));
  EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refusal.message()), HasSubstr("2 words"));
}

TEST_F(DmaLogTest, WhatNoKernelTakesIsRefused) {
  const auto device = Adopted();
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();
  const std::vector<IovaRange> too_many(kIovaRangesMax + 1, kRange);
  const std::vector<std::pair<uint64_t, std::vector<IovaRange>>> cases = {
      {0, {kRange}},
      {3 * kPage, {kRange}},
      {kPage, {}},
      {kPage, too_many},
      {kPage, {{0x1000, 0}}},
      {kPage, {{0x1001, kPage}}},
      {kPage, {{0x1000, kPage + 1}}},
      {kPage, {{kMost - kPage + 1, 2 * kPage}}},
      {kPage, {{0x3000, kPage}, {0x1000, 3 * kPage}}},
      {kPage, {{0x1000, kPage}, {0x1000, kPage}}},
  };
  for (const auto& [page_bytes, ranges] : cases) {
    EXPECT_EQ(device->dma_log().Start(page_bytes, ranges).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(kernel_.dma_ranges.empty());
  }
  // The last page of the address space, and neighbours, are fine.
  EXPECT_TRUE(device->dma_log()
                  .Start(kPage, {{kMost - kPage + 1, kPage}, {0x2000, kPage}, {0x1000, kPage}})
                  .ok());
}

TEST_F(DmaLogTest, StartAndStopAreUsedInTurns) {
  const auto device = Adopted();
  DmaLog& log = device->dma_log();
  EXPECT_EQ(log.Stop().code(), absl::StatusCode::kFailedPrecondition);
  kernel_.dma_start_error = ENOMEM;
  EXPECT_EQ(log.Start(kPage, {kRange}).code(), absl::StatusCode::kResourceExhausted);
  kernel_.dma_start_error = 0;
  ASSERT_TRUE(log.Start(kPage, {kRange}).ok());
  EXPECT_EQ(log.Start(kPage, {kRange}).code(), absl::StatusCode::kFailedPrecondition);
  kernel_.dma_stop_error = EIO;
  EXPECT_FALSE(log.Stop().ok());
  kernel_.dma_stop_error = 0;
  EXPECT_TRUE(log.Stop().ok());
}

TEST_F(DmaLogTest, ALogThatStillRunsIsStoppedWithItsDevice) {
  const UniqueFd vmms(kernel_.GiveDevice());
  {
    const auto device = KernelDevice::AdoptBorrowed(vmms.get(), "nic", kernel_);
    ASSERT_TRUE((*device)->dma_log().Start(kPage, {kRange}).ok());
  }
  EXPECT_TRUE(kernel_.dma_ranges.empty());
}

TEST_F(DmaLogTest, ADriverWithoutItSaysSo) {
  kernel_.has_dma_logging = false;
  const auto device = Adopted();
  DmaLog& log = device->dma_log();
  EXPECT_FALSE(log.supported());
  std::vector<uint64_t> bitmap(3);
  EXPECT_EQ(log.Start(kPage, {kRange}).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(log.Report(kRange, kPage, absl::MakeSpan(bitmap)).code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(bitmap[2], ~uint64_t{0});
  EXPECT_EQ(log.Stop().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace godwit
