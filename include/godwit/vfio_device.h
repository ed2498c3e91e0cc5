// A device that the kernel's VFIO gives: opened by name, or a device fd that a VMM already holds.
#ifndef GODWIT_VFIO_DEVICE_H_
#define GODWIT_VFIO_DEVICE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "godwit/device.h"
#include "godwit/dma_logging.h"
#include "godwit/unique_fd.h"

namespace godwit {

// Values are those of the config payload (docs/config-payload.md).
enum class PciInterruptMode : uint8_t { kNone = 0, kIntx = 1, kMsi = 2, kMsix = 3 };

// "INTx", "MSI", …
absl::string_view PciInterruptModeName(PciInterruptMode mode);

// The interrupts of a PCI device as its guest had set them.
struct PciInterrupts {
  PciInterruptMode mode = PciInterruptMode::kNone;
  uint16_t vectors = 0;    // enabled ones: 1 of INTx, 1 to 32 of MSI, the whole table of MSI-X
  std::string msix_table;  // 16 bytes an entry, little-endian; empty where the driver hides it

  // An eventfd that took all interrupts since the load, owned by the device; -1 if they are left to
  // the VMM. Once the VMM has set eventfds of its own, a count above 0 means: inject each once.
  int pending_fd = -1;
};

// What an embedder puts in place of the config payload. An empty function: ours stays.
struct ConfigHooks {
  std::function<absl::StatusOr<std::string>()> save;    // at most kConfigBytesMax
  std::function<absl::Status(absl::string_view)> load;  // what the peer's save gave, unchecked
};

// Ownership: holds open what it opened: nobody else can use that device meanwhile. An fd handed
//            over as a number stays its owner's, who keeps it open for as long as this lives.
// Threads:   as Device.
// Blocking:  SetState(), State() and Reset() wait for the hardware, and behind a driver that holds
//            its state lock for a read or write of the data_fd.
// Errors:    as Device; a failed SetState() says in which state the device really is.
class VfioDevice : public Device {
 public:
  // `device`: "/sys/bus/mdev/devices/UUID" or "0000:01:00.1", with ",via=group" or ",via=cdev"
  // behind it to force one of VFIO's two ways; by itself the cdev is taken where the kernel has it.
  // The device is RUNNING afterwards: one found in another state (mtty keeps its state over close)
  // is reset. Unimplemented if it can't migrate, Unavailable if it is in use.
  static absl::StatusOr<std::unique_ptr<VfioDevice>> Open(absl::string_view device);

  // A device fd that VFIO gave to the caller, with `name` for messages. It is neither reset nor is
  // its state changed, and its interrupts stay the caller's. InvalidArgument if it is no VFIO
  // device's; Unimplemented if the device can't migrate.
  static absl::StatusOr<std::unique_ptr<VfioDevice>> Adopt(UniqueFd device, std::string name);
  static absl::StatusOr<std::unique_ptr<VfioDevice>> AdoptBorrowed(int device, std::string name);

  // For the configs of later sessions.
  virtual void SetConfigHooks(ConfigHooks hooks) = 0;

  // What the last LoadConfig() without a hook brought; none after a Reset(), which disarms them.
  virtual const PciInterrupts& loaded_interrupts() const = 0;

  virtual DmaLog& dma_log() = 0;
};

}  // namespace godwit

#endif  // GODWIT_VFIO_DEVICE_H_
