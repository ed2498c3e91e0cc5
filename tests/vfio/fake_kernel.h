// A kernel with one VFIO device, behind a group and a cdev, and a sysfs that shows devices.
#ifndef GODWIT_TESTS_VFIO_FAKE_KERNEL_H_
#define GODWIT_TESTS_VFIO_FAKE_KERNEL_H_

#include <deque>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "godwit/device.h"
#include "godwit/dma_logging.h"
#include "tests/vfio/fake_pci.h"
#include "tests/vfio/stream_io.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// Keeps the order that the real one asks for: an ioctl that comes too early fails with EINVAL.
class FakeKernel final : public VfioKernel {
 public:
  struct SetResult {
    int error;               // 0: nothing special
    DeviceState state_then;  // where the device is afterwards
  };

  int Open(const std::string& path) override;
  int Ioctl(int fd, unsigned long request, void* argument) override;
  ssize_t Pread(int fd, void* to, size_t bytes, uint64_t offset) override;
  ssize_t Pwrite(int fd, const void* from, size_t bytes, uint64_t offset) override;
  int GiveDevice() { return NewFd(Role::kDevice); }  // as a VMM would hold it
  int GiveUnboundCdev() { return NewFd(Role::kCdev); }

  // Errors are errno values, 0 for none.
  std::map<std::string, int> open_errors;  // by path
  std::string group = "42";
  int api_version = 0;
  bool has_type1v2 = true;
  bool group_viable = true;
  bool group_busy = false;
  int set_container_error = 0;
  int set_iommu_error = 0;
  int device_error = 0;
  bool has_iommufd = false;
  bool has_cdev = false;  // /dev/vfio/devices/vfio0
  int bind_error = 0;

  int migration_error = 0;
  uint64_t migration_flags = 7;
  int data_size_error = 0;
  uint64_t data_size = 12345;
  int precopy_error = 0;
  bool has_precopy_info_v2 = false;
  PrecopyInfo precopy = {100, 200, true};
  int reset_error = 0;
  std::deque<SetResult> set_results;  // of the next SETs; none left: they succeed
  uint32_t state = static_cast<uint32_t>(DeviceState::kRunning);

  bool has_dma_logging = false;
  int dma_start_error = 0;
  int dma_report_error = 0;
  int dma_stop_error = 0;
  std::set<uint64_t> dma_dirty;       // pages of 4096 bytes, by address
  std::vector<IovaRange> dma_ranges;  // while logging is on
  uint64_t dma_page_bytes = 0;

  FakePci* pci = nullptr;  // the device's face, if it has one

  int resets = 0;
  size_t armed_at_reset = 0;  // interrupt modes of the device's face, at the last reset
  int open_fds() const;       // not closed yet
  std::string device_name;

 private:
  enum class Role { kContainer, kGroup, kIommufd, kCdev, kDevice, kData };

  int NewFd(Role role);
  int ContainerIoctl(unsigned long request, void* argument);
  int GroupIoctl(unsigned long request, void* argument);
  int DeviceIoctl(unsigned long request, void* argument);
  int Feature(void* argument);
  uint32_t SupportedOperations(uint32_t index) const;
  int RunFeature(uint32_t flags, void* payload, size_t payload_bytes);
  int SetState(void* payload);
  int DmaStart(void* payload);
  int DmaReport(void* payload);
  int DmaStop();
  int Bind(int fd, void* argument);
  bool IsDevice(int fd) const;

  std::map<int, Role> roles_;
  bool container_set_ = false;
  bool iommu_set_ = false;
  bool precopy_info_v2_ = false;
};

// Directories and links as sysfs has them.
class FakeSysfs {
 public:
  FakeSysfs();
  // Empty `driver` or `group`: none. Returns the device's path.
  std::string AddPci(const std::string& name, const std::string& driver, const std::string& group);
  std::string AddMdev(const std::string& uuid, const std::string& driver, const std::string& group);
  // `name` as in "vfio0".
  static void AddCdev(const std::string& device_path, const std::string& name) {
    std::filesystem::create_directories(device_path + "/vfio-dev/" + name);
  }
  const std::string& root() const { return directory_.path(); }

 private:
  std::string Add(const std::string& bus, const std::string& name, const std::string& driver,
                  const std::string& group);
  TempDirectory directory_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_VFIO_FAKE_KERNEL_H_
