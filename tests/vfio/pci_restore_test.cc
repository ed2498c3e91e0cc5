// Goal: a PCI function's configuration comes to the other side, in the order of
// docs/config-payload.md; what is the host's or the VMM's stays as it is there.
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>

#include "tests/vfio/fake_kernel.h"
#include "vfio/kernel_device.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;

constexpr char kBdf[] = "0000:01:00.1";
constexpr size_t kDeviceControl = FakePci::kExpress + PCI_EXP_DEVCTL;
constexpr size_t kDeviceControl2 = FakePci::kExpress + PCI_EXP_DEVCTL2;

// A host with one PCI function.
struct Host {
  Host() {
    sysfs.AddPci(kBdf, "mlx5_vfio_pci", "42");
    kernel.pci = &pci;
  }
  std::unique_ptr<KernelDevice> Open() {
    auto device = KernelDevice::Open(kBdf, kernel, sysfs.root());
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? *std::move(device) : nullptr;
  }
  std::unique_ptr<KernelDevice> Adopt() {
    return *KernelDevice::Adopt(UniqueFd(kernel.GiveDevice()), "nic", kernel);
  }

  FakeSysfs sysfs;
  FakePci pci;
  FakeKernel kernel;
};

class PciRestoreTest : public testing::Test {
 protected:
  // The source's guest has set all that a guest can, and all that it should not.
  PciRestoreTest() {
    FakePci& pci = source_.pci;
    pci.Put(PCI_COMMAND, 0x0fff & ~PCI_COMMAND_INTX_DISABLE, 2);
    pci.Put(PCI_CACHE_LINE_SIZE, 16, 1);
    pci.Put(PCI_LATENCY_TIMER, 0x40, 1);
    pci.Put(PCI_BASE_ADDRESS_0, 0xfebf0000, 4);
    pci.Put(PCI_INTERRUPT_LINE, 11, 1);
    pci.Put(kDeviceControl, 0xffff, 2);
    pci.Put(kDeviceControl2, 0xffff, 2);
    pci.Put(FakePci::kMsi + PCI_MSI_ADDRESS_LO, 0xfee01000, 4);
    pci.Put(FakePci::kMsi + PCI_MSI_ADDRESS_HI, 1, 4);
    pci.Put(FakePci::kMsi + PCI_MSI_DATA_64, 0x4041, 2);
    pci.Put(FakePci::kMsi + PCI_MSI_MASK_64, 5, 4);
    for (size_t i = 0; i < pci.table.size(); ++i) pci.table[i] = static_cast<char>(i);
  }
  void EnableMsix() {
    source_.pci.Put(FakePci::kMsix + PCI_MSIX_FLAGS,
                    (FakePci::kVectors - 1) | PCI_MSIX_FLAGS_ENABLE, 2);
  }
  void EnableMsi() {
    source_.pci.Put(
        FakePci::kMsi + PCI_MSI_FLAGS,
        PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT | 2 << 1 | 2 << 4 | PCI_MSI_FLAGS_ENABLE, 2);
  }
  std::string Saved() {
    const auto config = source_.Open()->SaveConfig();
    EXPECT_TRUE(config.ok()) << config.status();
    return config.value_or("");
  }
  absl::Status Load(const std::string& config) { return target_.Open()->LoadConfig(config); }

  Host source_;
  Host target_;
};

TEST_F(PciRestoreTest, WhatIsTheGuestsComesOver) {
  EnableMsix();
  const auto device = target_.Open();
  ASSERT_EQ(device->LoadConfig(Saved()), absl::OkStatus());
  const FakePci& pci = target_.pci;
  EXPECT_EQ(pci.Get(PCI_CACHE_LINE_SIZE, 1), 16u);
  EXPECT_EQ(pci.Get(PCI_LATENCY_TIMER, 1), 0x40u);
  EXPECT_EQ(pci.Get(PCI_INTERRUPT_LINE, 1), 11u);
  EXPECT_EQ(pci.Get(kDeviceControl, 2), 0x781fu);
  EXPECT_EQ(pci.Get(kDeviceControl2, 2), 0x031fu);
  EXPECT_EQ(pci.Get(FakePci::kMsi + PCI_MSI_ADDRESS_LO, 4), 0xfee01000u);
  EXPECT_EQ(pci.Get(FakePci::kMsi + PCI_MSI_ADDRESS_HI, 4), 1u);
  EXPECT_EQ(pci.Get(FakePci::kMsi + PCI_MSI_DATA_64, 2), 0x4041u);
  EXPECT_EQ(pci.Get(FakePci::kMsi + PCI_MSI_MASK_64, 4), 5u);
  EXPECT_EQ(pci.Get(FakePci::kMsix + PCI_MSIX_FLAGS, 2), PCI_MSIX_FLAGS_ENABLE | 7u);
  EXPECT_EQ(pci.table, source_.pci.table);
  EXPECT_EQ(pci.Get(PCI_COMMAND, 2), 0x0147u);
  EXPECT_EQ(pci.config_writes.back(), size_t{PCI_COMMAND});
}

TEST_F(PciRestoreTest, WhatIsTheHostsStays) {
  target_.pci.Put(PCI_BASE_ADDRESS_0, 0xe0000000, 4);
  target_.pci.Put(kDeviceControl, 0x0120, 2);  // payload size and extended tags of its topology
  target_.pci.Put(kDeviceControl2, 0x0400, 2);
  target_.pci.Put(PCI_SUBSYSTEM_ID, 0x99, 2);
  ASSERT_EQ(Load(Saved()), absl::OkStatus());
  EXPECT_EQ(target_.pci.Get(PCI_BASE_ADDRESS_0, 4), 0xe0000000u);
  EXPECT_EQ(target_.pci.Get(kDeviceControl, 2), 0x793fu);  // and no function-level reset
  EXPECT_EQ(target_.pci.Get(kDeviceControl2, 2), 0x071fu);
  EXPECT_EQ(target_.pci.Get(PCI_SUBSYSTEM_ID, 2), 0x99u);
}

TEST_F(PciRestoreTest, InterruptsAreEnabledOverOneEventfd) {
  struct Case {
    std::function<void()> enable;
    PciInterruptMode mode;
    uint32_t index;
    size_t vectors;
  };
  const Case cases[] = {
      {[] {}, PciInterruptMode::kIntx, VFIO_PCI_INTX_IRQ_INDEX, 1},
      {[this] { EnableMsi(); }, PciInterruptMode::kMsi, VFIO_PCI_MSI_IRQ_INDEX, 4},
      {[this] { EnableMsix(); }, PciInterruptMode::kMsix, VFIO_PCI_MSIX_IRQ_INDEX, 8},
  };
  const auto device = target_.Open();  // each mode takes the place of the one before
  for (const Case& wanted : cases) {
    wanted.enable();
    ASSERT_EQ(device->LoadConfig(Saved()), absl::OkStatus());
    const PciInterrupts& loaded = device->loaded_interrupts();
    EXPECT_EQ(loaded.mode, wanted.mode);
    EXPECT_EQ(loaded.vectors, wanted.vectors);
    ASSERT_EQ(target_.pci.irqs.size(), 1u);
    const std::vector<int>& fds = target_.pci.irqs.at(wanted.index);
    EXPECT_EQ(fds.size(), wanted.vectors);
    EXPECT_THAT(fds, Each(loaded.pending_fd));
    eventfd_t count = 0;
    EXPECT_EQ(::eventfd_write(fds[0], 1), 0);
    EXPECT_EQ(::eventfd_read(loaded.pending_fd, &count), 0);
  }
}

TEST_F(PciRestoreTest, InterruptsOfAnAdoptedDeviceAreTheVmms) {
  EnableMsix();
  const auto device = target_.Adopt();
  ASSERT_EQ(device->LoadConfig(Saved()), absl::OkStatus());
  EXPECT_TRUE(target_.pci.irqs.empty());
  EXPECT_EQ(device->loaded_interrupts().mode, PciInterruptMode::kMsix);
  EXPECT_EQ(device->loaded_interrupts().vectors, 8);
  EXPECT_EQ(device->loaded_interrupts().msix_table, source_.pci.table);
  EXPECT_EQ(device->loaded_interrupts().pending_fd, -1);
  EXPECT_EQ(target_.pci.Get(PCI_COMMAND, 2), 0x0147u);
}

TEST_F(PciRestoreTest, ATableThatTheDriverHidesIsLeftToTheVmm) {
  EnableMsix();
  target_.pci.hides_table = true;
  ASSERT_EQ(Load(Saved()), absl::OkStatus());
  EXPECT_EQ(target_.pci.table, std::string(FakePci::kTableBytes, '\0'));

  source_.pci.hides_table = true;
  EXPECT_EQ(Saved().size(), 32u + 256u);
  source_.pci.hides_table = false;
  source_.pci.bar_bytes = 0x1000;  // the capability points past its BAR
  EXPECT_EQ(Saved().size(), 32u + 256u);
  source_.pci.Put(FakePci::kMsix + PCI_MSIX_TABLE, 0x1007, 4);  // or to no BAR
  EXPECT_EQ(Saved().size(), 32u + 256u);
}

TEST_F(PciRestoreTest, ATableInUseThatCantBeReadIsAnError) {
  source_.pci.read_error = EIO;
  EXPECT_EQ(Saved().size(), 32u + 256u);  // not in use: not missed
  EnableMsix();
  const absl::Status failed = source_.Open()->SaveConfig().status();
  EXPECT_THAT(std::string(failed.message()), AllOf(HasSubstr(kBdf), HasSubstr("MSI-X table")));
}

TEST_F(PciRestoreTest, AnotherDevicesConfigIsRefusedAndNothingIsWritten) {
  target_.pci.Put(PCI_DEVICE_ID, 0x1018, 2);
  const absl::Status refusal = Load(Saved());
  EXPECT_EQ(refusal.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refusal.message()),
              AllOf(HasSubstr(kBdf), HasSubstr("15b3:101e"), HasSubstr("15b3:1018")));
  EXPECT_TRUE(target_.pci.config_writes.empty());
  EXPECT_TRUE(target_.pci.irqs.empty());
}

TEST_F(PciRestoreTest, ADamagedConfigIsRefusedAndNothingIsWritten) {
  std::string config = Saved();
  config[40] = static_cast<char>(config[40] ^ 1);
  EXPECT_EQ(Load(config).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Load(config.substr(0, 20)).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(target_.pci.config_writes.empty());
}

TEST_F(PciRestoreTest, FewerInterruptsThanTheSourceUsedAreAnErrorBeforeTheCommandRegister) {
  EnableMsix();
  target_.pci.irq_count = 4;
  const absl::Status refusal = Load(Saved());
  EXPECT_EQ(refusal.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refusal.message()),
              HasSubstr("the source used 8 MSI-X interrupts, this device gives 4"));
  EXPECT_EQ(target_.pci.Get(PCI_COMMAND, 2), PCI_COMMAND_INTX_DISABLE + 0u);
  target_.pci.irq_count = 8;
  target_.pci.irq_error = EBUSY;
  EXPECT_THAT(std::string(Load(Saved()).message()), HasSubstr("VFIO_DEVICE_SET_IRQS"));
}

TEST_F(PciRestoreTest, AResetDisarmsWhatALoadHasArmedBeforeTheDeviceIsReset) {
  const std::function<void()> modes[] = {[] {}, [this] { EnableMsi(); }, [this] { EnableMsix(); }};
  const auto device = target_.Open();
  for (const auto& enable : modes) {
    enable();
    ASSERT_EQ(device->LoadConfig(Saved()), absl::OkStatus());
    ASSERT_EQ(target_.pci.irqs.size(), 1u);
    target_.kernel.armed_at_reset = 99;
    ASSERT_EQ(device->Reset(), absl::OkStatus());
    EXPECT_EQ(target_.kernel.armed_at_reset, 0u);
    EXPECT_TRUE(target_.pci.irqs.empty());
    EXPECT_EQ(device->loaded_interrupts().mode, PciInterruptMode::kNone);
    EXPECT_EQ(device->loaded_interrupts().pending_fd, -1);
    EXPECT_EQ(device->Reset(), absl::OkStatus());  // with nothing to disarm
  }
}

TEST_F(PciRestoreTest, AResetOfAnAdoptedDeviceLeavesTheVmmsInterruptsArmed) {
  EnableMsix();
  const auto device = target_.Adopt();
  ASSERT_EQ(device->LoadConfig(Saved()), absl::OkStatus());
  target_.pci.irqs[VFIO_PCI_MSIX_IRQ_INDEX] = {7, 7};
  EXPECT_EQ(device->Reset(), absl::OkStatus());
  EXPECT_EQ(target_.pci.irqs.at(VFIO_PCI_MSIX_IRQ_INDEX), std::vector<int>({7, 7}));
  EXPECT_EQ(device->loaded_interrupts().mode, PciInterruptMode::kNone);
}

TEST_F(PciRestoreTest, ADeviceThatCanNotBeDisarmedIsResetAllTheSame) {
  EnableMsix();
  const auto device = target_.Open();
  ASSERT_EQ(device->LoadConfig(Saved()), absl::OkStatus());
  target_.kernel.state = static_cast<uint32_t>(DeviceState::kError);
  target_.pci.irq_error = EIO;
  const int resets = target_.kernel.resets;
  const absl::Status refused = device->Reset();
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr(kBdf), HasSubstr("VFIO_DEVICE_SET_IRQS: disable MSI-X")));
  EXPECT_EQ(target_.kernel.resets, resets + 1);
  EXPECT_EQ(device->State().value(), DeviceState::kRunning);
  target_.pci.irq_error = 0;
  EXPECT_EQ(device->Reset(), absl::OkStatus());  // what is still armed is not forgotten
  EXPECT_TRUE(target_.pci.irqs.empty());
}

TEST_F(PciRestoreTest, ALoadThatFailsAtItsInterruptsLeavesNoneArmed) {
  EnableMsi();
  const auto device = target_.Open();
  ASSERT_EQ(device->LoadConfig(Saved()), absl::OkStatus());
  EnableMsix();
  target_.pci.irq_count = 4;  // of 8
  EXPECT_FALSE(device->LoadConfig(Saved()).ok());
  EXPECT_TRUE(target_.pci.irqs.empty());
  EXPECT_EQ(device->loaded_interrupts().mode, PciInterruptMode::kNone);
  EXPECT_EQ(device->Reset(), absl::OkStatus());
}

TEST_F(PciRestoreTest, ADeviceWithoutAPciFaceHasAnEmptyConfig) {
  source_.kernel.pci = nullptr;
  EXPECT_EQ(Saved(), "");
  const absl::Status none = Load("");
  EXPECT_EQ(none.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(none.message()), HasSubstr("the source sent none"));
  target_.kernel.pci = nullptr;
  EXPECT_EQ(Load(""), absl::OkStatus());
  EXPECT_THAT(std::string(Load("x").message()), HasSubstr("sent 1 bytes, this device is no PCI"));
}

TEST_F(PciRestoreTest, AConfigSpaceOfAnUnknownSizeIsRefused) {
  for (const size_t bytes : {size_t{63}, size_t{4097}}) {
    source_.pci.space = std::string(bytes, '\0');
    EXPECT_EQ(source_.Open()->SaveConfig().status().code(), absl::StatusCode::kUnimplemented);
  }
}

TEST_F(PciRestoreTest, AnEmbeddersHooksTakeThePlaceOfAll) {
  const auto from = source_.Adopt();
  const auto to = target_.Adopt();
  std::string loaded;
  ConfigHooks hooks;
  hooks.save = [] { return std::string("mine"); };
  hooks.load = [&](absl::string_view config) {
    loaded = std::string(config);
    return loaded == "mine" ? absl::OkStatus() : absl::DataLossError("not mine");
  };
  from->SetConfigHooks(hooks);
  to->SetConfigHooks(hooks);
  EXPECT_EQ(to->LoadConfig(from->SaveConfig().value()), absl::OkStatus());
  EXPECT_EQ(loaded, "mine");
  EXPECT_TRUE(target_.pci.config_writes.empty());
  EXPECT_THAT(std::string(to->LoadConfig("x").message()), HasSubstr("nic: load the config: not"));

  hooks.save = [] { return std::string(kConfigBytesMax + 1, 'x'); };
  from->SetConfigHooks(hooks);
  EXPECT_EQ(from->SaveConfig().status().code(), absl::StatusCode::kOutOfRange);
  hooks.save = nullptr;  // ours again
  from->SetConfigHooks(hooks);
  EXPECT_EQ(from->SaveConfig().value().substr(0, 4), "GPCI");
}

}  // namespace
}  // namespace godwit
