// The PCI face of the fake kernel's device: a config space, one BAR with an MSI-X table,
// interrupts.
#ifndef GODWIT_TESTS_VFIO_FAKE_PCI_H_
#define GODWIT_TESTS_VFIO_FAKE_PCI_H_

#include <absl/strings/string_view.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace godwit {

// A function with PCI Express (0x60), MSI (0x90: 64-bit, mask bits, 4 vectors) and MSI-X (0xb0: 8
// vectors, table at 0x1000 of BAR 2), every byte of it writable but for the enable bits, which only
// SET_IRQS changes, as with vfio-pci.
class FakePci {
 public:
  static constexpr size_t kExpress = 0x60;
  static constexpr size_t kMsi = 0x90;
  static constexpr size_t kMsix = 0xb0;
  static constexpr size_t kVectors = 8;
  static constexpr size_t kTableBytes = kVectors * 16;

  explicit FakePci(size_t space_bytes = 256);

  int Ioctl(unsigned long request, void* argument);
  ssize_t Read(void* to, size_t bytes, uint64_t offset);
  ssize_t Write(const void* from, size_t bytes, uint64_t offset);

  // Little-endian.
  void Put(size_t offset, uint32_t value, size_t bytes);
  uint32_t Get(size_t offset, size_t bytes) const;

  std::string space;
  std::string table = std::string(kTableBytes, '\0');
  bool hides_table = false;  // reads give ones, writes go nowhere: vfio-pci
  uint64_t bar_bytes = 0x2000;
  int read_error = 0;  // of the table
  int irq_error = 0;
  size_t transfer_bytes_max = 7;  // short reads and writes are normal

  std::vector<size_t> config_writes;          // offsets, in order
  std::map<uint32_t, std::vector<int>> irqs;  // by index: the eventfds that are set
  uint32_t irq_count = 32;

 private:
  int SetIrqs(const void* argument);
  void Enable(uint32_t index, bool on);
};

}  // namespace godwit

#endif  // GODWIT_TESTS_VFIO_FAKE_PCI_H_
