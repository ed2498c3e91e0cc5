// What a device's driver logs of its DMA is told once, bit by bit, and only where logging was asked
// for. Plain ioctls.
//
//   synth_dma_logging DEVICE
//
// DEVICE is a godwit_synth device's folder, /sys/bus/mdev/devices/UUID.

#include <linux/vfio.h>

#include <array>
#include <cerrno>
#include <exception>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "raw_device.h"

namespace godwit::lab {
namespace {

constexpr uint32_t kStart = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
constexpr uint32_t kEnd = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
constexpr uint32_t kReport = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
constexpr uint64_t kPage = 4096;
// Two ranges with a gap; the second lies high, as RAM above a PCI hole does.
constexpr uint64_t kLow = 0x100000, kLowPages = 1000;
constexpr uint64_t kHigh = 0x180000000, kHighPages = 70000;

class Log {
 public:
  explicit Log(const RawDevice& device) : device_(device) {}

  int Start(uint64_t* page_bytes) const {
    std::array<vfio_device_feature_dma_logging_range, 2> ranges = {
        {{.iova = kLow, .length = kLowPages * kPage},
         {.iova = kHigh, .length = kHighPages * kPage}}};
    vfio_device_feature_dma_logging_control control = {};
    control.page_size = *page_bytes;
    control.num_ranges = ranges.size();
    control.ranges = reinterpret_cast<uintptr_t>(ranges.data());
    const int error = device_.Feature(kStart, &control, sizeof(control));
    *page_bytes = control.page_size;
    return error;
  }

  int Stop() const { return device_.Feature(kEnd, nullptr, 0); }

  int Report(uint64_t iova, uint64_t pages, std::set<uint64_t>* dirty) const {
    std::vector<uint64_t> bitmap((pages + 63) / 64);
    vfio_device_feature_dma_logging_report report = {
        .iova = iova,
        .length = pages * kPage,
        .page_size = kPage,
        .bitmap = reinterpret_cast<uintptr_t>(bitmap.data())};
    const int error = device_.Feature(kReport, &report, sizeof(report));
    dirty->clear();
    for (uint64_t page = 0; page < pages; ++page) {
      if ((bitmap[page / 64] >> (page % 64) & 1) != 0) dirty->insert(page);
    }
    return error;
  }

 private:
  const RawDevice& device_;
};

int Write(const RawDevice& device, uint64_t iova, uint64_t bytes) {
  return TryWriteAttribute(device.path(), "synth/dma_write",
                           std::to_string(iova) + " " + std::to_string(bytes));
}

std::set<uint64_t> Pages(std::initializer_list<std::pair<uint64_t, uint64_t>> ranges) {
  std::set<uint64_t> pages;
  for (const auto& [first, last] : ranges) {
    for (uint64_t page = first; page <= last; ++page) pages.insert(page);
  }
  return pages;
}

void Run(const std::string& path) {
  const RawDevice device(path);
  const Log log(device);
  std::set<uint64_t> dirty;
  uint64_t page_bytes = kPage;

  Expect(device.Feature(kStart | VFIO_DEVICE_FEATURE_PROBE, nullptr, 0) == 0, "no DMA logging");
  Expect(log.Report(kLow, kLowPages, &dirty) != 0, "a report with logging off");
  Expect(log.Start(&page_bytes) == 0 && page_bytes == kPage, "start");
  Expect(log.Start(&page_bytes) == EINVAL, "a second start");
  Expect(log.Report(kLow, kLowPages, &dirty) == 0 && dirty.empty(), "dirty before any DMA");

  Expect(Write(device, kLow, 1) == 0, "one byte");
  Expect(Write(device, kLow + 63 * kPage + 4095, 2) == 0, "two bytes over a page's end");
  Expect(Write(device, kLow + 500 * kPage, 100 * kPage) == 0, "100 pages");
  Expect(Write(device, kLow + 550 * kPage, 100 * kPage) == 0, "100 pages, half of them again");
  Expect(Write(device, kLow + 995 * kPage, 100 * kPage) == 0, "over the range's end");
  Expect(Write(device, kHigh, kHighPages * kPage) == 0, "a whole range");

  Expect(log.Report(kLow, kLowPages, &dirty) == 0, "report");
  Expect(dirty == Pages({{0, 0}, {63, 64}, {500, 649}, {995, 999}}), "the bits are not those set");
  std::cout << dirty.size() << " dirty pages reported as set\n";
  Expect(log.Report(kLow, kLowPages, &dirty) == 0 && dirty.empty(), "a report does not clear");

  Expect(log.Report(kHigh + 100 * kPage, 200, &dirty) == 0, "report of a part");
  Expect(dirty == Pages({{0, 199}}), "a part of the range");
  Expect(log.Report(kHigh, kHighPages, &dirty) == 0, "report of the rest");
  Expect(dirty == Pages({{0, 99}, {300, kHighPages - 1}}), "the part was not cleared, or more was");
  std::cout << dirty.size() << " dirty pages of " << kHighPages << " left after a report of 200\n";

  Expect(Write(device, kLow, 1) == 0, "one byte");
  WriteAttribute(path, "synth/dma_report_errno", std::to_string(EIO));
  Expect(log.Report(kLow, kLowPages, &dirty) == EIO, "the driver's error is not told");
  WriteAttribute(path, "synth/dma_report_errno", "0");
  Expect(log.Report(kLow, kLowPages, &dirty) == 0 && dirty == Pages({{0, 0}}), "after an error");

  Expect(log.Stop() == 0, "stop");
  Expect(Write(device, kLow, 1) == ENODATA, "a device that logs without being asked");
  Expect(log.Report(kLow, kLowPages, &dirty) != 0, "a report after the stop");
  WriteAttribute(path, "synth/dma_page_bytes", "65536");
  Expect(log.Start(&page_bytes) == 0 && page_bytes == 65536, "the device's own page size");
  Expect(Write(device, kLow + 70000, 1) == 0, "one byte");
  Expect(log.Report(kLow, kLowPages, &dirty) == 0 && dirty == Pages({{16, 31}}), "16 small pages");
  WriteAttribute(path, "synth/dma_page_bytes", "0");
  std::cout << "start, report, clear, stop: as documented\n";
}

}  // namespace
}  // namespace godwit::lab

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::cerr << "usage: synth_dma_logging DEVICE\n";
    return 2;
  }
  godwit::lab::Run(argv[1]);
  return 0;
} catch (const std::exception& error) {
  std::cerr << "synth_dma_logging: " << error.what() << '\n';
  return 1;
}
