#include "vfio/kernel_dma_log.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>
#include <vector>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "vfio/feature_ioctl.h"
#include "vfio/uapi.h"

namespace godwit {
namespace {

std::string RangeName(uint64_t iova, uint64_t length) {
  return absl::StrCat("range 0x", absl::Hex(iova), " + 0x", absl::Hex(length));
}

// The kernel's own rules, so that a mistake has a message.
absl::Status CheckRange(IovaRange range, uint64_t multiple) {
  if (range.length_bytes != 0 &&
      range.iova <= std::numeric_limits<uint64_t>::max() - (range.length_bytes - 1) &&
      range.iova % multiple == 0 && range.length_bytes % multiple == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      RangeName(range.iova, range.length_bytes),
      " is empty, passes the end of the address space or is no multiple of ", multiple));
}

absl::StatusOr<std::vector<uapi::DmaRange>> CheckedRanges(uint64_t page_bytes,
                                                          absl::Span<const IovaRange> ranges) {
  if (!std::has_single_bit(page_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("page size ", page_bytes, " is no power of two"));
  }
  if (ranges.empty() || ranges.size() > kIovaRangesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(ranges.size(), " ranges, a DMA log takes 1 to ", kIovaRangesMax));
  }
  std::vector<uapi::DmaRange> sorted;
  sorted.reserve(ranges.size());
  for (const IovaRange& range : ranges) {
    GODWIT_RETURN_IF_ERROR(CheckRange(range, page_bytes));
    sorted.push_back({range.iova, range.length_bytes});
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.iova < b.iova; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    const uapi::DmaRange& before = sorted[i - 1];
    if (sorted[i].iova - before.iova >= before.length) continue;
    return absl::InvalidArgumentError(absl::StrCat(RangeName(before.iova, before.length), " and ",
                                                   RangeName(sorted[i].iova, sorted[i].length),
                                                   " overlap"));
  }
  return sorted;
}

}  // namespace

KernelDmaLog::~KernelDmaLog() {
  // On a borrowed fd it would run on. Nobody is left who could take an error.
  if (started_) Stop().IgnoreError();
}

absl::Status KernelDmaLog::Start(uint64_t page_bytes, absl::Span<const IovaRange> ranges) {
  if (!supported_) return absl::UnimplementedError("the driver has no DMA logging");
  if (started_) return absl::FailedPreconditionError("DMA logging has been started already");
  GODWIT_ASSIGN_OR_RETURN(std::vector<uapi::DmaRange> checked, CheckedRanges(page_bytes, ranges));
  uapi::DmaLoggingStartPayload payload = {
      .page_size = page_bytes,
      .num_ranges = static_cast<uint32_t>(checked.size()),
      .reserved = 0,
      .ranges = reinterpret_cast<uintptr_t>(checked.data()),
  };
  const int result =
      Feature(kernel_, device_, uapi::kFeatureDmaLoggingStart | VFIO_DEVICE_FEATURE_SET, payload);
  if (result < 0) {
    return ErrnoStatus(-result, absl::StrCat("VFIO_DEVICE_FEATURE_DMA_LOGGING_START with ",
                                             checked.size(), " ranges"));
  }
  started_ = true;
  return absl::OkStatus();
}

absl::Status KernelDmaLog::Report(IovaRange range, uint64_t page_bytes,
                                  absl::Span<uint64_t> bitmap) {
  const absl::Status status = ReadInto(range, page_bytes, bitmap);
  // What the log held may be gone, and a driver may have set some bits only.
  if (!status.ok()) std::fill(bitmap.begin(), bitmap.end(), ~uint64_t{0});
  return status;
}

absl::Status KernelDmaLog::ReadInto(IovaRange range, uint64_t page_bytes,
                                    absl::Span<uint64_t> bitmap) {
  GODWIT_RETURN_IF_ERROR(CheckStarted());
  if (!std::has_single_bit(page_bytes) || page_bytes < kDirtyPageBytesMin) {
    return absl::InvalidArgumentError(absl::StrCat(
        "page size ", page_bytes, " is no power of two from ", kDirtyPageBytesMin, " on"));
  }
  GODWIT_RETURN_IF_ERROR(CheckRange(range, 1));
  if (bitmap.size() < DirtyBitmapWords(range, page_bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a bitmap of ", bitmap.size(), " words for ", RangeName(range.iova, range.length_bytes),
        ", which needs ", DirtyBitmapWords(range, page_bytes)));
  }
  uapi::DmaLoggingReportPayload payload = {
      .iova = range.iova,
      .length = range.length_bytes,
      .page_size = page_bytes,
      .bitmap = reinterpret_cast<uintptr_t>(bitmap.data()),
  };
  const int result =
      Feature(kernel_, device_, uapi::kFeatureDmaLoggingReport | VFIO_DEVICE_FEATURE_GET, payload);
  if (result == 0) return absl::OkStatus();
  return ErrnoStatus(-result, absl::StrCat("VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT of ",
                                           RangeName(range.iova, range.length_bytes)));
}

absl::Status KernelDmaLog::Stop() {
  GODWIT_RETURN_IF_ERROR(CheckStarted());
  const int result = SetFeature(kernel_, device_, uapi::kFeatureDmaLoggingStop);
  if (result < 0) return ErrnoStatus(-result, "VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP");
  started_ = false;
  return absl::OkStatus();
}

absl::Status KernelDmaLog::CheckStarted() const {
  if (!supported_) return absl::UnimplementedError("the driver has no DMA logging");
  if (!started_) return absl::FailedPreconditionError("DMA logging has not been started");
  return absl::OkStatus();
}

}  // namespace godwit
