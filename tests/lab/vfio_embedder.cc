// What a VMM does with a VFIO device that it holds open, on a real kernel: hands the device's fd to
// Godwit, moves its state and config from one mtty device to another, logs DMA, gets the fd back.
//
//   vfio_embedder SOURCE TARGET
//
// Both are folders of mtty devices, /sys/bus/mdev/devices/UUID. Exits with 0 if all went as it
// should; else its last line on stderr says what did not.

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "godwit/vfio_device.h"

namespace godwit {
namespace {

void Require(bool fact, absl::string_view what) {
  if (fact) return;
  std::cerr << "vfio_embedder: not so: " << what << '\n';
  std::exit(1);
}

template <typename Value>
Value Get(absl::StatusOr<Value> value, absl::string_view what) {
  Require(value.ok(), absl::StrCat(what, ": ", value.status().message()));
  return *std::move(value);
}

// The VMM's own way to a device, through its group.
struct Held {
  explicit Held(const std::string& path)
      : container(::open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC)),
        group(::open(GroupPath(path).c_str(), O_RDWR | O_CLOEXEC)) {
    int fd = container.get();
    Require(::ioctl(group.get(), VFIO_GROUP_SET_CONTAINER, &fd) == 0, "the group has a container");
    Require(::ioctl(fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0, "the container has an IOMMU");
    const std::string uuid = std::filesystem::path(path).filename();
    device.Reset(::ioctl(group.get(), VFIO_GROUP_GET_DEVICE_FD, uuid.c_str()));
    Require(device.valid(), "the group gives the device");
  }
  static std::string GroupPath(const std::string& path) {
    const auto link = std::filesystem::read_symlink(path + "/iommu_group");
    return "/dev/vfio/" + link.filename().string();
  }

  // Closed from the last up.
  UniqueFd container;
  UniqueFd group;
  UniqueFd device;
};

std::string ReadToEnd(int fd) {
  std::string all;
  std::array<char, 7> some;  // short reads, to be nasty
  for (ssize_t got; (got = ::read(fd, some.data(), some.size())) != 0;) {
    Require(got > 0, "the state is read");
    all.append(some.data(), static_cast<size_t>(got));
  }
  return all;
}

void Move(VfioDevice& source, VfioDevice& target) {
  UniqueFd saving = Get(source.SetState(DeviceState::kStopCopy), "source to STOP_COPY");
  const std::string state = ReadToEnd(saving.get());
  const std::string config = Get(source.SaveConfig(), "save the config");
  Get(source.SetState(DeviceState::kStop), "source to STOP");

  UniqueFd loading = Get(target.SetState(DeviceState::kResuming), "target to RESUMING");
  Require(::write(loading.get(), state.data(), state.size()) == static_cast<ssize_t>(state.size()),
          "the state is written");
  Get(target.SetState(DeviceState::kStop), "target to STOP");
  const absl::Status loaded = target.LoadConfig(config);
  Require(loaded.ok(), absl::StrCat("load the config: ", loaded.message()));
  Require(target.loaded_interrupts().mode == PciInterruptMode::kIntx, "the guest had INTx");
  Require(target.loaded_interrupts().pending_fd == -1, "interrupts stay the VMM's");
  Get(target.SetState(DeviceState::kRunning), "target to RUNNING");
  std::cout << "moved " << state.size() << " bytes of state and " << config.size()
            << " of config\n";
}

void LogDma(DmaLog& log) {
  constexpr uint64_t kPage = 4096;
  const std::vector<IovaRange> ranges = {{0x200000, 64 * kPage}, {0x100000, 130 * kPage}};
  Require(log.supported(), "the driver logs DMA");
  absl::Status status = log.Start(kPage, ranges);
  Require(status.ok(), absl::StrCat("start: ", status.message()));
  std::vector<uint64_t> bitmap(DirtyBitmapWords(ranges[1], kPage));
  status = log.Report(ranges[1], kPage, absl::MakeSpan(bitmap));
  Require(status.ok(), absl::StrCat("report: ", status.message()));
  // Whatever goes wrong with a report, no page may be missed.
  const std::vector<uint64_t> all(3, ~uint64_t{0});
  constexpr uint64_t kNoPageSize = 3000;
  status = log.Report(ranges[1], kNoPageSize, absl::MakeSpan(bitmap));
  Require(!status.ok(), "a page size that is none is refused");
  Require(bitmap == all, "all is dirty after an error");
  std::cout << status.message() << '\n';
  status = log.Stop();
  Require(status.ok(), absl::StrCat("stop: ", status.message()));
  Require(log.Start(kPage, ranges).ok() && log.Stop().ok(), "logging can be started anew");
  std::cout << "DMA logging started and stopped\n";
}

int Run(const std::string& source_path, const std::string& target_path) {
  const Held source(source_path);
  const Held target(target_path);
  {
    const auto from = Get(VfioDevice::AdoptBorrowed(source.device.get(), "source"), "adopt");
    const auto to = Get(VfioDevice::AdoptBorrowed(target.device.get(), "target"), "adopt");
    LogDma(from->dma_log());
    Move(*from, *to);
  }
  vfio_device_info info = {};
  info.argsz = sizeof(info);
  Require(::ioctl(source.device.get(), VFIO_DEVICE_GET_INFO, &info) == 0, "the VMM has its fd");
  // A file of VFIO's that is no device.
  for (const int fd : {source.group.get(), source.container.get()}) {
    const auto refusal = VfioDevice::AdoptBorrowed(fd, "no device");
    Require(!refusal.ok(), "group and container are no devices");
    std::cout << refusal.status().message() << '\n';
  }
  return 0;
}

}  // namespace
}  // namespace godwit

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: vfio_embedder SOURCE TARGET\n";
    return 2;
  }
  return godwit::Run(argv[1], argv[2]);
}
