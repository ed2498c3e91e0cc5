// The DMA log that a VFIO driver keeps.
#ifndef GODWIT_VFIO_KERNEL_DMA_LOG_H_
#define GODWIT_VFIO_KERNEL_DMA_LOG_H_

#include "godwit/dma_logging.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// As DmaLog. Borrows the device's fd and stops a log that still runs when it goes.
class KernelDmaLog final : public DmaLog {
 public:
  KernelDmaLog(VfioKernel& kernel, int device, bool supported)
      : kernel_(kernel), device_(device), supported_(supported) {}
  ~KernelDmaLog() override;
  KernelDmaLog(const KernelDmaLog&) = delete;
  KernelDmaLog& operator=(const KernelDmaLog&) = delete;

  bool supported() const override { return supported_; }
  absl::Status Start(uint64_t page_bytes, absl::Span<const IovaRange> ranges) override;
  absl::Status Report(IovaRange range, uint64_t page_bytes, absl::Span<uint64_t> bitmap) override;
  absl::Status Stop() override;

 private:
  absl::Status ReadInto(IovaRange range, uint64_t page_bytes, absl::Span<uint64_t> bitmap);
  absl::Status CheckStarted() const;

  VfioKernel& kernel_;
  const int device_;
  const bool supported_;

  bool started_ = false;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_KERNEL_DMA_LOG_H_
